from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.messages import ConfigFile, HeaderXml, message_bytes
from recon_node.simulate import simulate_scan


@pytest.fixture(scope="session")
def heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Raw data of a small heart and its truth."""
    folder = tmp_path_factory.mktemp("heart")
    raw, truth = folder / "heart.h5", folder / "truth.h5"
    simulate_scan(
        raw, acceleration=8, pattern="random", coils=6, slices=2, phases=8, matrix=96, seed=77, truth=truth
    )
    return raw, truth


@pytest.fixture(scope="session")
def cut_heart(heart: tuple[Path, Path]) -> bytes:
    """Messages of the heart behind its configuration: the first slice whole, and half of the second."""
    with open_source(heart[0]) as source:
        parts = [bytes(message_bytes(HeaderXml(xml=source.headers[0].xml)))]
        blocks = [block for block in source if isinstance(block, Readouts)]
    lines = sum(int((block.head["idx"]["slice"] == 1).sum()) for block in blocks)
    left = lines // 2
    for block in blocks:
        for at in range(len(block)):
            second = int(block.head["idx"]["slice"][at]) == 1
            left -= second
            if left < 0:
                return b"".join(parts)
            parts.append(bytes(message_bytes(block.select(slice(at, at + 1)))))
    raise AssertionError("the second slice has no lines")


@pytest.fixture
def vanish() -> Callable[[int, bytes, str], None]:
    """A client that sends what it is given and is killed then."""

    def send(port: int, data: bytes, config: str = "default") -> None:
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            sock.sendall(bytes(message_bytes(ConfigFile(name=config))) + data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass

    return send
