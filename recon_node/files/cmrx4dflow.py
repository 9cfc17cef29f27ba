"""CMRx4DFlow: MATLAB v7.3, ``kdata_full`` or ``kdata_ktGaussianR`` with velocity encodings in front.

Axes as HDF5 shows them: (velocity, time, coil, slice encoding, phase encoding, readout); velocity encoding
0 is the reference. ``params.csv`` beside gives field of view, times, field strength and velocity encodings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import UnsupportedScan
from recon_node.core.scan import VELOCITY_ENCODINGS, ScanHeader, Size
from recon_node.files.array_source import ArraySource, as_complex, is_complex, limits
from recon_node.files.companions import numbers, read_table
from recon_node.files.hdf5 import open_hdf5, reading
from recon_node.files.hdf5_tree import check_frame, members

NAME = re.compile(r"^kdata(_full|_ktgaussian\d*)?$", re.IGNORECASE)
AXES = ("velocity", "time", "coil", "slice encoding", "phase encoding", "readout")
PARAMETERS = "params.csv"


def holds_flow(file: h5py.File) -> bool:
    """Whether an HDF5 file has such an array."""
    return any(NAME.match(name) and is_complex(node) for name, node in members(file).items())


def open_cmrx4dflow(path: Path) -> ArraySource:
    """The source for a file of this kind.

    Raises
    ------
    UnsupportedScan
        Other axes than six.
    SourceError
        It cannot be read.
    """
    file = open_hdf5(path)
    try:
        with reading(path):
            data = _array(path, file)
        beside = path.with_name(PARAMETERS)
        header = _header(path, data.shape, read_table(beside) if beside.is_file() else {})
    except BaseException:
        file.close()
        raise

    def frame(_slice: int, velocity: int, phase: int) -> NDArray[np.complex64]:
        values = as_complex(data[velocity, phase])
        return np.ascontiguousarray(values.transpose(1, 2, 0, 3))

    return ArraySource(path, file, header, frame)


def _array(path: Path, file: h5py.File) -> h5py.Dataset:
    data = next(node for name, node in members(file).items() if NAME.match(name) and is_complex(node))
    if data.ndim != len(AXES):
        raise UnsupportedScan(
            f"{path.name}: {data.name[1:]} has {data.ndim} axes, expected ({', '.join(AXES)})"
        )
    check_frame(data, path, 4)
    return data


def _header(path: Path, shape: tuple[int, ...], table: Mapping[str, str]) -> ScanHeader:
    velocities, time, coils, nz, ny, nx = shape
    origin: dict[str, str] = {"protocol": "path name"}
    fov = numbers(table, "fov")
    unknown: set[Size] = set()
    if len(fov) != 3 or not all(0 < side < float("inf") for side in fov):
        fov, unknown = (float(nx), float(ny), float(nz)), {"pixel", "thickness", "pitch"}
        origin |= dict.fromkeys(("encoded_fov_mm", "recon_fov_mm"), "fallback: no field of view is given")
    x, y, z = fov
    venc = max(numbers(table, "venc"), default=0.0)
    field = numbers(table, "fieldstrength") or numbers(table, "field_strength")
    times = {"te_ms": "te", "tr_ms": "tr", "flip_deg": "fa"}
    found = {name: numbers(table, key)[:1] for name, key in times.items()}
    return ScanHeader(
        encoded_matrix=(nx, ny, nz),
        recon_matrix=(nx, ny, nz),
        encoded_fov_mm=(x, y, z),
        recon_fov_mm=(x, y, z),
        limits=limits(phases=time, sets=velocities, ny=ny, partitions=nz),
        receiver_channels=coils,
        protocol=path.stem,
        field_strength_t=field[0] if field else None,
        user=({VELOCITY_ENCODINGS: velocities - 1} if velocities > 1 else {})
        | ({"VENC_cm_s": venc} if venc > 0 else {}),
        unknown=frozenset(unknown),
        origin=origin,
        te_ms=found["te_ms"],
        tr_ms=found["tr_ms"],
        flip_deg=found["flip_deg"],
    )
