"""ISMRMRD HDF5 files, read in runs with bounded memory.

The acquisitions are a table of compound rows whose samples sit in HDF5's global heap. Reading it row
by row is slow, reading it whole makes an object per row; here the rows' chunks and heap objects are
found in the file itself (`heap`) and their bytes go straight into the arrays. Files laid out in another
way (filters, another offset size) are read through h5py, slower and with the same result.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import (
    InconsistentReadouts,
    NoKSpace,
    SourceError,
    TruncatedStream,
    UnsupportedScan,
)
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.files.companions import what_it_is
from recon_node.files.hdf5_tree import check_heaps, check_table, datasets, members, text_of
from recon_node.files.heap import DirectTable
from recon_node.files.plain import check_plain
from recon_node.mrd.header import parse_header

BLOCK_BYTES = 4 << 20
"""Samples held in one run, unless a single readout is larger: so small that memory is used again."""

_MOST_SHOWN = 5

COMPRESSED = (
    AcquisitionFlag.COMPRESSION1
    | AcquisitionFlag.COMPRESSION2
    | AcquisitionFlag.COMPRESSION3
    | AcquisitionFlag.COMPRESSION4
)


class Hdf5Source:
    """One ISMRMRD dataset of an HDF5 file, as a `Source`.

    Parameters
    ----------
    path : Path
        The file.
    group : str, optional
        Name of the dataset inside; by default ``dataset``, or the only one there is.
    block_bytes : int
        Upper bound of the samples in one run.

    Raises
    ------
    SourceError
        No HDF5, no header, no acquisitions, several datasets and none chosen.
    TruncatedStream
        The file ends before HDF5's own end mark.
    UnsupportedScan
        A dataset that holds something else (images), or compressed samples.
    """

    def __init__(self, path: Path, *, group: str | None = None, block_bytes: int = BLOCK_BYTES) -> None:
        self._path = path
        self._block_bytes = block_bytes
        self._file = open_hdf5(path)
        try:
            with reading(path):
                self._group = _find_dataset(self._file, path, group)
                self._headers = parse_header(_xml(self._group, path))
                self._table = _acquisitions(self._group, path)
        except BaseException:
            self._file.close()
            raise

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""
        return self._headers

    def __len__(self) -> int:
        return int(self._table.shape[0])

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
        """Physiology waveforms first, then the readouts in the order of acquisition."""
        yield from _waveforms(self._group, self._path)
        with reading(self._path):
            direct = DirectTable.open(self._path, self._table)
        if direct is None:
            yield from self._through_h5py()
            return
        with direct:
            for rows in _runs(direct.heads, self._block_bytes):
                head = _uncompressed(direct.heads[rows].copy(), self._path)
                yield Readouts(head=head, samples=direct.samples(rows, _shape(head)))

    def _through_h5py(self) -> Iterator[Readouts]:
        check_heaps(self._path)
        step = 512
        for first in range(0, len(self), step):
            with reading(self._path):
                table = self._table[first : first + step]
            heads = table["head"].astype(ACQUISITION_HEADER)
            for rows in _runs(heads, self._block_bytes):
                head = _uncompressed(heads[rows], self._path)
                yield Readouts(head=head, samples=_stacked(table["data"][rows], _shape(head), self._path))


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading, also one that another process has locked, or say in one line why not."""
    check_plain(path)
    try:
        return _open_ignoring_locks(path)
    except FileNotFoundError as error:
        raise SourceError(f"{path.name}: no such file") from error
    except (OSError, RuntimeError) as error:
        text = str(error)
        if "truncated" in text:
            sizes = re.search(r"eof = (\d+).*stored_eof = (\d+)", text)
            found = "{} of {} bytes".format(*sizes.groups()) if sizes else text
            raise TruncatedStream(f"{path.name}: the HDF5 file is truncated ({found})") from error
        raise SourceError(f"{path.name}: not a readable HDF5 file ({text})") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what h5py raises on damaged files into one clear line."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        text = " ".join(str(error).split())[:160]
        raise SourceError(f"{path.name}: the HDF5 file is damaged ({text})") from error


def _open_ignoring_locks(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "lock" not in str(error):
            raise
    return h5py.File(path, "r", locking=False)


def _find_dataset(file: h5py.File, path: Path, wanted: str | None) -> h5py.Group:
    """The dataset of a name or path, else ``dataset``, else the only one there is."""
    found = datasets(file)
    if wanted is not None:
        return _named(file, found, wanted, path)
    if "dataset" in members(file) and isinstance(file["dataset"], h5py.Group):
        return file["dataset"]
    if len(found) > 1:
        raise SourceError(f"{path.name}: several datasets {_shown(found)}; choose one (--group NAME)")
    if not found:
        raise _nothing_to_reconstruct(file, path)
    return next(iter(found.values()))


def _named(file: h5py.File, found: dict[str, h5py.Group], wanted: str, path: Path) -> h5py.Group:
    """By its path with or without the first slash, or by the last part of that where only one has it."""
    name = wanted.strip("/")
    top = members(file)
    if name in found:
        return found[name]
    alike = [known for known in found if known.rpartition("/")[2] == name]
    if len(alike) == 1:
        return found[alike[0]]
    if isinstance(top.get(name), h5py.Group):
        return top[name]
    raise SourceError(f"{path.name}: no dataset {wanted[:60]!r}; it holds {_shown(found or top)}")


def _shown(names: Iterable[str]) -> str:
    """A few names, in brackets."""
    every = sorted(name or "/" for name in names)
    more = f" and {len(every) - _MOST_SHOWN} more" if len(every) > _MOST_SHOWN else ""
    return f"{[name[:40] for name in every[:_MOST_SHOWN]]}{more}"


def _nothing_to_reconstruct(group: h5py.Group, path: Path) -> SourceError:
    inside = members(group)
    if not inside:
        return SourceError(f"{path.name}: the HDF5 file is empty; expected an ISMRMRD dataset")
    groups = {name: node for name, node in inside.items() if isinstance(node, h5py.Group)}
    images = [name for name, node in groups.items() if {"header", "attributes"} & set(node)]
    if images:
        return NoKSpace(f"{path.name}: holds images only ({_shown(images)}), no raw data")
    if not groups and (what := next(filter(None, map(what_it_is, inside)), None)):
        return NoKSpace(f"{path.name}: no k-space: holds {what} ({_shown(inside)})")
    return SourceError(f"{path.name}: holds {_shown(inside)}, no ISMRMRD dataset with 'xml' and 'data'")


def _xml(group: h5py.Group, path: Path) -> bytes:
    inside = members(group)
    if not isinstance(inside.get("xml"), h5py.Dataset):
        if "data" in inside:
            raise SourceError(f"{path.name}: dataset {group.name} has no XML header ('xml')")
        raise _nothing_to_reconstruct(group, path)
    return text_of(inside["xml"], path)


def _acquisitions(group: h5py.Group, path: Path) -> h5py.Dataset:
    table = members(group).get("data")
    if not isinstance(table, h5py.Dataset):
        raise SourceError(f"{path.name}: dataset {group.name} has no acquisitions ('data')")
    names = table.dtype.names or ()
    if "head" not in names or "data" not in names or table.ndim != 1:
        what = f"columns {_shown(names)}" if names else f"{table.dtype}"
        raise SourceError(
            f"{path.name}: {table.name} is no table of ISMRMRD acquisitions: shape {table.shape}, {what}; "
            "expected one row an acquisition, (N,), with head and data"
        )
    head = table.dtype["head"]
    if set(head.names or ()) != set(ACQUISITION_HEADER.names or ()):
        odd = set(head.names or ()) ^ set(ACQUISITION_HEADER.names or ())
        raise SourceError(f"{path.name}: {table.name} has an unknown acquisition header (by {_shown(odd)})")
    if table.shape[0] == 0:
        raise SourceError(f"{path.name}: dataset {group.name} has no acquisitions")
    check_table(table, path)
    return table


def _runs(heads: NDArray[Any], block_bytes: int) -> Iterator[slice]:
    """Ranges of rows with one number of channels and samples, none larger than `block_bytes`."""
    channels, samples = heads["active_channels"], heads["number_of_samples"]
    changes = np.flatnonzero((np.diff(channels) != 0) | (np.diff(samples) != 0)) + 1
    edges = [0, *changes.tolist(), len(heads)]
    for first, last in itertools.pairwise(edges):
        size = max(1, int(channels[first]) * int(samples[first]) * 8)
        step = max(1, block_bytes // size)
        for start in range(first, last, step):
            yield slice(start, min(start + step, last))


def _shape(head: NDArray[Any]) -> tuple[int, int, int]:
    return len(head), int(head["active_channels"][0]), int(head["number_of_samples"][0])


def _uncompressed(head: NDArray[Any], path: Path) -> NDArray[Any]:
    if np.any(head["flags"] & np.uint64(COMPRESSED)):
        raise UnsupportedScan(f"{path.name}: samples are compressed (ISMRMRD compression flags)")
    return head


def _stacked(rows: NDArray[Any], shape: tuple[int, int, int], path: Path) -> NDArray[np.complex64]:
    wanted = 2 * shape[1] * shape[2]
    if any(len(row) != wanted for row in rows):
        raise InconsistentReadouts(
            f"{path.name}: an acquisition holds {len(next(r for r in rows if len(r) != wanted))} numbers, "
            f"its header says {shape[1]} channels of {shape[2]} samples"
        )
    flat = np.empty((shape[0], wanted), dtype=np.float32)
    for index, row in enumerate(rows):
        flat[index] = row
    return flat.view(np.complex64).reshape(shape)


def _waveforms(group: h5py.Group, path: Path) -> Iterator[Waveform]:
    table = members(group).get("waveforms")
    if not isinstance(table, h5py.Dataset) or table.ndim != 1 or not table.shape[0]:
        return
    check_table(table, path)
    check_heaps(path)
    with reading(path):
        rows = table[:]
    for row in rows:
        head = row["head"]
        channels = max(1, int(head["channels"]))
        data = np.asarray(row["data"], dtype=np.uint32)
        if data.size % channels:
            raise InconsistentReadouts(f"{path.name}: a waveform of {data.size} numbers, {channels} channels")
        yield Waveform(
            waveform_id=int(head["waveform_id"]),
            time_stamp=int(head["time_stamp"]),
            sample_time_us=float(head["sample_time_us"]),
            data=data.reshape(channels, -1),
        )
