"""A reconstruction as DICOM files, and as an entry of ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recon_node.core import durable
from recon_node.core.types import Expected
from recon_node.pipeline.result import Slice

WARNING = "Not for clinical use until validated."


def summary_entry(
    done: Slice,
    *,
    source: str,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """One entry of ``summary.json``, JSON-able."""
    result = done.result
    made, sampling = result.images.made_by, result.kspace.sampling
    entry: dict[str, Any] = {
        "input": source,
        "slice": result.kspace.index.slice,
        "index": {name: getattr(result.kspace.index, name) for name in _COUNTERS},
        "phases": int(result.images.data.shape[0]),
        "matrix": list(result.images.data.shape[1:]),
        "method": made.method,
        "weights": {"name": made.weights, "sha256": made.weights_sha256},
        "prompts": {
            "metadata": str(result.prompts.metadata),
            "undersampling": str(result.prompts.undersampling),
        },
        "sampling": {
            "pattern": sampling.pattern,
            "acceleration": round(sampling.acceleration, 3),
            "effective_acceleration": round(sampling.effective_acceleration, 3),
            "acs_lines": sampling.acs,
        },
        "lines": {"found": result.kspace.lines_found, "expected": result.kspace.lines_expected},
        "trust": {
            "verdict": result.verdict.verdict,
            "score": round(result.verdict.score, 4),
            "reasons": list(result.verdict.reasons),
            "held": result.held,
            "withheld": None if result.withheld is None else result.withheld.made_by.method,
            "expected": _expected(result.verdict.expected),
        },
        "geometry": {
            "known": result.images.geometry.known,
            "unknown": sorted(result.kspace.header.unknown),
        },
        "notes": list(result.kspace.notes),
        "instances": [instance.sop_instance_uid for instance in done.instances],
        "seconds": {stage: round(value, 4) for stage, value in done.seconds.items()},
    }
    if metrics is not None:
        entry["metrics"] = {name: dict(values) for name, values in metrics.items()}
    return entry


def _expected(expected: Expected | None) -> dict[str, Any] | None:
    return None if expected is None else {**asdict(expected), "said": expected.sentence}


_COUNTERS = ("slice", "contrast", "set", "repetition", "encoding", "partition")


def write_summary(path: Path, series: list[dict[str, Any]], **more: Any) -> None:
    """Write ``summary.json`` whole or not at all."""
    text = json.dumps({"warning": WARNING, **more, "series": series}, indent=2)
    durable.write_text(path, text + "\n")
