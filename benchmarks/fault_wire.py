"""Sessions recorded between Gadgetron and the module, damaged: bits, cuts, messages twice and in another order."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.fault_module import Module, attack
from benchmarks.fault_node import connected
from recon_node.mrd.messages import message_bytes
from recon_node.mrd.wire import read_messages

_RECORDED = Path(__file__).parents[1] / "tests" / "data" / "gadgetron_wire" / "acquisitions_to_module.bin"
_LISTEN_S = 5.0
_AT_ONCE = 4
Harm = Callable[[bytes, list[bytes], random.Random], bytes]


def flipped(whole: bytes, parts: list[bytes], rng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.choice((rng.randrange(len(data)), rng.randrange(2000)))
        data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(whole: bytes, parts: list[bytes], rng: random.Random) -> bytes:
    return whole[: rng.choice((rng.randrange(len(whole)), rng.randrange(3000)))]


def cut_within(whole: bytes, parts: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(whole))
    return whole[:at] + whole[at + rng.choice((1, 2, 8, 340, 5000)) :]


def doubled(whole: bytes, parts: list[bytes], rng: random.Random) -> bytes:
    at = rng.choice((0, 1, len(parts) - 1, rng.randrange(len(parts))))
    return b"".join([*parts[:at], *[parts[at]] * rng.choice((2, 3, 50)), *parts[at + 1 :]])


def swapped(whole: bytes, parts: list[bytes], rng: random.Random) -> bytes:
    mixed = list(parts)
    for _ in range(rng.choice((1, 2, 200))):
        a, b = rng.choice((rng.randrange(3), rng.randrange(len(mixed)))), rng.randrange(len(mixed))
        mixed[a], mixed[b] = mixed[b], mixed[a]
    return b"".join(mixed)


def left_out(whole: bytes, parts: list[bytes], rng: random.Random) -> bytes:
    dropped = {
        rng.choice((rng.randrange(3), rng.randrange(len(parts)))) for _ in range(rng.choice((1, 5, 100)))
    }
    return b"".join(part for number, part in enumerate(parts) if number not in dropped)


def damaged(harm: Harm, count: int) -> Iterator[bytes]:
    whole = _RECORDED.read_bytes()
    parts = [bytes(message_bytes(message)) for message in read_messages(memoryview(whole))]
    rng = random.Random(harm.__name__)
    for _ in range(count):
        yield harm(whole, parts, rng)


def sessions(name: str, harm: Harm, count: int = 40) -> None:
    def act(target: Module) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda data: _session(target.port, data), damaged(harm, count)))

    attack(f"recorded session, {name}", act, count)


def _session(port: int, data: bytes) -> None:
    """Sent, and the answer read to its end, as Gadgetron does."""
    with contextlib.suppress(OSError), connected(port) as sock:
        sock.settimeout(_LISTEN_S)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass


sessions("bits flipped", flipped)
sessions("cut off", cut)
sessions("bytes cut out", cut_within)
sessions("messages twice", doubled)
sessions("messages in another order", swapped)
sessions("messages left out", left_out)
