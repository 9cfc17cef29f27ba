"""fastMRI: ``kspace`` (slice, coil, readout, phase encoding), an ISMRMRD header as text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import NoKSpace, SourceError, UnsupportedScan
from recon_node.core.scan import ScanHeader, Size
from recon_node.files.array_source import ArraySource, limits
from recon_node.files.companions import what_it_is
from recon_node.files.hdf5 import open_hdf5, reading
from recon_node.files.hdf5_tree import check_frame, check_heaps, members, text_of
from recon_node.mrd.header import parse_header

HEADER = "ismrmrd_header"


def holds_fastmri(file: h5py.File) -> bool:
    """Whether an HDF5 file is of this data set."""
    return HEADER in members(file)


def open_fastmri(path: Path) -> ArraySource:
    """The source for a file of this kind.

    Raises
    ------
    UnsupportedScan
        K-space of other axes, or images alone.
    SourceError
        It cannot be read, or every slice is empty.
    """
    file = open_hdf5(path)
    try:
        with reading(path):
            data = _array(path, file)
            header = _header(path, file, data)
    except BaseException:
        file.close()
        raise

    def frame(number: int, _set: int, _phase: int) -> NDArray[np.complex64]:
        image = data[number] if data.ndim == 4 else data[number][None]
        return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.complex64)[None]

    return ArraySource(path, file, header, frame)


def _array(path: Path, file: h5py.File) -> h5py.Dataset:
    inside = members(file)
    data = inside.get("kspace")
    if data is None and any(what_it_is(name) for name in inside):
        names = ", ".join(sorted(name for name in inside if what_it_is(name)))[:80]
        raise NoKSpace(f"{path.name}: no k-space: holds images or masks of fastMRI ({names})")
    if not isinstance(data, h5py.Dataset) or data.ndim not in (3, 4) or data.dtype.kind != "c":
        found = f"{data.dtype} {data.shape}" if isinstance(data, h5py.Dataset) else "none"
        raise UnsupportedScan(
            f"{path.name}: fastMRI k-space is {found}, expected complex (slice, coil, readout, ky)"
        )
    check_frame(data, path, data.ndim - 1)
    return data


def _header(path: Path, file: h5py.File, data: h5py.Dataset) -> ScanHeader:
    nx, ny = data.shape[-2:]
    header = parse_header(text_of(file[HEADER], path))[0]
    fov = header.encoded_fov_mm
    origin = dict(header.origin)
    if header.encoded_matrix[:2] != (nx, ny):
        origin["encoded_matrix"] = (
            f"fallback: shape of the array, the header says {header.encoded_matrix[:2]}"
        )
    fields: dict[str, object] = {}
    check_heaps(path)
    acquisition, patient = file.attrs.get("acquisition"), file.attrs.get("patient_id")
    if header.protocol is None and isinstance(acquisition, str):
        fields["protocol"], origin["protocol"] = acquisition, "fallback: file attribute acquisition"
    if header.patient.patient_id is None and isinstance(patient, str):
        fields["patient"] = dataclasses.replace(header.patient, patient_id=patient)
    unknown: frozenset[Size] = frozenset({"pitch"}) if data.shape[0] > 1 else frozenset()
    return dataclasses.replace(
        header,
        encoded_matrix=(nx, ny, 1),
        recon_matrix=(*header.recon_matrix[:2], 1),
        encoded_fov_mm=(fov[0], fov[1], header.recon_fov_mm[2]),
        limits=limits(slices=data.shape[0], ny=ny),
        unknown=unknown,
        remarks=_empty_slices(path, data),
        origin=origin,
        **fields,  # type: ignore[arg-type]
    )


def _empty_slices(path: Path, data: h5py.Dataset) -> tuple[str, ...]:
    """What to say of slices without a single sample along their central readout."""
    middle = data.shape[-1] // 2
    near = slice(max(0, middle - 4), middle + 4)
    empty = [n for n in range(data.shape[0]) if not np.any(data[n, ..., near])]
    if len(empty) == data.shape[0]:
        raise SourceError(f"{path.name}: every one of {data.shape[0]} slices is empty: no k-space")
    if not empty:
        return ()
    shown = ", ".join(map(str, empty[:8])) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
    return (f"slices without a sample, left out: {shown}",)
