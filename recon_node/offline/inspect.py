"""What is in a raw data file, as plain values and without patient data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recon_node.core.scan import ScanHeader
from recon_node.core.types import KSpace
from recon_node.files.open import open_source
from recon_node.pipeline.scan import prepare
from recon_node.prompts import build_prompts
from recon_node.settings import Settings

_SHOWN = (
    "vendor",
    "model",
    "field_strength_t",
    "protocol",
    "sequence",
    "trajectory",
    "encoded_matrix",
    "encoded_fov_mm",
    "recon_matrix",
    "recon_fov_mm",
    "acceleration",
    "calibration_mode",
    "receiver_channels",
    "te_ms",
    "tr_ms",
    "ti_ms",
    "flip_deg",
    "patient_position",
)


def inspect_file(path: Path, settings: Settings) -> dict[str, Any]:
    """Header, dimensions, sampling and prompts of a raw data file.

    Parameters
    ----------
    path : Path
        Anything `open_source` reads.
    settings : Settings
        Preparation options and prompt overrides.

    Returns
    -------
    dict
        ``header`` (the first encoding's), ``origin`` (where each value came from), ``kspace`` (one entry a
        slice) and ``notes``; JSON-able, without patient data.

    Raises
    ------
    SourceError, DataError
        The file cannot be read, or contradicts itself.
    """
    with open_source(path, group=settings.prep.group) as source:
        headers = source.headers
        scans = [_scan(prepared.kspace, settings) for prepared in prepare(source, settings.prep)]
    notes = list(dict.fromkeys(note for scan in scans for note in scan["notes"]))
    return {
        "input": str(path),
        "encodings": len(headers),
        "header": _header(headers[0]),
        "origin": {k: v for k, v in headers[0].origin.items() if k in _SHOWN},
        "kspace": scans,
        "notes": notes,
    }


def _header(header: ScanHeader) -> dict[str, Any]:
    shown = {name: getattr(header, name) for name in _SHOWN}
    limits = {name: [limit.minimum, limit.maximum, limit.center] for name, limit in header.limits.items()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}
    return {**plain, "limits": limits}


def _scan(kspace: KSpace, settings: Settings) -> dict[str, Any]:
    prompts = build_prompts(kspace.header, kspace.sampling, overrides=settings.prompts.overrides())
    sampling, index = kspace.sampling, kspace.index
    phases, coils, ky, kx = kspace.data.shape
    return {
        "index": {
            name: getattr(index, name)
            for name in ("slice", "contrast", "set", "repetition", "partition", "encoding")
        },
        "dimensions": {"phases": phases, "coils": coils, "ky": ky, "kx": kx},
        "lines": {"found": kspace.lines_found, "expected": kspace.lines_expected},
        "sampling": {
            "pattern": sampling.pattern,
            "acceleration": round(sampling.acceleration, 3),
            "effective_acceleration": round(sampling.effective_acceleration, 3),
            "acs_lines": sampling.acs,
            "partial_fourier": round(sampling.partial_fourier, 3),
            **({"parts": [f"{rate:.1f}x {name}" for name, rate in sampling.parts]} if sampling.parts else {}),
        },
        "whitened": kspace.whitened,
        "calibration": None if kspace.calibration is None else list(kspace.calibration.shape),
        "geometry": {
            "position_mm": list(kspace.geometry.position_mm),
            "read_dir": list(kspace.geometry.read_dir),
            "phase_dir": list(kspace.geometry.phase_dir),
            "fov_mm": list(kspace.geometry.fov_mm),
            "known": kspace.geometry.known,
        },
        "prompts": {
            "metadata": str(prompts.metadata),
            "undersampling": str(prompts.undersampling),
            "provenance": {
                "metadata": dict(prompts.metadata.provenance),
                "undersampling": dict(prompts.undersampling.provenance),
            },
        },
        "notes": list(kspace.notes),
    }
