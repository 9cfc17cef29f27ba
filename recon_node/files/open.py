"""The table of file formats: which kind of raw data a file holds, seen from its content.

Other packages add formats by entry point (group ``recon_node.sources``); they are asked first, since whoever
installs one means it. docs/plugins.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from recon_node.core.errors import NoKSpace, SourceError
from recon_node.core.plugins import imported, installed
from recon_node.core.protocols import OpenSource
from recon_node.files.array_source import ArraySource
from recon_node.files.cmrx4dflow import holds_flow, open_cmrx4dflow
from recon_node.files.cmrxrecon import holds_kspace, open_cmrxrecon
from recon_node.files.companions import what_it_is
from recon_node.files.fastmri import holds_fastmri, open_fastmri
from recon_node.files.foreign import held
from recon_node.files.hdf5 import Hdf5Source, open_hdf5, reading
from recon_node.files.mrd_file import MrdFileSource
from recon_node.files.plain import open_plain
from recon_node.mrd.v2.encode import MAGIC
from recon_node.mrd.v2.source import open_v2

GROUP = "recon_node.sources"
"""Entry point group of file formats from other packages."""
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, 512, 1024, 2048)
_STREAM_STARTS = (b"\x01\x00", b"\x02\x00", b"\x03\x00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of raw data file. An entry point names one, or a class with the same three members."""

    recognises: Callable[[Path, bytes], bool]
    """Whether a file with this path and these first bytes (2056, or all where it is shorter) is of it."""
    open: Callable[[Path, str | None], OpenSource]
    """From its path, and the name of a dataset inside where somebody chose one, to the source."""
    suffixes: tuple[str, ...]
    """Endings that such files have in a folder, in lower case, with the dot."""


def _array(holds: Callable[[h5py.File], bool], opener: Callable[[Path], ArraySource], suffix: str) -> Format:
    """The format of a data set whose files are HDF5 with one array."""

    def recognises(path: Path, start: bytes) -> bool:
        if not _is_hdf5(start):
            return False
        with open_hdf5(path) as file, reading(path):
            return holds(file)

    def opened(path: Path, group: str | None) -> ArraySource:
        if group is not None:
            raise SourceError(f"{path.name}: holds one array, no datasets to choose from (--group {group})")
        return opener(path)

    return Format(recognises=recognises, open=opened, suffixes=(suffix,))


FORMATS: tuple[Format, ...] = (
    _array(holds_fastmri, open_fastmri, ".h5"),
    _array(holds_flow, open_cmrx4dflow, ".mat"),
    _array(holds_kspace, open_cmrxrecon, ".mat"),
    Format(
        recognises=lambda path, start: _is_hdf5(start),
        open=lambda path, group: Hdf5Source(path, group=group),
        suffixes=(".h5", ".hdf5", ".ismrmrd", ".mat"),
    ),
    Format(
        recognises=lambda path, start: start[:2] in _STREAM_STARTS,
        open=lambda path, group: MrdFileSource(path),
        suffixes=(".mrd",),
    ),
    Format(
        recognises=lambda path, start: start.startswith(MAGIC),
        open=lambda path, group: open_v2(path),
        suffixes=(".mrd", ".mrd2"),
    ),
)
"""Built-in formats."""


def formats() -> Iterator[Format]:
    """Every format that can be read here: those of installed packages, then the built-in ones.

    Raises
    ------
    ConfigError
        One of an installed package cannot be imported, or is none.
    """
    for name, entry in installed(GROUP).items():
        who = f"file format {name}"
        target = held(who, imported(who, entry.value))
        yield Format(recognises=target.recognises, open=target.open, suffixes=target.suffixes)
    yield from FORMATS


def known_suffixes() -> tuple[str, ...]:
    """Endings by which raw data is found in a folder, in lower case."""
    return tuple(dict.fromkeys(suffix for one in formats() for suffix in one.suffixes))


def open_source(path: Path | str, *, group: str | None = None) -> OpenSource:
    """Open raw data for reading.

    Parameters
    ----------
    path : Path or str
        An ISMRMRD HDF5 file, an MRD stream file, a CMRxRecon ``.mat``, a fastMRI ``.h5``, or a file of a
        format that an installed package adds.
    group : str, optional
        Dataset inside an HDF5 file that holds several.

    Returns
    -------
    OpenSource
        With `headers`, iteration over runs of readouts and waveforms, and `close` (a context manager).

    Raises
    ------
    SourceError
        The file is absent, empty, or of no known kind; see the sources for their own errors.
    ConfigError
        A format of an installed package cannot be imported.
    """
    path = Path(path)
    start = _first_bytes(path)
    found = next((one for one in formats() if one.recognises(path, start)), None)
    if found is not None:
        return found.open(path, group)
    if start.startswith(b"MATLAB") and (what := what_it_is(path.stem)):
        raise NoKSpace(f"{path.name}: no k-space: by its name {what}")
    raise SourceError(
        f"{path.name}: neither HDF5 nor an MRD stream (starts with {start[:8].hex(' ')}); "
        "expected an ISMRMRD .h5 or .mrd file, or a v7.3 .mat file"
    )


def open_scans(path: Path | str, *, group: str | None = None) -> Iterator[OpenSource]:
    """Every scan of a file, one after the other, open while it is being worked on.

    Parameters
    ----------
    path, group
        As for `open_source`. Streams may hold several scans; a group chooses one dataset of an HDF5 file.

    Raises
    ------
    SourceError, ConfigError
        As `open_source`; also where what lies behind a scan is none.
    """
    source: OpenSource | None = open_source(path, group=group)
    while source is not None:
        with source:
            yield source
            following = getattr(source, "following", None)
            source = following() if following is not None else None


def _is_hdf5(start: bytes) -> bool:
    return any(start[at : at + 8] == HDF5_SIGNATURE for at in _USER_BLOCKS)


def _first_bytes(path: Path) -> bytes:
    try:
        with open_plain(path) as file:
            start = file.read(_USER_BLOCKS[-1] + 8)
    except FileNotFoundError as error:
        raise SourceError(f"{path.name}: no such file") from error
    except OSError as error:
        raise SourceError(f"{path.name}: cannot be read ({error.strerror})") from error
    if not start:
        raise SourceError(f"{path.name}: the file is empty")
    return start
