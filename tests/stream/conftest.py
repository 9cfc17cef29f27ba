"""The same heart as ISMRMRD and as MRD 2, the latter written by the ``mrd-python`` package."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.as_mrd2 import as_mrd2
from recon_node.files.open import open_source
from recon_node.mrd.messages import HeaderXml, close_bytes, message_bytes
from recon_node.simulate import simulate_scan


@pytest.fixture(scope="session")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of a small heart, two slices of eight phases."""
    raw = tmp_path_factory.mktemp("stream") / "heart.h5"
    simulate_scan(raw, acceleration=4, pattern="random", coils=4, slices=2, phases=8, matrix=64, seed=5)
    return raw


@pytest.fixture(scope="session")
def ismrmrd_stream(heart: Path) -> bytes:
    """The heart as an ISMRMRD stream."""
    with open_source(heart) as source:
        parts = [bytes(message_bytes(HeaderXml(xml=source.headers[0].xml)))]
        parts += [bytes(message_bytes(block)) for block in source]
    return b"".join([*parts, close_bytes()])


@pytest.fixture(scope="session")
def mrd2_stream(heart: Path) -> bytes:
    """The heart as an MRD 2 stream, written by the ``mrd-python`` package."""
    return as_mrd2(heart)
