"""Which kind of raw data a file holds, seen from its content."""

from __future__ import annotations

from pathlib import Path

from recon_node.core.errors import SourceError
from recon_node.files.arrays import ArraySource, array_source
from recon_node.files.hdf5 import Hdf5Source
from recon_node.files.mrd_file import MrdFileSource

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, 512, 1024, 2048)
_STREAM_STARTS = (b"\x01\x00", b"\x02\x00", b"\x03\x00")


def open_source(path: Path | str, *, group: str | None = None) -> Hdf5Source | MrdFileSource | ArraySource:
    """Open raw data for reading.

    Parameters
    ----------
    path : Path or str
        An ISMRMRD HDF5 file, an MRD stream file, a CMRxRecon ``.mat`` or a fastMRI ``.h5``.
    group : str, optional
        Dataset inside an HDF5 file that holds several.

    Returns
    -------
    Source
        With `headers`, iteration over runs of readouts and waveforms, and `close` (a context manager).

    Raises
    ------
    SourceError
        The file is absent, empty, or of no known kind; see the sources for their own errors.
    """
    path = Path(path)
    start = _first_bytes(path)
    if any(start[at : at + 8] == HDF5_SIGNATURE for at in _USER_BLOCKS):
        return (array_source(path) if group is None else None) or Hdf5Source(path, group=group)
    if start[:2] in _STREAM_STARTS:
        return MrdFileSource(path)
    raise SourceError(
        f"{path.name}: neither HDF5 nor an MRD stream (starts with {start[:8].hex(' ')}); "
        "expected an ISMRMRD .h5 or .mrd file, or a v7.3 .mat file"
    )


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise SourceError(f"{path.name}: is a folder, expected a raw data file")
    try:
        with path.open("rb") as file:
            start = file.read(_USER_BLOCKS[-1] + 8)
    except FileNotFoundError as error:
        raise SourceError(f"{path.name}: no such file") from error
    except OSError as error:
        raise SourceError(f"{path.name}: cannot be read ({error.strerror})") from error
    if not start:
        raise SourceError(f"{path.name}: the file is empty")
    return start
