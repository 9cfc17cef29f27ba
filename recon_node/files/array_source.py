"""K-space that a public data set stores as one array, as a source of readouts.

They become readouts as a scanner would have sent them, lines that are zero in every coil left out, so
that everything after this file is the same for all sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import SourceError
from recon_node.core.scan import Limit, Readouts, ScanHeader, Waveform
from recon_node.files.hdf5 import reading

ReadFrame = Callable[[int, int, int], NDArray[np.complex64]]
MOST = 65535
"""Along an axis: counters have 16 bits."""


class ArraySource:
    """K-space of an array, as a `Source` of readouts.

    Parameters
    ----------
    path : Path
    file : h5py.File
        Open; closed by `close`.
    header : ScanHeader
        Its limits of slice, set and phase are the sizes of these axes.
    frame : callable
        ``frame(slice, set, phase)`` gives `(partition, ky, coil, kx)` complex64.
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
        slices, sets, phases = (self._header.limits[name].size for name in ("slice", "set", "phase"))
        for number, velocity, phase in np.ndindex(slices, sets, phases):
            with reading(self._path):
                lines = self._frame(number, velocity, phase)
            block = _readouts(lines, (number, velocity, phase), last=phase == phases - 1)
            if len(block):
                yield block


def _readouts(lines: NDArray[np.complex64], counters: tuple[int, int, int], *, last: bool) -> Readouts:
    partitions, ny, coils, nx = lines.shape
    flat = lines.reshape(partitions * ny, coils, nx)
    sampled = np.flatnonzero(np.any(flat, axis=(1, 2)))
    head = np.zeros(len(sampled), dtype=ACQUISITION_HEADER)
    head["version"] = 1
    head["scan_counter"] = sampled + 1
    head["number_of_samples"] = nx
    head["available_channels"] = head["active_channels"] = coils
    head["center_sample"] = nx // 2
    head["idx"]["kspace_encode_step_1"] = sampled % ny
    head["idx"]["kspace_encode_step_2"] = sampled // ny
    head["idx"]["slice"], head["idx"]["set"], head["idx"]["phase"] = counters
    if last and len(head):
        head["flags"][-1] = int(Flag.LAST_IN_SLICE)
    return Readouts(head=head, samples=flat if len(sampled) == len(flat) else flat[sampled])


def limits(
    *, phases: int = 1, sets: int = 1, slices: int = 1, partitions: int = 1, ny: int
) -> dict[str, Limit]:
    """Encoding limits of an array of these sizes.

    Raises
    ------
    SourceError
        An axis is empty, or longer than a counter.
    """
    sizes = {"phase": phases, "set": sets, "slice": slices, "average": 1}
    if not all(0 < size <= MOST for size in (*sizes.values(), partitions, ny)):
        raise SourceError(f"k-space has an empty axis, or one of more than {MOST}")
    found = {name: Limit(minimum=0, maximum=size - 1, center=0) for name, size in sizes.items()}
    found["kspace_encoding_step_1"] = Limit(minimum=0, maximum=ny - 1, center=ny // 2)
    found["kspace_encoding_step_2"] = Limit(minimum=0, maximum=partitions - 1, center=partitions // 2)
    return found


def is_complex(node: Any) -> bool:
    """Whether `node` is an array of complex numbers, MATLAB's pairs included."""
    if not isinstance(node, h5py.Dataset):
        return False
    return node.dtype.kind == "c" or set(node.dtype.names or ()) == {"real", "imag"}


def as_complex(values: NDArray[Any]) -> NDArray[np.complex64]:
    """MATLAB's pairs (real, imag), or complex numbers, as complex64."""
    if values.dtype.names is None:
        return np.asarray(values, dtype=np.complex64)
    out = np.empty(values.shape, dtype=np.complex64)
    out.real, out.imag = values["real"], values["imag"]
    return out
