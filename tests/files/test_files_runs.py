"""Runs of acquisitions from a socket: the same values, byte for byte, however they arrive."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.errors import ProtocolError, TruncatedStream
from recon_node.core.scan import Readouts
from recon_node.mrd.frames import FrameReader, WireLimits
from recon_node.mrd.messages import Close, Text, message_bytes
from recon_node.mrd.transport import SocketTransport
from recon_node.mrd.wire import Message, decode


def lines(count: int, samples: int, coils: int = 8, *, seed: int = 0) -> Readouts:
    rng = np.random.default_rng(seed)
    head = np.zeros(count, ACQUISITION_HEADER)
    head["scan_counter"] = rng.integers(0, 1 << 30, count)
    head["number_of_samples"], head["active_channels"] = samples, coils
    values = rng.normal(size=(count, coils, samples, 2)).astype(np.float32)
    return Readouts(head=head, samples=values.view(np.complex64)[..., 0])


def with_trajectory(readouts: Readouts) -> bytes:
    """The messages of `readouts` with two numbers of trajectory for each sample."""
    parts = []
    for at in range(len(readouts)):
        raw = bytes(message_bytes(readouts.select(slice(at, at + 1))))
        start = bytearray(raw[:342])
        start[2 + ACQUISITION_HEADER.fields["trajectory_dimensions"][1]] = 2
        parts += [bytes(start), b"\x07" * 8 * readouts.samples.shape[2], raw[342:]]
    return b"".join(parts)


def sent(data: bytes, cuts: Sequence[int] = ()) -> tuple[SocketTransport, threading.Thread]:
    """A transport at whose other end `data` is sent, in pieces that end at `cuts`, and the end closed."""
    near, far = socket.socketpair()

    def send() -> None:
        with far:
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                far.sendall(data[start:end])
                time.sleep(0.001 if cuts else 0)

    thread = threading.Thread(target=send)
    thread.start()
    return SocketTransport(near), thread


def frames(data: bytes, cuts: Sequence[int] = ()) -> Iterator[tuple[bytes, Message]]:
    """Bytes and value of each frame."""
    transport, thread = sent(data, cuts)
    try:
        for frame in FrameReader(transport):
            yield bytes(frame.raw), decode(frame)
    finally:
        transport.close()
        thread.join(20)


STREAM = b"".join(
    bytes(part) if isinstance(part, bytes) else bytes(message_bytes(part))
    for part in (
        lines(70, 512, seed=1),
        Text(text="between"),
        lines(9, 600, seed=2),
        lines(40, 16, seed=3),
        with_trajectory(lines(30, 512, seed=4)),
        lines(33, 512, seed=5),
        lines(2, 512, 9, seed=6),
        Close(),
    )
)
WANTED = (lines(70, 512, seed=1), lines(9, 600, seed=2), lines(40, 16, seed=3), lines(30, 512, seed=4))


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(1, len(STREAM) - 1), max_size=12, unique=True).map(sorted))
def test_values_and_bytes_are_those_that_were_sent_however_they_arrive(cuts: list[int]) -> None:
    found = list(frames(STREAM, cuts))
    assert b"".join(raw for raw, _ in found) == STREAM
    assert any(isinstance(m, Readouts) and len(m) > 1 for _, m in found)
    samples = [m.samples.reshape(-1) for _, m in found if isinstance(m, Readouts)]
    wanted = np.concatenate([w.samples.reshape(-1) for w in WANTED])
    np.testing.assert_array_equal(np.concatenate(samples)[: len(wanted)], wanted)
    counters = np.concatenate([m.head["scan_counter"] for _, m in found if isinstance(m, Readouts)])
    np.testing.assert_array_equal(counters[:149], np.concatenate([w.head["scan_counter"] for w in WANTED]))


def test_values_stay_as_they_were_while_reading_goes_on() -> None:
    values = [(m, m.samples.copy()) for _, m in frames(STREAM) if isinstance(m, Readouts)]
    assert all(np.array_equal(m.samples, before) for m, before in values)


@pytest.mark.parametrize("cut", [35_000, 36_500, 36_800, 40_000, 33_110 * 64 + 5])
def test_a_stream_that_ends_in_an_acquisition_is_truncated(cut: int) -> None:
    data = bytes(message_bytes(lines(70, 512, seed=1)))
    found: list[bytes] = []
    with pytest.raises(TruncatedStream, match="ends inside a message"):
        found.extend(raw for raw, _ in frames(data[:cut]))
    size = len(data) // 70
    assert b"".join(found) == data[: cut // size * size]


def test_a_line_is_handed_on_before_the_next_one_comes() -> None:
    data = bytes(message_bytes(lines(3, 512, seed=1)))
    near, far = socket.socketpair()
    transport = SocketTransport(near)
    reader = FrameReader(transport)
    with far:
        for at in range(3):
            far.sendall(data[at * len(data) // 3 : (at + 1) * len(data) // 3])
            frame = reader.next_frame()
            assert frame is not None
            assert frame.count == 1
    transport.close()


def test_a_line_behind_a_flood_is_handed_on_before_the_next_one_comes() -> None:
    flood, line = lines(150, 512, seed=1), lines(1, 512, seed=2)
    near, far = socket.socketpair()
    transport = SocketTransport(near)
    reader = FrameReader(transport, limits=WireLimits(idle_seconds=30))
    sender = threading.Thread(target=far.sendall, args=(bytes(message_bytes(flood)),))
    with far:
        sender.start()
        left = len(flood)
        while left:
            frame = reader.next_frame()
            assert frame is not None
            left -= frame.count
        sender.join()
        for _ in range(3):
            far.sendall(bytes(message_bytes(line)))
            frame = reader.next_frame()
            assert frame is not None
            assert frame.raw == bytes(message_bytes(line))
    transport.close()


def test_an_acquisition_that_drips_in_is_given_up_in_time() -> None:
    data = bytes(message_bytes(lines(2, 512, seed=1)))
    near, far = socket.socketpair()
    transport = SocketTransport(near)
    reader = FrameReader(transport, limits=WireLimits(message_seconds=0.4))
    far.sendall(data[: len(data) // 2 + 400])
    assert reader.next_frame() is not None
    started = time.monotonic()
    with pytest.raises(ProtocolError, match="time limit"):
        reader.next_frame()
    assert time.monotonic() - started < 60
    far.close()
    transport.close()
