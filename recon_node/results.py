"""A reconstruction as DICOM files, and as an entry of ``summary.json``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_node.dicom import Provenance, Site, WrittenInstance, write_series
from recon_node.images import Scaling, scale_series
from recon_node.pipeline import Reconstruction
from recon_node.settings import DicomSettings

WARNING = "Not for clinical use until validated."


@dataclass(slots=True, kw_only=True)
class SeriesWriter:
    """Writes the slices of one scan; all of them share the first one's grey scale."""

    out: Path
    settings: DicomSettings
    fsync: bool = False
    scaling: Scaling | None = None

    def write(self, result: Reconstruction, source_id: str) -> list[WrittenInstance]:
        """``out/<study>/<series>/*.dcm``: all of the series or nothing.

        Parameters
        ----------
        result : Reconstruction
            One slice.
        source_id : str
            What tells this raw data from others whose headers have no identifiers; goes into the UIDs.

        Raises
        ------
        DicomError
            The images are not finite, or the folder cannot be written.
        """
        start = time.perf_counter()
        pixels = scale_series(result.images, scaling=self.scaling)
        self.scaling = pixels.scaling
        written = write_series(
            result.images,
            self.out,
            pixels=pixels,
            provenance=provenance(result, source_id),
            site=_site(self.settings),
            series_number=_series_number(result, self.settings),
            fsync=self.fsync,
        )
        result.seconds["dicom"] = time.perf_counter() - start
        return written


def provenance(result: Reconstruction, source_id: str = "") -> Provenance:
    """What the DICOM instances say about how they were made."""
    return Provenance(
        made_by=result.images.made_by,
        prompts=result.prompts,
        sampling=result.kspace.sampling,
        verdict=result.verdict,
        validated=result.validated,
        lines_found=result.kspace.lines_found,
        lines_expected=result.kspace.lines_expected,
        notes=result.kspace.notes,
        source_id=source_id,
    )


def _site(settings: DicomSettings) -> Site:
    given = {key: getattr(settings, key) for key in ("institution", "station", "uid_prefix")}
    return Site(**{key: value for key, value in given.items() if value is not None})


def _series_number(result: Reconstruction, settings: DicomSettings) -> int:
    first = result.kspace.header.study.initial_series_number or 0
    return settings.series_number_offset + 100 * first + _position(result)


def _position(result: Reconstruction) -> int:
    """Running number of this slice, contrast, set and repetition within its scan, from 1."""
    index, limits = result.kspace.index, result.kspace.header.limits
    number = 0
    for name in ("repetition", "set", "contrast", "slice"):
        size = limits[name].size if name in limits else 1
        number = number * max(1, size) + getattr(index, name)
    return 1 + number + index.partition


def summary_entry(
    result: Reconstruction,
    *,
    source: str,
    instances: Iterable[WrittenInstance] = (),
    metrics: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """One entry of ``summary.json``, JSON-able."""
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
        },
        "notes": list(result.kspace.notes),
        "instances": [instance.sop_instance_uid for instance in instances],
        "seconds": {stage: round(value, 4) for stage, value in result.seconds.items()},
    }
    if metrics is not None:
        entry["metrics"] = {name: dict(values) for name, values in metrics.items()}
    return entry


_COUNTERS = ("slice", "contrast", "set", "repetition", "encoding", "partition")


def write_summary(path: Path, series: list[dict[str, Any]], **more: Any) -> None:
    """Write ``summary.json`` whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    text = json.dumps({"warning": WARNING, **more, "series": series}, indent=2)
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
