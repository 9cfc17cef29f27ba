"""File formats of other packages, whose failures are errors of this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from recon_node.core.errors import ConfigError, ReconNodeError, SourceError
from recon_node.core.plugins import FAILURES, told
from recon_node.core.protocols import OpenSource
from recon_node.core.scan import Readouts, ScanHeader, Waveform

T = TypeVar("T")
_END = object()


def held(who: str, target: Any) -> ForeignFormat:
    """A format, held to what is asked of one.

    Raises
    ------
    ConfigError
        It lacks a part.
    """
    try:
        suffixes = tuple(target.suffixes)
        whole = callable(target.recognises) and callable(target.open)
    except FAILURES:
        suffixes, whole = (), False
    if not whole or not all(isinstance(one, str) for one in suffixes):
        raise ConfigError(f"{who}: expected recognises(path, start), open(path, group) and suffixes")
    return ForeignFormat(who, target, suffixes)


class ForeignFormat:
    """Opens files by another package's code."""

    def __init__(self, who: str, target: Any, suffixes: tuple[str, ...]) -> None:
        self._who, self._target = who, target
        self.suffixes = suffixes

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether a file is of it.

        Raises
        ------
        SourceError
            It failed.
        """
        return bool(_tried(self._who, path, lambda: self._target.recognises(path, start)))

    def open(self, path: Path, group: str | None) -> OpenSource:
        """The source that it makes of a file.

        Raises
        ------
        SourceError
            It failed, or made none.
        """
        inner = _tried(self._who, path, lambda: self._target.open(path, group))
        return _ForeignSource(self._who, path, inner)


class _ForeignSource:
    """What another package reads."""

    def __init__(self, who: str, path: Path, inner: Any) -> None:
        self._who, self._path, self._inner = who, path, inner
        self.headers: tuple[ScanHeader, ...] = self._tried(lambda: tuple(inner.headers))
        if not self.headers or not all(isinstance(one, ScanHeader) for one in self.headers):
            raise SourceError(f"{path.name}: {who} gave no headers, expected one ScanHeader an encoding")

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        blocks = self._tried(lambda: iter(self._inner))
        while (block := self._tried(lambda: next(blocks, _END))) is not _END:
            if not isinstance(block, Readouts | Waveform):
                kind = type(block).__name__
                raise SourceError(
                    f"{self._path.name}: {self._who} gave a {kind}, expected Readouts or Waveform"
                )
            yield block

    def __getattr__(self, name: str) -> Any:
        """What a source may have beside, such as `following`."""
        return getattr(self._inner, name)

    def close(self) -> None:
        """Let go of the file."""
        self._tried(self._inner.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tried(self, work: Callable[[], T]) -> T:
        return _tried(self._who, self._path, work)


def _tried(who: str, path: Path, work: Callable[[], T]) -> T:
    try:
        return work()
    except ReconNodeError:
        raise
    except FAILURES as error:
        raise SourceError(f"{path.name}: {who} failed: {told(error)}") from error
