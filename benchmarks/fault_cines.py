"""Cines and DICOM series changed at random, for the commands that read images: evaluate --hearts and compare."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from delivery_parts import make_instance

from benchmarks.fault_hostile import evaluated
from benchmarks.fault_mutants import mutants

_PHASES, _SIDE = 3, 24


def beating() -> np.ndarray:
    """A disc that changes its size, `(phase, y, x)` float32."""
    y, x = np.mgrid[:_SIDE, :_SIDE] - _SIDE / 2
    radii = 5 + 2 * np.cos(np.arange(_PHASES))
    discs = [100.0 * (np.hypot(y, x) < radius) + np.hypot(y, x) for radius in radii]
    images: np.ndarray = np.stack(discs).astype(np.float32)
    return images


def npz(scan: Path, path: Path) -> Path:
    np.savez_compressed(
        path, cine=beating(), pixel_mm=[1.5, 1.5], trigger_ms=[0.0, 300.0, 600.0], field_t=1.5
    )
    return path


def nifti(scan: Path, path: Path) -> Path:
    image = nibabel.Nifti1Image(beating().transpose(2, 1, 0)[:, :, None], np.diag([1.5, 1.5, 8, 1]))
    image.header.set_xyzt_units("mm", "msec")
    path.write_bytes(image.to_bytes())
    return path


def packed_nifti(scan: Path, path: Path) -> Path:
    path.write_bytes(gzip.compress(nifti(scan, path.with_suffix("")).read_bytes(), mtime=0))
    return path


def dicom(scan: Path, path: Path) -> Path:
    """One frame of a series; the others lie in the folder above, whole."""
    for number, frame in enumerate(beating()):
        pixels = frame.astype("<u2")
        place = path if number == 0 else path.with_name(f"whole-{number}.dcm")
        make_instance(
            place,
            number,
            Rows=_SIDE,
            Columns=_SIDE,
            PixelData=pixels.tobytes(),
            ImagePositionPatient=[0, 0, 0],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1.5, 1.5],
            SliceThickness=8,
            TriggerTime=300 * number,
        )
    return path


def hearts(path: Path, config: Path) -> list[str]:
    _beside(path)
    return evaluated(path.parent.parent, path.parent.name, path)[1]


def compared(path: Path, config: Path) -> list[str]:
    _beside(path)
    whole = path.parent.parent / "whole"
    if not whole.exists():
        dicom(path, path.parent.parent / "0.dcm")
        whole.mkdir(exist_ok=True)
        for number, one in enumerate(sorted(path.parent.parent.glob("*.dcm"))):
            (whole / f"{number}.dcm").write_bytes(one.read_bytes())
    return ["compare", str(path.parent), str(whole)]


def _beside(path: Path) -> None:
    for one in path.parent.parent.glob("whole-*.dcm"):
        (path.parent / one.name).write_bytes(one.read_bytes())


def images(name: str, write: Callable[[Path, Path], Path], file_name: str, count: int) -> None:
    mutants(f"{name} for evaluate", write, file_name, count, hearts)


images("cine in npz", npz, "a.npz", 120)
images("cine in NIfTI", nifti, "a.nii", 100)
images("cine in packed NIfTI", packed_nifti, "a.nii.gz", 60)
images("cine in DICOM", dicom, "a.dcm", 100)
mutants("series in DICOM for compare", dicom, "a.dcm", 200, compared)
