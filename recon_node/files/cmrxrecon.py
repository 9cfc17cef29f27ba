"""CMRxRecon 2023, 2024, 2025 and MMCMR: MATLAB v7.3, one array of k-space, a table of sizes beside it.

Names and axes by the data sets' own descriptions: ``kspace_full``, ``kspace_subNN``, ``kspace`` and
``kus`` have (time, slice, coil, ky, kx) as HDF5 shows them, ``kspace_single_full`` and
``kspace_single_subNN`` no coil axis; MATLAB leaves out axes of one at the front. ``<name>_info.csv`` gives
field of view, thickness, phases and readout oversampling. Nothing gives positions or distances of slices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import NoKSpace, SourceError, UnsupportedScan
from recon_node.core.scan import ScanHeader, Size
from recon_node.files.array_source import ArraySource, as_complex, is_complex, limits
from recon_node.files.companions import number, read_table, what_it_is
from recon_node.files.hdf5 import open_hdf5, reading
from recon_node.files.hdf5_tree import check_frame, members

NAME = re.compile(r"^(kspace|kus|ksp|rawdata)(_|\d|$)", re.IGNORECASE)
"""Of an array that is k-space."""
SINGLE = re.compile(r"single", re.IGNORECASE)
AXES = ("time", "slice", "coil", "ky", "kx")
_SYSTEM = re.compile(r"^(?P<vendor>[A-Za-z]+)_(?P<field>\d{2,3})T_(?P<model>.+)$")
_ISOTROPIC = (0.55, 1.8)
"""Pixel width over height from which the field of view along x may be that of the oversampled readout."""
MOST_SIZE, MOST_ROWS = 8192, 2048
_TIMES = {"te_ms": "te", "tr_ms": "tr", "ti_ms": "ti", "flip_deg": "flipangle"}


def holds_kspace(file: h5py.File) -> bool:
    """Whether an HDF5 file has MATLAB's complex arrays at its top, and no ISMRMRD header."""
    inside = members(file)
    return "ismrmrd_header" not in inside and any(
        is_complex(node) and node.ndim > 1 for node in inside.values()
    )


def open_cmrxrecon(path: Path) -> ArraySource:
    """The source for a file of this kind.

    Raises
    ------
    UnsupportedScan
        It holds no k-space but coil maps, masks or images; several arrays; or axes that its name and table
        do not explain.
    SourceError
        It cannot be read.
    """
    file = open_hdf5(path)
    try:
        with reading(path):
            data = only_array(path, file)
            table = _table(path)
            axes = _axes(path, data, table)
            sizes = dict(zip(axes, data.shape, strict=True))
            shape = tuple(sizes.get(name, 1) for name in AXES)
            whole = _whole_lines(data)
        header = _header(path, shape, table, whole=whole)
    except BaseException:
        file.close()
        raise

    def frame(at_slice: int, _set: int, phase: int) -> NDArray[np.complex64]:
        at = {"time": phase, "slice": at_slice}
        values = as_complex(data[tuple(at[name] for name in axes if name in at)])
        values = values if "coil" in axes else values[None]
        return np.ascontiguousarray(values.swapaxes(0, 1))[None]

    return ArraySource(path, file, header, frame)


def only_array(path: Path, file: h5py.File) -> h5py.Dataset:
    """The one array of k-space in a file.

    Raises
    ------
    UnsupportedScan
        None, or several.
    """
    arrays = {name: node for name, node in members(file).items() if is_complex(node) and node.ndim > 1}
    found = [node for name, node in arrays.items() if NAME.match(name)]
    if len(found) == 1:
        check_frame(found[0], path, min(3, found[0].ndim))
        return found[0]
    if not found:
        name, node = next(iter(arrays.items()))
        what = what_it_is(name) or "an array of a name that is none of k-space"
        raise NoKSpace(
            f"{path.name}: no k-space: holds {what} ({name[:40]}, {_shown(node.shape)}); expected kspace, "
            "kspace_full, kspace_single_full, kspace_subNN or kus"
        )
    shapes = ", ".join(f"{node.name[1:41]} {_shown(node.shape)}" for node in found[:4])
    raise UnsupportedScan(f"{path.name}: several arrays of k-space ({shapes}), expected one")


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _axes(path: Path, data: h5py.Dataset, table: Mapping[str, str]) -> tuple[str, ...]:
    """What the axes of `data` are, by its name, the folders it lies in and the table beside it."""
    name = data.name.rpartition("/")[2]
    single = SINGLE.search(name) or any(SINGLE.match(part) for part in path.resolve().parts[:-1])
    known = tuple(axis for axis in AXES if axis != "coil") if single else AXES
    least = 2 if single else 3
    if not least <= data.ndim <= len(known):
        raise UnsupportedScan(
            f"{path.name}: {name} is {_shown(data.shape)}, expected the axes ({', '.join(known)}), or fewer "
            "without those of one at the front"
        )
    axes = known[len(known) - data.ndim :]
    slices, phases = number(table, "slicenum"), number(table, "temporalphase")
    coils = number(table, "coilnumber")
    if data.ndim == len(known) - 1 and slices == 1 and phases not in (None, 1) and data.shape[0] == phases:
        axes = ("time", *axes[1:])
    sizes = dict(zip(axes, data.shape, strict=True))
    said = {"slice": slices, "time": phases} | ({"coil": coils} if not single else {})
    wrong = [
        f"{axis} {sizes.get(axis, 1)}, not {value:g}"
        for axis, value in said.items()
        if value is not None and axis in ("slice", "time") and value < sizes.get(axis, 1)
    ]
    if wrong:
        raise UnsupportedScan(
            f"{path.name}: {name} is {_shown(data.shape)}, which its table contradicts ({'; '.join(wrong)})"
        )
    return axes


def _table(path: Path) -> dict[str, str]:
    """The table beside a file, under its name without what the sampling adds; empty where there is none."""
    stem = re.sub(r"_(kus|mask)(_.*)?$", "", path.stem)
    for name in (f"{path.stem}_info.csv", f"{stem}_info.csv", f"{path.stem}.csv", f"{stem}.csv"):
        beside = path.with_name(name)
        if beside.is_file():
            return read_table(beside)
    return {}


def _whole_lines(data: h5py.Dataset) -> bool:
    """Whether lines of the first frame are measured from end to end, so that oversampling can be cut off."""
    at = (0,) * (data.ndim - 2)
    measured = as_complex(data[at]) != 0
    some = measured.any(axis=1)
    return bool(measured[some].mean(axis=1).min(initial=1.0) > 0.95)


def _header(path: Path, shape: tuple[int, ...], table: Mapping[str, str], *, whole: bool) -> ScanHeader:
    """What names of folders and the table say; ``30T`` means 3.0 T."""
    time, slices, coils, ny, nx = shape
    origin = {"protocol": "path name"}
    fields = _system(path, table, origin)
    for name, key in _TIMES.items():
        value = number(table, key)
        if value is not None:
            fields[name], origin[name] = (value,), "table beside the file"
    oversampling = number(table, "readoutoversample") or 1.0
    base = max(2, round(nx / oversampling))
    pixel, unknown = _pixel(table, nx / oversampling, ny)
    thickness = number(table, "slicethickness")
    if thickness is None:
        unknown |= {"thickness"}
    if slices > 1:
        unknown |= {"pitch"}
    if "pixel" in unknown:
        origin |= dict.fromkeys(("encoded_fov_mm", "recon_fov_mm"), "fallback: no pixel size is given")
    if not min(shape) > 0 or max(shape) > MOST_SIZE:
        raise SourceError(
            f"{path.name}: k-space is {_shown(shape)}, expected at most {MOST_SIZE} along an axis"
        )
    rows = round(number(table, "reconmatrix_y") or ny)
    rows = rows if whole and ny <= rows <= MOST_ROWS else ny
    columns = base if whole else nx
    return ScanHeader(
        encoded_matrix=(nx, ny, 1),
        recon_matrix=(columns, rows, 1),
        encoded_fov_mm=(pixel[0] * nx, pixel[1] * ny, thickness or 1.0),
        recon_fov_mm=(pixel[0] * columns, pixel[1] * ny, thickness or 1.0),
        limits=limits(phases=time, slices=slices, ny=ny),
        receiver_channels=coils,
        protocol=path.stem,
        unknown=frozenset(unknown),
        origin=origin,
        **fields,
    )


def _system(path: Path, table: Mapping[str, str], origin: dict[str, str]) -> dict[str, Any]:
    """Vendor, field strength and model from the names of folders, else the table."""
    fields: dict[str, Any] = {}
    system = next((m for part in reversed(path.resolve().parts[:-1]) if (m := _SYSTEM.match(part))), None)
    if system is not None:
        digits = system["field"]
        fields = {
            "vendor": system["vendor"],
            "model": system["model"],
            "field_strength_t": int(digits) / (100 if digits.startswith("0") else 10),
        }
        origin |= dict.fromkeys(fields, "path name")
    field = number(table, "fieldstrength")
    if field is not None and "field_strength_t" not in fields:
        fields["field_strength_t"], origin["field_strength_t"] = field, "table beside the file"
    return fields


def _pixel(table: Mapping[str, str], base: float, ny: int) -> tuple[tuple[float, float], set[Size]]:
    """(width, height) of a measured pixel in mm, 1 mm where it is not known, and whether it is not.

    The field of view along x is that of `base` samples, those without oversampling; for some scanners it is
    that of the oversampled readout. The table does not say which: a pixel far from square stays unknown.
    """
    x, y = number(table, "fovx"), number(table, "fovy")
    if x is None or y is None:
        return (1.0, 1.0), {"pixel"}
    width, height = x / base, y / (number(table, "reconmatrix_y") or ny)
    if not _ISOTROPIC[0] <= width / height <= _ISOTROPIC[1]:
        return (1.0, 1.0), {"pixel"}
    return (width, y / ny), set()
