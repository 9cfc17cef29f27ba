"""Images as NIfTI files with BIDS-like names, for research tools: one four-dimensional stack a scan."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core import durable
from recon_node.core.errors import ConfigError
from recon_node.core.folders import pseudonym
from recon_node.core.scan import SliceIndex
from recon_node.core.types import ImageSeries

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SPACING_MM = 0.1
"""Slices whose distances differ by more are no stack."""
_PLACE = ("position_mm", "read_dir", "phase_dir", "fov_mm")
_WHOLE = "whole"
Key = tuple[int, int, int, int]
"""Contrast, set, repetition, encoding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """What is kept of one slice until its scan is through."""

    magnitude: NDArray[np.float32]
    """`(phase, y, x)` float32."""
    stack: Key
    place: Mapping[str, list[float]]
    """`position_mm`, `read_dir`, `phase_dir` and `fov_mm` of its geometry."""
    step_ms: float
    words: list[str]
    """Subject, session, protocol and method, as in the name of a file."""
    beside: dict[str, Any]
    """The JSON file."""

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.place["read_dir"], self.place["phase_dir"])

    @property
    def position(self) -> np.ndarray:
        return np.asarray(self.place["position_mm"])


class NiftiStack:
    """Collects the magnitude images of one scan, on the disk, so that a run that goes on has those of before.

    Parameters
    ----------
    out : Path
        The output folder; files go to ``nifti/sub-<pseudonym>/cine/``.
    scan : str
        What tells the scan, and how it is reconstructed, from all others.

    Raises
    ------
    ConfigError
        nibabel is not installed.
    """

    def __init__(self, out: Path, scan: str) -> None:
        try:
            import nibabel
        except ImportError as error:
            raise ConfigError("--nifti needs nibabel: pip install 'recon-node[nifti]'") from error
        self._nifti: Any = nibabel.Nifti1Image
        self._out = out / "nifti"
        self._scan = scan
        self._names = self._out / ".parts" / "names"
        self._parts = self._out / ".parts" / scan

    def has(self, index: SliceIndex) -> bool:
        """Whether a slice was collected, or its whole scan written."""
        return (self._parts / _WHOLE).exists() or self._path_of(index).exists()

    def add(self, images: ImageSeries) -> None:
        """Take one slice."""
        self._parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        magnitude = np.abs(images.data).astype(np.float32)
        with durable.writing(self._path_of(images.index), sync=False) as stream:
            np.savez(stream, magnitude=magnitude, facts=np.array(json.dumps(_facts(images))))

    def write(self, *, whole: bool) -> list[Path]:
        """Write the stacks; slices that make none are files of their own.

        Parameters
        ----------
        whole : bool
            Nothing more comes of this scan: what was collected is deleted.
        """
        stacks: dict[Key, list[_Part]] = defaultdict(list)
        for path in sorted(self._parts.glob("*.npz")):
            part = _read(path)
            stacks[part.stack].append(part)
        written = []
        for key, parts in stacks.items():
            parts.sort(key=lambda one: float(np.dot(one.position, one.normal)))
            groups = [parts] if _is_stack(parts) else [[one] for one in parts]
            for number, group in enumerate(groups):
                part_number = None if len(groups) == 1 else number
                written.append(self._write(group, key, part_number))
        if whole and written:
            for path in self._parts.glob("*.npz"):
                path.unlink()
            (self._parts / _WHOLE).touch()
        return written

    def _path_of(self, index: SliceIndex) -> Path:
        return self._parts / f"{'-'.join(map(str, dataclasses.astuple(index)))}.npz"

    def _write(self, group: list[_Part], key: Key, number: int | None) -> Path:
        first = group[0]
        data = np.stack([one.magnitude for one in group])  # slice, phase, y, x
        image = self._nifti(data.transpose(3, 2, 0, 1), _affine(group))
        header = image.header
        header.set_xyzt_units("mm", "msec" if first.step_ms else "unknown")
        header.set_zooms((*header.get_zooms()[:3], first.step_ms or 1.0))
        path = self._path(first, key, number)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with durable.writing(path, sync=False) as stream:
            stream.write(image.to_bytes())
        durable.write_text(path.with_suffix(".json"), json.dumps(first.beside, indent=2), sync=False)
        return path

    def _path(self, part: _Part, key: Key, number: int | None) -> Path:
        *start, method = part.words
        counters = zip(("echo", "set", "run"), key, strict=False)
        words = [f"{name}-{value + 1}" for name, value in counters if value]
        words += [] if number is None else [f"slice-{number + 1:02d}"]
        for scan in itertools.count(1):
            another = [] if scan == 1 else [f"scan-{scan}"]
            name = "_".join([*start, *another, *words, method, "cine"])
            if self._is_mine(name):
                return self._out / start[0] / "cine" / f"{name}.nii"
        raise AssertionError

    def _is_mine(self, name: str) -> bool:
        """Whether a name is this scan's, which it becomes where it was nobody's."""
        self._names.mkdir(parents=True, exist_ok=True, mode=0o700)
        claim = self._names / name
        try:
            durable.write_new(claim, [self._scan.encode()], sync=False)
        except FileExistsError:
            return claim.read_text() == self._scan
        return True


def _facts(images: ImageSeries) -> dict[str, Any]:
    """A slice without its pixels, JSON-able."""
    study, patient, geometry = images.header.study, images.header.patient, images.geometry
    subject = pseudonym(patient.patient_id, patient.name, study.study_instance_uid)
    day = re.sub(r"\D", "", study.study_date or "")
    words = [f"sub-{subject}", *([f"ses-{day}"] if day else [])]
    words += [f"acq-{_word(images.header.protocol or 'scan')}", f"rec-{_word(images.made_by.method)}"]
    index = images.index
    return {
        "stack": [index.contrast, index.set, index.repetition, index.encoding],
        "place": {name: list(map(float, getattr(geometry, name))) for name in _PLACE},
        "step_ms": _frame_ms(images),
        "words": words,
        "beside": _sidecar(images),
    }


def _read(path: Path) -> _Part:
    with np.load(path) as file:
        facts = json.loads(str(file["facts"]))
        stack: Key = tuple(facts.pop("stack"))
        return _Part(magnitude=file["magnitude"], stack=stack, **facts)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)[:32] or "unnamed"


def _is_stack(parts: list[_Part]) -> bool:
    """Parallel slices of one shape at even distances, one above the other."""
    first = parts[0]
    if any(one.magnitude.shape != first.magnitude.shape for one in parts):
        return False
    if any(not np.allclose(one.normal, first.normal, atol=1e-4) for one in parts):
        return False
    if len(parts) == 1:
        return True
    steps = np.diff(np.array([one.position for one in parts]), axis=0)
    return bool(np.all(np.ptp(steps, axis=0) < _SPACING_MM) and np.linalg.norm(steps[0]) > _SPACING_MM)


def _affine(group: list[_Part]) -> np.ndarray:
    """Index (x, y, slice) to RAS mm; the geometry's position is that of pixel ``n // 2``."""
    first = group[0]
    place, (rows, columns) = first.place, first.magnitude.shape[1:]
    across = np.asarray(place["read_dir"]) * place["fov_mm"][0] / columns
    down = np.asarray(place["phase_dir"]) * place["fov_mm"][1] / rows
    if len(group) > 1:
        step = (group[-1].position - first.position) / (len(group) - 1)
    else:
        step = first.normal * place["fov_mm"][2]
    corner = first.position - across * (columns // 2) - down * (rows // 2)
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
