"""Writing ISMRMRD HDF5 in bulk, in the layout of ``ismrmrd.Dataset``."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.durable import writing
from recon_node.core.errors import ConfigError

_FLOATS = h5py.vlen_dtype(np.dtype("<f4"))
ACQUISITION = np.dtype([("head", ACQUISITION_HEADER), ("traj", _FLOATS), ("data", _FLOATS)])


class AcquisitionFile:
    """An ISMRMRD file being written: ``dataset/xml`` and ``dataset/data``."""

    def __init__(self, path: Path, xml: str) -> None:
        self._path = path
        self._file = in_memory()
        group = self._file.create_group("dataset")
        text = group.create_dataset("xml", (1,), maxshape=(None,), dtype=h5py.string_dtype("ascii"))
        text[0] = xml
        self._data = group.create_dataset("data", (0,), maxshape=(None,), dtype=ACQUISITION, chunks=(64,))
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                write_image(self._file, self._path)

    def append(self, heads: NDArray[Any], samples: NDArray[np.complex64]) -> None:
        """Append acquisitions.

        Parameters
        ----------
        heads : numpy.ndarray
            `(acquisition,)` of dtype ACQUISITION_HEADER; sizes, channel mask and scan counter are
            filled in here.
        samples : numpy.ndarray
            `(acquisition, coil, sample)` complex64.
        """
        count, coils, size = samples.shape
        rows = np.empty(count, ACQUISITION)
        rows["head"] = heads
        head = rows["head"]
        head["number_of_samples"], head["center_sample"] = size, size // 2
        head["available_channels"] = head["active_channels"] = coils
        channel = np.arange(coils)
        mask = np.zeros(16, np.uint64)
        np.bitwise_or.at(mask, channel // 64, np.uint64(1) << (channel % 64).astype(np.uint64))
        head["channel_mask"] = mask
        head["scan_counter"] = self._written + np.arange(count)
        flat = np.ascontiguousarray(samples).view(np.float32).reshape(count, -1)
        empty = np.zeros(0, np.float32)
        for i in range(count):
            rows["traj"][i], rows["data"][i] = empty, flat[i]
        with _signals_wait():
            self._data.resize((self._written + count,))
            self._data[self._written :] = rows
        self._written += count


def in_memory() -> h5py.File:
    """An HDF5 file in memory: on a disk that is full, HDF5 ends the whole process."""
    return h5py.File(secrets.token_hex(8), "w", driver="core", backing_store=False)


def write_image(file: h5py.File, path: Path) -> None:
    """Write an HDF5 file that is in memory to a disk.

    Raises
    ------
    ConfigError
        It cannot be written, for example since the disk is full; what was there is left as it was.
    """
    file.flush()
    try:
        with writing(path) as target:
            target.write(file.id.get_file_image())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block: raised inside h5py they would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for again in caught:
        signal.raise_signal(again)
