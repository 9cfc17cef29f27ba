"""Cines in npz files: ``cine`` `(phase, y, x)` and ``pixel_mm`` (y, x).

Where known ``trigger_ms``, ``field_t`` and ``slice_mm`` (place along the slice's normal) as well.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.lab.cines.matrix import check_finite, check_size, restored
from recon_node.simulate.cine import Cine

_KEYS = ("cine", "pixel_mm", "trigger_ms", "field_t", "slice_mm")
_HEADS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, name: str) -> list[Cine]:
    """Read one clip.

    Raises
    ------
    DataError
        Damaged, without ``cine`` or ``pixel_mm``, or no cine.
    """
    held = read_arrays(path, name, _KEYS.__contains__)
    if "cine" not in held:
        raise DataError(f"{name}: found no array `cine` in the npz file, expected one (phase, y, x)")
    images, pixel = held["cine"], np.atleast_1d(held.get("pixel_mm", np.zeros(0)))
    if images.ndim == 4:
        raise DataError(f"{name}: `cine` has shape {images.shape}: colour? expected grey (phase, y, x)")
    if images.ndim != 3 or not np.issubdtype(images.dtype, np.number):
        raise DataError(f"{name}: `cine` has shape {images.shape}, expected numbers (phase, y, x)")
    if pixel.size != 2:
        raise DataError(f"{name}: no pixel size: expected `pixel_mm` with two numbers (y, x)")
    check_finite(name, images)
    times = held.get("trigger_ms")
    size, pixel_mm = restored(np.abs(images).astype(np.float32), (float(pixel[0]), float(pixel[1])))
    return [
        Cine(
            images=size,
            pixel_mm=pixel_mm,
            name=name,
            trigger_times_ms=None if times is None else tuple(map(float, np.atleast_1d(times))),
            field_t=_number(held.get("field_t")),
            slice_mm=_number(held.get("slice_mm")),
        )
    ]


def read_arrays(path: Path, name: str, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    """Arrays of an npz file by key, none larger than a cine may be.

    Parameters
    ----------
    path : Path
    name : str
        Of the clip, for the error.
    wanted : callable
        Given a key, whether its array is read.

    Raises
    ------
    DataError
        The file is damaged, or holds too much.
    """
    try:
        _check_sizes(path, name, wanted)
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if wanted(key)}
    except DataError:
        raise
    except (
        Exception
    ) as error:  # whatever zipfile and numpy stumble over: encryption, versions, words of a head
        raise DataError(
            f"{name}: the npz file cannot be read ({type(error).__name__}): copy it anew"
        ) from error


def _check_sizes(path: Path, name: str, wanted: Callable[[str], bool]) -> None:
    """What the arrays claim to hold, before any of it is unpacked."""
    with zipfile.ZipFile(path) as file:
        for entry in file.namelist():
            key = entry.removesuffix(".npy")
            if not wanted(key):
                continue
            with file.open(entry) as member:
                read_head = _HEADS.get(np.lib.format.read_magic(member))
                if read_head is None:
                    raise ValueError("an array of an unknown version")
                shape, _, kind = read_head(member)
            if shape or key == "cine":
                check_size(name, (*shape, max(1, kind.itemsize // 16)))


def _number(value: Any) -> float | None:
    return float(value) if value is not None and np.size(value) == 1 and np.isfinite(value) else None
