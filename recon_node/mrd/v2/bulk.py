"""Acquisitions of one layout, many at once.

A writer gives acquisition after acquisition the same fields, and most of them the same length in bytes. One
that was decoded tells where each number stands; those behind it whose other bytes (what is there, how many,
how long) are equal are then read as columns. Whatever is not so is left to be decoded by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ProtocolError, ReconNodeError
from recon_node.core.scan import Readouts
from recon_node.mrd.v2.decode import decoder
from recon_node.mrd.v2.items import COUNTERS, HEAD, LISTS, NS_PER_STAMP, AcquisitionReader
from recon_node.mrd.v2.primitives import GROUPED, PLAIN, Bytes, Short, varint
from recon_node.mrd.v2.schema import Array, Enum, Primitive, Record, Type, Union, Vector

Columns = NDArray[Any]
_MOST_LAYOUTS = 24
_TRIES = 64
"""Layouts that are taken before it is asked whether they were of use."""
_SAME = np.uint8(0xFF)
_LENGTH = np.uint8(0x80)
"""Of a byte of an integer: whether another one follows."""
_FREE = np.uint8(0)


Path = tuple[str | int, ...]
"""Names of fields from the acquisition's head on, and places in a list."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A field of ISMRMRD's acquisition header."""

    names: tuple[str, ...]
    place: int | None = None
    """Where it is a list."""
    convert: Callable[[Columns], Columns] | None = None

    def of(self, head: Columns) -> Columns:
        """It in these headers."""
        for name in self.names:
            head = head[name]
        return head if self.place is None else head[:, self.place]


_TIMES = {
    "centerSample": _Target(("center_sample",)),
    "acquisitionTimeStamp": _Target(("acquisition_time_stamp",), None, lambda values: np.rint(values * 1.0)),
    "acquisitionTimeStampNs": _Target(
        ("acquisition_time_stamp",), None, lambda values: np.rint(values * (1 / NS_PER_STAMP))
    ),
    "sampleTimeUs": _Target(("sample_time_us",), None, lambda values: values.astype(np.float64)),
    "sampleTimeNs": _Target(("sample_time_us",), None, lambda values: values.astype(np.float64) / 1000),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Leaf:
    """Numbers of one field, side by side."""

    path: Path
    start: int
    size: int
    kind: np.dtype[Any] | None
    """As they lie in memory; None for an integer in groups of seven bits."""
    signed: bool = False
    target: _Target | None = None

    def read(self, rows: Columns) -> Columns:
        """`(row,)` or `(row, number)` values."""
        part = rows[:, self.start : self.start + self.size]
        if self.kind is not None:
            values = np.ascontiguousarray(part).view(self.kind)
            return values[:, 0] if values.shape[1] == 1 else values
        found = (part[:, 0] & np.uint8(127)).astype(np.uint64)
        for at in range(1, self.size):
            found |= (part[:, at] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * at)
        if not self.signed:
            return found
        return ((found >> np.uint64(1)) ^ (np.uint64(0) - (found & np.uint64(1)))).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of an acquisition before its samples, or behind them."""

    begin: int
    end: int
    sample: bytes
    """As they were where the layout was taken."""
    value: int
    mask: int
    """Both as one number: which bits of `value` have to be the same."""

    @classmethod
    def of(cls, whole: Columns, mask: Columns, begin: int, end: int) -> _Piece:
        """One piece of an acquisition and of its mask."""
        sample, bits = whole[begin:end].tobytes(), int.from_bytes(mask[begin:end].tobytes(), "little")
        return cls(begin, end, sample, int.from_bytes(sample, "little") & bits, bits)

    def fits(self, data: Bytes, at: int) -> bool:
        """Whether the acquisition that begins at `at` has the same."""
        return int.from_bytes(data[at + self.begin : at + self.end], "little") & self.mask == self.value

    def changed(self, rows: Columns) -> list[int]:
        """Bytes that are not in every row as they were."""
        sample = np.frombuffer(self.sample, np.uint8)
        differs = (rows[:, self.begin : self.end] != sample).any(axis=0)
        return [at + self.begin for at in np.flatnonzero(differs).tolist()]


@dataclass(slots=True, kw_only=True)
class _Layout:
    """Where everything stands in an acquisition, from the byte on that says which kind of item it is."""

    size: int
    shape: tuple[int, int]
    """Of the samples, which begin at the end of the first piece."""
    pieces: tuple[_Piece, _Piece]
    leaf_of: dict[int, _Leaf]
    """Byte to the numbers it is part of, where those go anywhere."""
    head: Columns = field(default_factory=lambda: np.zeros(0))
    """Of the one that was decoded."""

    def fits(self, data: Bytes, at: int) -> bool:
        """Whether an acquisition has this layout; as many bytes are there."""
        before, behind = self.pieces
        return before.fits(data, at) and behind.fits(data, at)

    def missing(self, data: Bytes, at: int) -> int:
        """Bytes of the samples that are not there, where the head is, and says it has this layout."""
        before, behind = self.pieces
        left = len(data) - at
        return behind.begin - left if before.end <= left < behind.begin and before.fits(data, at) else 0

    def rows(self, data: Bytes, at: int, count: int, stride: int) -> Columns:
        """`(acquisition, byte)`."""
        return np.ndarray((count, self.size), np.uint8, data, at, (stride, 1))

    def samples(self, data: Bytes, at: int, count: int, stride: int) -> Columns:
        """`(acquisition, coil, sample)` complex64, where they lie in the stream."""
        strides = (stride, 8 * self.shape[1], 8)
        return np.ndarray((count, *self.shape), np.complex64, data, at + self.pieces[0].end, strides)


class BulkReader:
    """Runs of acquisitions behind one that was decoded.

    Parameters
    ----------
    reader : AcquisitionReader
        Of the schema's acquisitions.
    kind : Record
        Their type.
    tag : int
        The byte that stands before each in the stream.
    most_bytes : int
        Of a run's samples.
    """

    def __init__(self, reader: AcquisitionReader, kind: Record, tag: int, *, most_bytes: int) -> None:
        self._reader = reader
        self._kind = kind
        self._tag = tag
        self._most_bytes = most_bytes
        self._layouts: list[_Layout] = []
        self._learnt = 0
        self._used = 0

    def read(self, data: Bytes, at: int, left: int) -> tuple[Readouts, int, int] | None:
        """Acquisitions that begin at `at` and have a layout that was seen, in a block of `left` items.

        Returns
        -------
        (Readouts, int, int) or None
            With where they end, and how many are left of the last block; None where no layout fits the first.

        Raises
        ------
        Short
            The bytes end within the samples of the first.
        """
        for place, layout in enumerate(self._layouts):
            missing = layout.missing(data, at)
            if missing > 0:
                raise Short(missing)
            found = self._run(layout, data, at, left)
            if found is not None:
                self._used += 1
                if place:
                    self._layouts.insert(0, self._layouts.pop(place))
                return found
        return None

    def learn(self, data: Bytes, at: int, end: int, record: tuple[Any, ...]) -> None:
        """Take the layout of an acquisition that was decoded from these bytes, unless that does not pay."""
        known = any(layout.size == end - at and layout.fits(data, at) for layout in self._layouts)
        if known or self._learnt > _TRIES + 2 * self._used:
            return
        self._learnt += 1
        layout = _Tracer(data, at).traced(self._kind, end)
        if layout is None:
            return
        try:
            layout.head = self._reader.run([record]).head
        except ReconNodeError:
            return  # it is told with the run that it stands in
        self._layouts = [layout, *self._layouts[: _MOST_LAYOUTS - 1]]

    def _run(self, layout: _Layout, data: Bytes, at: int, left: int) -> tuple[Readouts, int, int] | None:
        """In blocks of one item each, the count of one stands between them."""
        single = left == 1
        stride = layout.size + single
        room = (len(data) - at + single) // stride
        most = max(1, self._most_bytes // (8 * layout.shape[0] * layout.shape[1]))
        count, wanted, next_ = 0, min(room, most, room if single else left), at
        while count < wanted and layout.fits(data, next_):
            if single and count and data[next_ - 1] != 1:
                break
            count, next_ = count + 1, next_ + stride
        if not count:
            return None
        head = self._heads(layout, layout.rows(data, at, count, stride))
        if head is None:
            return None
        samples = layout.samples(data, at, count, stride)
        return Readouts(head=head, samples=samples), next_ - single, 0 if single else left - count

    @staticmethod
    def _heads(layout: _Layout, rows: Columns) -> Columns | None:
        """Their headers; None where a number does not fit."""
        head = np.repeat(layout.head, len(rows))
        changed = {
            leaf
            for piece in layout.pieces
            for at in piece.changed(rows)
            if (leaf := layout.leaf_of.get(at)) is not None
        }
        return head if all(_put(head, leaf, rows) for leaf in changed) else None


def _put(head: Columns, leaf: _Leaf, rows: Columns) -> bool:
    """Fill a header's field from a column; False where a number does not fit."""
    assert leaf.target is not None  # noqa: S101 - others are in no layout
    values = leaf.read(rows)
    if leaf.target.convert is not None:
        values = leaf.target.convert(values)
    field_ = leaf.target.of(head)
    if field_.dtype.kind in "ui" and (leaf.kind is not None or 7 * leaf.size >= 8 * field_.itemsize):
        limits = np.iinfo(field_.dtype)
        if values.max() > limits.max or values.min() < limits.min:
            return False
    field_[...] = values
    return True


def _target(path: Path) -> _Target | None:
    """Where a number goes; None where nowhere."""
    name, *rest = path
    if name == "idx":
        if rest and rest[0] == "user":
            return _listed(("idx", "user"), 8, rest[1:], None)
        inner = COUNTERS.get(str(rest[0])) if rest else None
        return None if inner is None else _Target(("idx", inner))
    name = str(name)
    if name in HEAD:
        return _Target((HEAD[name],))
    stem = name.removesuffix("Ns")
    if stem in LISTS:
        field_, most = LISTS[stem]
        return _listed((field_,), most, rest, NS_PER_STAMP if name != stem else None)
    return _TIMES.get(name)


def _listed(
    names: tuple[str, ...], most: int, rest: Sequence[str | int], scale: float | None
) -> _Target | None:
    place = rest[0] if rest else 0
    if not isinstance(place, int) or place >= most:
        return None
    return _Target(names, place, None if scale is None else lambda values: np.rint(values / scale))


class _Tracer:
    """Walks an acquisition that was decoded, and notes where its numbers stand."""

    def __init__(self, data: Bytes, at: int) -> None:
        self._data = data
        self._start = at
        self._leaves: list[_Leaf] = []
        self._array: tuple[int, int, tuple[int, int]] | None = None

    def traced(self, kind: Record, end: int) -> _Layout | None:
        """The layout; None where it has what is not read in bulk."""
        nested = "head" in kind.index
        at = self._start + 1
        for name, part in kind.fields:
            if name == "data":
                at = self._samples(part, at)
            elif name == "phase":
                at = decoder(part)(self._data, at)[1]  # all of its bytes have to be the same
            elif name == "head" and nested and isinstance(part, Record):
                at = self._record(part, at, ())
            else:
                at = self._walk(part, at, (name,))
        if at != end or self._array is None:
            return None
        if not any("kspaceEncodeStep1" in leaf.path for leaf in self._leaves):
            # only what is no imaging line may do without: its flags have to stay as they are
            self._leaves = [leaf for leaf in self._leaves if leaf.path != ("flags",)]
        return self._layout(end)

    def _layout(self, end: int) -> _Layout:
        assert self._array is not None  # noqa: S101 - for the type checker
        begin, behind, shape = self._array
        whole = np.frombuffer(self._data, np.uint8)[self._start : end]
        mask = np.full(len(whole), _SAME)
        for leaf in self._leaves:
            mask[leaf.start : leaf.start + leaf.size] = _FREE if leaf.kind is not None else _LENGTH
        return _Layout(
            size=len(whole),
            shape=shape,
            pieces=(_Piece.of(whole, mask, 0, begin), _Piece.of(whole, mask, behind, len(whole))),
            leaf_of={
                leaf.start + offset: leaf
                for leaf in self._leaves
                if leaf.target is not None
                for offset in range(leaf.size)
            },
        )

    def _samples(self, kind: Type, at: int) -> int:
        value, end = decoder(kind)(self._data, at)
        if isinstance(value, np.ndarray) and value.dtype == np.complex64 and value.ndim == 2 and value.size:
            begin = end - value.nbytes
            self._array = (begin - self._start, end - self._start, (value.shape[0], value.shape[1]))
        return end

    def _record(self, kind: Record, at: int, path: Path) -> int:
        for name, part in kind.fields:
            at = self._walk(part, at, (*path, name))
        return at

    def _walk(self, kind: Type, at: int, path: Path) -> int:
        """Where a value ends; its numbers are noted."""
        base = kind.base if isinstance(kind, Enum) else kind
        if isinstance(base, Primitive):
            return self._number(base, at, path)
        if isinstance(kind, Record):
            return self._record(kind, at, path)
        if isinstance(kind, Union) and kind.nullable and len(kind.cases) == 1:
            return self._walk(kind.cases[0][1], at + 1, path) if self._data[at] else at + 1
        if isinstance(kind, Vector):
            count, at = (kind.length, at) if kind.length is not None else varint(self._data, at)
            for place in range(count):
                at = self._walk(kind.items, at, (*path, place))
            return at
        end = decoder(kind)(self._data, at)[1]
        if isinstance(kind, Array) and isinstance(kind.items, Primitive) and kind.shape is not None:
            plain = PLAIN.get(kind.items.name)
            if plain is not None:
                self._note(path, at, end, plain)
        return end

    def _number(self, kind: Primitive, at: int, path: Path) -> int:
        end = decoder(kind)(self._data, at)[1]
        plain, grouped = PLAIN.get(kind.name), GROUPED.get(kind.name)
        if plain is not None:
            self._note(path, at, end, plain)
        elif grouped is not None:
            self._note(path, at, end, None, signed=grouped.kind == "i")
        return end

    def _note(
        self,
        path: Path,
        at: int,
        end: int,
        kind: np.dtype[Any] | None,
        *,
        signed: bool = False,
    ) -> None:
        self._leaves.append(_Leaf(path, at - self._start, end - at, kind, signed, _target(path)))


def tag_of(cases: tuple[tuple[str, Type], ...], *, nullable: bool) -> int:
    """The byte that stands before acquisitions."""
    for place, (name, _) in enumerate(cases):
        if name.lower() == "acquisition":
            return place + int(nullable)
    raise ProtocolError("MRD 2 stream: its schema has no acquisitions")
