"""Public data sets that store k-space as one array: CMRxRecon / MMCMR ``.mat`` and fastMRI ``.h5``.

They become readouts as a scanner would have sent them, lines that are zero in every coil left out, so
that everything after this file is the same for all sources. What the file does not say is in
`ScanHeader.origin` as a fallback.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import SourceError, UnsupportedScan
from recon_node.core.scan import Limit, Readouts, ScanHeader, Waveform
from recon_node.files.hdf5 import open_hdf5, reading
from recon_node.mrd.header import parse_header

_SYSTEM = re.compile(r"^(?P<vendor>[A-Za-z]+)_(?P<field>\d{2,3})T_(?P<model>.+)$")
_AXES = {5: "(time, slice, coil, ky, kx)", 4: "(slice, coil, ky, kx)", 3: "(coil, ky, kx)"}

ReadFrame = Callable[[int, int], NDArray[np.complex64]]


class ArraySource:
    """K-space of an array, as a `Source` of readouts.

    Parameters
    ----------
    path : Path
    file : h5py.File
        Open; closed by `close`.
    header : ScanHeader
    frame : callable
        ``frame(slice, phase)`` gives `(ky, coil, kx)` complex64.
    """

    def __init__(self, path: Path, file: h5py.File, header: ScanHeader, frame: ReadFrame) -> None:
        self._path = path
        self._file = file
        self._header = header
        self._frame = frame

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One."""
        return (self._header,)

    def close(self) -> None:
        """Close the file; harmless when closed already."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """One run of readouts for every frame of every slice."""
        slices, phases = (self._header.limits[name].size for name in ("slice", "phase"))
        for number in range(slices):
            for phase in range(phases):
                with reading(self._path):
                    lines = self._frame(number, phase)
                block = _readouts(lines, number, phase, last=phase == phases - 1)
                if len(block):
                    yield block


def array_source(path: Path) -> ArraySource | None:
    """The source for an HDF5 file of one of these data sets; None where it is something else.

    Raises
    ------
    SourceError
        The file cannot be read.
    UnsupportedScan
        K-space of other than 3 to 5 axes.
    """
    file = open_hdf5(path)
    try:
        with reading(path):
            source = _fastmri(path, file) if "ismrmrd_header" in file else _cmrxrecon(path, file)
    except BaseException:
        file.close()
        raise
    if source is None:
        file.close()
    return source


def _readouts(lines: NDArray[np.complex64], number: int, phase: int, *, last: bool) -> Readouts:
    sampled = np.flatnonzero(np.any(lines, axis=(1, 2)))
    head = np.zeros(len(sampled), dtype=ACQUISITION_HEADER)
    head["version"] = 1
    head["scan_counter"] = sampled + 1
    head["number_of_samples"] = lines.shape[2]
    head["available_channels"] = head["active_channels"] = lines.shape[1]
    head["center_sample"] = lines.shape[2] // 2
    head["idx"]["kspace_encode_step_1"] = sampled
    head["idx"]["slice"], head["idx"]["phase"] = number, phase
    if last and len(head):
        head["flags"][-1] = int(Flag.LAST_IN_SLICE)
    return Readouts(head=head, samples=lines if len(sampled) == len(lines) else lines[sampled])


def _cmrxrecon(path: Path, file: h5py.File) -> ArraySource | None:
    """MATLAB v7.3: one array of (real, imag) pairs, named kspace, kspace_full, kus, ..."""
    found = [
        node
        for node in file.values()
        if isinstance(node, h5py.Dataset)
        and set(node.dtype.names or ()) == {"real", "imag"}
        and node.ndim > 2
    ]
    if not found:
        return None
    if len(found) > 1 or found[0].ndim not in _AXES:
        shapes = {node.name: node.shape for node in found}
        raise UnsupportedScan(
            f"{path.name}: k-space {shapes}, expected one array of {', '.join(_AXES.values())}"
        )
    data = found[0]
    shape = (1,) * (5 - data.ndim) + data.shape
    if 0 in shape or max(shape) > 65535:
        raise SourceError(f"{path.name}: k-space has shape {data.shape}")

    def frame(number: int, phase: int) -> NDArray[np.complex64]:
        at = (phase, number)[5 - data.ndim :]
        pairs = data[at]
        return np.ascontiguousarray(_complex(pairs).swapaxes(0, 1))

    header = _header_from_path(path, shape)
    return ArraySource(path, file, header, frame)


def _complex(pairs: NDArray[Any]) -> NDArray[np.complex64]:
    out = np.empty(pairs.shape, dtype=np.complex64)
    out.real, out.imag = pairs["real"], pairs["imag"]
    return out


def _header_from_path(path: Path, shape: tuple[int, ...]) -> ScanHeader:
    """Vendor, field and model from ``.../Vendor_FieldT_Model/PNNN/name.mat``; 30T means 3.0 T."""
    time, slices, coils, ny, nx = shape
    fallback = "fallback: the file gives no pixel size, 1 mm was assumed"
    origin = {"encoded_fov_mm": fallback, "recon_fov_mm": fallback, "protocol": "path name"}
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
    return ScanHeader(
        encoded_matrix=(nx, ny, 1),
        recon_matrix=(nx, ny, 1),
        encoded_fov_mm=(float(nx), float(ny), 1.0),
        recon_fov_mm=(float(nx), float(ny), 1.0),
        limits=_limits(time, slices, ny),
        receiver_channels=coils,
        protocol=path.stem,
        origin=origin,
        **fields,
    )


def _limits(phases: int, slices: int, ny: int) -> dict[str, Limit]:
    sizes = {"phase": phases, "slice": slices, "average": 1}
    limits = {name: Limit(minimum=0, maximum=size - 1, center=0) for name, size in sizes.items()}
    return limits | {"kspace_encoding_step_1": Limit(minimum=0, maximum=ny - 1, center=ny // 2)}


def _fastmri(path: Path, file: h5py.File) -> ArraySource:
    """``kspace`` `(slice, coil, readout, phase encoding)`, ISMRMRD header as text, oversampled readout."""
    data = file.get("kspace")
    if not isinstance(data, h5py.Dataset) or data.ndim not in (3, 4) or data.dtype.kind != "c":
        found = f"{data.dtype} {data.shape}" if isinstance(data, h5py.Dataset) else "none"
        raise UnsupportedScan(
            f"{path.name}: fastMRI k-space is {found}, expected complex (slice, coil, readout, ky)"
        )
    nx, ny = data.shape[-2:]
    xml = np.asarray(file["ismrmrd_header"][()], dtype=object).reshape(-1)[0]
    header = parse_header(xml)[0]
    fov = header.encoded_fov_mm
    origin = dict(header.origin)
    if header.encoded_matrix[:2] != (nx, ny):
        origin["encoded_matrix"] = (
            f"fallback: shape of the array, the header says {header.encoded_matrix[:2]}"
        )
    acquisition = file.attrs.get("acquisition")
    if header.protocol is None and isinstance(acquisition, str):
        header = dataclasses.replace(header, protocol=acquisition)
        origin["protocol"] = "fallback: file attribute acquisition"
    header = dataclasses.replace(
        header,
        encoded_matrix=(nx, ny, 1),
        recon_matrix=(*header.recon_matrix[:2], 1),
        encoded_fov_mm=(fov[0], fov[1], header.recon_fov_mm[2]),
        limits=_limits(1, data.shape[0], ny),
        origin=origin,
    )

    def frame(number: int, _phase: int) -> NDArray[np.complex64]:
        image = data[number] if data.ndim == 4 else data[number][None]
        return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.complex64)

    return ArraySource(path, file, header, frame)
