"""Cut a byte stream into MRD messages: exact reads, a limit on every length, a time limit on every message.

Nothing here looks into a message further than its lengths. A length field never decides an
allocation: it is checked against `WireLimits` first, and memory then grows with the bytes that
really arrive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from recon_node.core.budget import Budget
from recon_node.core.errors import ProtocolError, TruncatedStream
from recon_node.mrd.gadget_frames import GADGET_LENGTHS
from recon_node.mrd.messages import (
    CONFIG_FILE_BYTES,
    ID,
    IMAGE_HEADER,
    LENGTH32,
    LENGTH64,
    PIXEL_TYPES,
    WAVEFORM_HEADER,
    MessageId,
)
from recon_node.mrd.rows import START, run_length, shape_of

_START_BYTES = 4 << 20

_IMAGE = np.dtype([("id", "<u2"), ("head", IMAGE_HEADER), ("attributes", "<u8")])
_WAVEFORM_BYTES = ID.size + WAVEFORM_HEADER.itemsize

Vet = Callable[[MessageId], None]
Peek = Callable[[int], memoryview]
"""Gives the first n bytes of the message, id included, waiting for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """What a peer may send at most; anything larger is a `ProtocolError` before it is stored."""

    text_bytes: int = 1 << 20
    """CONFIG_TEXT, TEXT, ERROR, image attributes."""
    header_bytes: int = 4 << 20
    """ISMRMRD header XML."""
    acquisition_bytes: int = 64 << 20
    """One ACQUISITION or WAVEFORM."""
    channels: int = 512
    """Of one ACQUISITION or WAVEFORM."""
    image_bytes: int = 128 << 20
    """One IMAGE."""
    gadget_bytes: int = 2 << 30
    """One RECON_DATA, BUCKET, IMAGE_ARRAY or plain array."""
    run_bytes: int = 4 << 20
    """Acquisitions that are handed on together (one always is)."""
    idle_seconds: float = 600.0
    """Without a byte, between two messages or inside one."""
    message_seconds: float = 60.0
    """From the first byte of a message to its last."""


class ByteSource(Protocol):
    """Where bytes come from; `SocketTransport` is the shipped one."""

    def receive(self, room: memoryview, deadline: float) -> int:
        """Put at least one byte into `room`, or return 0 at the end of the bytes.

        Waits until `deadline` (`time.monotonic()` seconds) and raises `ProtocolError` then.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message, or a run of ACQUISITION messages of one size."""

    message_id: MessageId
    raw: memoryview = field(repr=False)
    """The bytes as they were received, ids included. Nothing ever overwrites them."""
    count: int = 1
    """Messages; more than 1 only for ACQUISITION."""

    @property
    def payload(self) -> memoryview:
        """Everything after the (first) id."""
        return self.raw[ID.size :]


class FrameReader:
    """Iterates over the messages of one stream, the closing CLOSE included.

    Parameters
    ----------
    source : ByteSource or memoryview
        A transport, or bytes that are all there (a memory-mapped file): those are never copied here.
    limits : WireLimits
    close_optional : bool
        True for files: the end of the bytes between two messages then ends the stream too.
    until : float, optional
        No message is waited for longer than to this time (`time.monotonic()` seconds).
    budget : Budget, optional
        Of all connections: large messages are charged to it, until `release`.

    Raises
    ------
    TruncatedStream
        The bytes end inside a message, or before CLOSE.
    ProtocolError
        An unknown message id, a length above the limits, or time ran out.
    """

    def __init__(
        self,
        source: ByteSource | memoryview,
        *,
        limits: WireLimits | None = None,
        close_optional: bool = False,
        until: float | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget
        self._charged = 0
        self.until = until
        self.received = 0
        """Bytes, so far."""
        self.vet: Vet | None = None
        """Sees the id of each message before its length is read, and raises where it is not expected."""
        self.limits = limits or WireLimits()
        self._close_optional = close_optional
        self._source = None if isinstance(source, memoryview) else source
        self._memory = source.cast("B") if isinstance(source, memoryview) else _room(_START_BYTES)
        self._start = 0
        self._end = len(self._memory) if self._source is None else 0
        self._deadline = 0.0
        self._reading = threading.Lock()
        self.closed = False

    @property
    def buffered(self) -> int:
        """Bytes received and not yet handed out."""
        return self._end - self._start

    def __iter__(self) -> Iterator[Frame]:
        while not self.closed:
            frame = self.next_frame()
            if frame is None:
                return
            yield frame

    def next_frame(self) -> Frame | None:
        """The next message, or None after CLOSE (or at the end of a file); one thread at a time."""
        with self._reading:
            return None if self.closed else self._next_frame()

    def _next_frame(self) -> Frame | None:
        if not self._wait_for_first_byte():
            return None
        if self.until is not None and time.monotonic() > self.until:
            raise ProtocolError("the time limit of this part of the scan is reached")
        (number,) = ID.unpack(self._peek(ID.size))
        try:
            message_id = MessageId(number)
        except ValueError:
            known = ", ".join(str(i.value) for i in MessageId)
            raise ProtocolError(f"message id {number} is unknown, expected one of {known}") from None
        if self.vet is not None:
            self.vet(message_id)
        size = _LENGTHS[message_id](self._peek, self.limits)
        self._peek(size)
        count = self._run(size) if message_id is MessageId.ACQUISITION else 1
        raw = self._memory[self._start : self._start + size * count]
        self._start += size * count
        if message_id is MessageId.CLOSE:
            self.closed = True
            self._memory, self._start, self._end = memoryview(b""), 0, 0  # what was handed out keeps its own
        return Frame(message_id=message_id, raw=raw, count=count)

    def _run(self, size: int) -> int:
        """How many whole acquisitions of one shape are in the buffer."""
        count = max(1, min(self.buffered, self.limits.run_bytes) // size)
        starts = np.ndarray((count, START.itemsize), np.uint8, self._memory, self._start, (size, 1))
        return run_length(starts)

    def _check_time(self, arrived: int, size: int) -> None:
        if time.monotonic() > self._deadline and arrived < size:
            raise ProtocolError(
                f"a message exceeds its time limit: {arrived} of at least {size} bytes arrived"
            )

    def _wait_for_first_byte(self) -> bool:
        if not self.buffered:
            self._deadline = self._in(self.limits.idle_seconds)
            if not self._receive():
                if self._close_optional:
                    self.closed = True
                    return False
                raise TruncatedStream("the stream ends without a CLOSE message: the peer went away")
        self._deadline = self._in(self.limits.message_seconds)
        return True

    def _in(self, seconds: float) -> float:
        """When so many seconds are over, or `until` if that is sooner."""
        then = time.monotonic() + seconds
        return then if self.until is None else min(then, self.until)

    def _peek(self, size: int) -> memoryview:
        while self.buffered < size:
            if not self._receive():
                raise _ended_inside(self.buffered, size)
            self._check_time(self.buffered, size)
        return self._memory[self._start : self._start + size]

    def _make_room(self) -> None:
        """Go on in memory of its own where little is left: what was handed out keeps its bytes."""
        if len(self._memory) - self._end >= _START_BYTES // 2:
            return
        kept = self._memory[self._start : self._end]
        # Doubling only when that full: a length alone never makes memory.
        full = len(kept) > len(self._memory) // 2
        size = 2 * len(self._memory) if full else max(_START_BYTES, 2 * len(kept))
        self._charge(size - _START_BYTES)
        self._memory = _room(size)
        self._memory[: len(kept)] = kept
        self._start, self._end = 0, len(kept)

    def _charge(self, size: int) -> None:
        if self._budget is not None and size != self._charged:
            self._budget.charge(size - self._charged, "a message")
            self._charged = size

    def release(self) -> None:
        """Give back what was charged; nothing more will be read."""
        self._charge(0)

    def _receive(self) -> bool:
        if self._source is None:
            return False
        self._make_room()
        deadline = min(self._deadline, self._in(self.limits.idle_seconds))
        got = self._source.receive(self._memory[self._end :], deadline)
        self._end += got
        self.received += got
        return got > 0


def _room(size: int) -> memoryview:
    return np.empty(size, np.uint8).data


def _ended_inside(arrived: int, size: int) -> TruncatedStream:
    return TruncatedStream(f"the stream ends inside a message: {arrived} of at least {size} bytes arrived")


def checked_size(what: str, size: int, limit: int) -> int:
    """`size`, or `ProtocolError` where it is above `limit`."""
    if size > limit:
        raise ProtocolError(f"{what} announces {size} bytes, more than the limit of {limit}")
    return size


def _text(what: str, limit_name: str) -> Callable[[Peek, WireLimits], int]:
    def length(peek: Peek, limits: WireLimits) -> int:
        (size,) = LENGTH32.unpack_from(peek(ID.size + LENGTH32.size), ID.size)
        return ID.size + LENGTH32.size + checked_size(what, size, getattr(limits, limit_name))

    return length


def _error(peek: Peek, limits: WireLimits) -> int:
    (size,) = LENGTH64.unpack_from(peek(ID.size + LENGTH64.size), ID.size)
    return ID.size + LENGTH64.size + checked_size("ERROR", size, limits.text_bytes)


def _acquisition(peek: Peek, limits: WireLimits) -> int:
    samples, coils, dimensions = shape_of(peek(START.itemsize))
    _check_channels("ACQUISITION", coils, limits)
    size = samples * (8 * coils + 4 * dimensions)
    return START.itemsize + checked_size("ACQUISITION", size, limits.acquisition_bytes)


def _check_channels(what: str, channels: int, limits: WireLimits) -> None:
    if channels > limits.channels:
        raise ProtocolError(
            f"{what} has {channels} channels, more than the limit of {limits.channels} (server.max_channels)"
        )


def _waveform(peek: Peek, limits: WireLimits) -> int:
    head = np.frombuffer(peek(_WAVEFORM_BYTES)[ID.size :], WAVEFORM_HEADER)[0]
    _check_channels("WAVEFORM", int(head["channels"]), limits)
    size = 4 * int(head["number_of_samples"]) * int(head["channels"])
    return _WAVEFORM_BYTES + checked_size("WAVEFORM", size, limits.acquisition_bytes)


def _image(peek: Peek, limits: WireLimits) -> int:
    record = np.frombuffer(peek(_IMAGE.itemsize), _IMAGE)[0]
    head = record["head"]
    if int(head["data_type"]) not in PIXEL_TYPES:
        raise ProtocolError(f"IMAGE has data type {head['data_type']}, expected 1 to {max(PIXEL_TYPES)}")
    attributes = checked_size("IMAGE attributes", int(record["attributes"]), limits.text_bytes)
    pixels = int(head["channels"])
    for size in head["matrix_size"]:
        pixels *= int(size)
    size = pixels * PIXEL_TYPES[int(head["data_type"])].itemsize
    return _IMAGE.itemsize + attributes + checked_size("IMAGE", size, limits.image_bytes)


def _gadget(message_id: MessageId) -> Callable[[Peek, WireLimits], int]:
    def length(peek: Peek, limits: WireLimits) -> int:
        return GADGET_LENGTHS[message_id](peek, limits.gadget_bytes)

    return length


_LENGTHS: dict[MessageId, Callable[[Peek, WireLimits], int]] = {
    MessageId.CONFIG_FILE: lambda _peek, _limits: ID.size + CONFIG_FILE_BYTES,
    MessageId.CONFIG_TEXT: _text("CONFIG_TEXT", "text_bytes"),
    MessageId.HEADER: _text("HEADER", "header_bytes"),
    MessageId.CLOSE: lambda _peek, _limits: ID.size,
    MessageId.TEXT: _text("TEXT", "text_bytes"),
    MessageId.ERROR: _error,
    MessageId.ACQUISITION: _acquisition,
    MessageId.IMAGE: _image,
    MessageId.WAVEFORM: _waveform,
    **{message_id: _gadget(message_id) for message_id in GADGET_LENGTHS},
}
