"""Images as NIfTI files with BIDS-like names, for research tools: one four-dimensional stack a scan."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from recon_node.core import durable
from recon_node.core.errors import ConfigError
from recon_node.core.types import ImageSeries

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SPACING_MM = 0.1
"""Slices whose distances differ by more are no stack."""
Key = tuple[int, int, int, int]


class NiftiStack:
    """Collects the magnitude images of one scan.

    Parameters
    ----------
    out : Path
        The output folder; files go to ``nifti/sub-<pseudonym>/cine/``.

    Raises
    ------
    ConfigError
        nibabel is not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            import nibabel
        except ImportError as error:
            raise ConfigError("--nifti needs nibabel: pip install 'recon-node[nifti]'") from error
        self._nifti: Any = nibabel.Nifti1Image
        self._out = out / "nifti"
        self._slices: dict[Key, list[ImageSeries]] = defaultdict(list)

    def add(self, images: ImageSeries) -> None:
        """Take one slice."""
        index = images.index
        self._slices[index.contrast, index.set, index.repetition, index.encoding].append(images)

    def write(self) -> list[Path]:
        """Write the stacks; slices that make none are files of their own."""
        written = []
        for key, slices in self._slices.items():
            slices.sort(key=_along)
            groups = [slices] if _is_stack(slices) else [[one] for one in slices]
            for number, group in enumerate(groups):
                part = None if len(groups) == 1 else number
                written.append(self._write(group, key, part))
        self._slices.clear()
        return written

    def _write(self, group: list[ImageSeries], key: Key, part: int | None) -> Path:
        first = group[0]
        data = np.stack([np.abs(one.data) for one in group])  # slice, phase, y, x
        image = self._nifti(data.transpose(3, 2, 0, 1).astype(np.float32), _affine(group))
        header = image.header
        step = _frame_ms(first)
        header.set_xyzt_units("mm", "msec" if step else "unknown")
        header.set_zooms((*header.get_zooms()[:3], step or 1.0))
        path = self._path(first, key, part)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with durable.writing(path, sync=False) as stream:
            stream.write(image.to_bytes())
        durable.write_text(path.with_suffix(".json"), json.dumps(_sidecar(first), indent=2), sync=False)
        return path

    def _path(self, images: ImageSeries, key: Key, part: int | None) -> Path:
        study, patient = images.header.study, images.header.patient
        secret = f"{patient.patient_id}|{patient.name}|{study.study_instance_uid}"
        subject = f"sub-{hashlib.sha256(secret.encode()).hexdigest()[:8]}"
        day = re.sub(r"\D", "", study.study_date or "")
        words = [subject, *([f"ses-{day}"] if day else []), f"acq-{_word(images.header.protocol or 'scan')}"]
        words += [
            f"{name}-{value + 1}" for name, value in zip(("echo", "set", "run"), key, strict=False) if value
        ]
        words += [] if part is None else [f"slice-{part + 1:02d}"]
        words += [f"rec-{_word(images.made_by.method)}", "cine"]
        return self._out / subject / "cine" / f"{'_'.join(words)}.nii"


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)[:32] or "unnamed"


def _normal(images: ImageSeries) -> np.ndarray:
    return np.cross(images.geometry.read_dir, images.geometry.phase_dir)


def _along(images: ImageSeries) -> float:
    return float(np.dot(images.geometry.position_mm, _normal(images)))


def _is_stack(slices: list[ImageSeries]) -> bool:
    """Parallel slices of one shape at even distances, one above the other."""
    first = slices[0]
    if any(one.data.shape != first.data.shape for one in slices):
        return False
    if any(not np.allclose(_normal(one), _normal(first), atol=1e-4) for one in slices):
        return False
    if len(slices) == 1:
        return True
    places = np.array([one.geometry.position_mm for one in slices])
    steps = np.diff(places, axis=0)
    return bool(np.all(np.ptp(steps, axis=0) < _SPACING_MM) and np.linalg.norm(steps[0]) > _SPACING_MM)


def _affine(group: list[ImageSeries]) -> np.ndarray:
    """Index (x, y, slice) to RAS mm; the geometry's position is that of pixel ``n // 2``."""
    first = group[0]
    geometry, (rows, columns) = first.geometry, first.data.shape[1:]
    dx, dy = geometry.fov_mm[0] / columns, geometry.fov_mm[1] / rows
    across = np.asarray(geometry.read_dir) * dx
    down = np.asarray(geometry.phase_dir) * dy
    if len(group) > 1:
        step = (np.subtract(group[-1].geometry.position_mm, geometry.position_mm)) / (len(group) - 1)
    else:
        step = _normal(first) * geometry.fov_mm[2]
    corner = np.asarray(geometry.position_mm) - across * (columns // 2) - down * (rows // 2)
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ np.stack([across, down, step], axis=1)
    affine[:3, 3] = _LPS_TO_RAS @ corner
    return affine


def _frame_ms(images: ImageSeries) -> float:
    times = images.trigger_times_ms
    return float(np.median(np.diff(times))) if times is not None and len(times) > 1 else 0.0


def _sidecar(images: ImageSeries) -> dict[str, Any]:
    header, made = images.header, images.made_by
    return {
        "Warning": "Not for clinical use until validated.",
        "Manufacturer": header.vendor,
        "ManufacturersModelName": header.model,
        "MagneticFieldStrength": header.field_strength_t,
        "ProtocolName": header.protocol,
        "EchoTime": [value / 1000 for value in header.te_ms],
        "RepetitionTime": [value / 1000 for value in header.tr_ms],
        "FlipAngle": list(header.flip_deg),
        "TriggerTimesMs": None if images.trigger_times_ms is None else list(images.trigger_times_ms),
        "Reconstruction": {
            "Method": made.method,
            "Version": made.version,
            "WeightsSHA256": made.weights_sha256,
        },
    }
