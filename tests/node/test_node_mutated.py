"""Every field of a scan set to values that cannot be: an image or one clear error, never a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import ReconNodeError
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.frames import FrameReader
from recon_node.mrd.header import parse_header
from recon_node.mrd.messages import Close, HeaderXml, message_bytes
from recon_node.mrd.session import WireSession
from recon_node.online.node import Node
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # such numbers overflow

_NOISE = np.uint64(AcquisitionFlag.IS_NOISE_MEASUREMENT)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Readouts]:
    """Header and imaging lines of a very small scan."""
    raw = tmp_path_factory.mktemp("small") / "small.h5"
    simulate_scan(raw, acceleration=1, pattern="uniform", coils=2, slices=1, phases=2, matrix=32, seed=4)
    with open_source(raw) as source:
        blocks = [b for b in source if isinstance(b, Readouts)]
        alike = [b for b in blocks if b.samples.shape[1:] == blocks[-1].samples.shape[1:]]
        head = np.concatenate([b.head for b in alike])
        lines = Readouts(head=head, samples=np.concatenate([b.samples for b in alike]))
        return source.headers[0].xml.decode(), lines.select(head["flags"] & _NOISE == 0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    out = str(tmp_path_factory.mktemp("dicom"))
    return Node(Settings().replace("recon", method="zero-filled").replace("server", out=out))


def outcome(node: Node, data: bytes) -> str:
    """How the node ends a scan that arrives as these bytes; other exceptions than its own are not caught."""
    session = WireSession("test", FrameReader(memoryview(data)), lambda sent: True)
    try:
        session.read_header()
        session.read_parameters()
        node.reconstruct(session, node.settings)
    except ReconNodeError as error:
        text = str(error)
        return "error" if text and "\n" not in text else f"odd error {text!r}"
    return "image"


def stream(xml: str, *blocks: Readouts | bytes) -> bytes:
    parts = [HeaderXml(xml=xml.encode()), *blocks, Close()]
    return b"".join(part if isinstance(part, bytes) else bytes(message_bytes(part)) for part in parts)


def places(dtype: np.dtype, start: int = 0, name: str = "") -> Iterator[tuple[str, int, np.dtype]]:
    """Every plain value of a structure: its name, its first byte and its kind."""
    for field, (kind, at, *_) in (dtype.fields or {}).items():
        base = kind.subdtype[0] if kind.subdtype else kind
        if base.fields:
            yield from places(base, start + at, f"{name}{field}.")
        else:
            yield f"{name}{field}", start + at, base


def extremes(kind: np.dtype) -> list[np.ndarray]:
    if kind.kind == "f":
        return [np.array(v, kind) for v in (0.0, np.nan, np.finfo(kind).max)]
    info = np.iinfo(kind)
    return [np.array(v, kind) for v in (0, 7, info.max // 2, info.max)]


FIELDS = {name: (at, kind) for name, at, kind in places(ACQUISITION_HEADER)}


@pytest.mark.parametrize("field", FIELDS)
def test_a_line_with_an_impossible_header_is_an_image_or_one_clear_error(
    field: str, node: Node, scan: tuple[str, Readouts]
) -> None:
    xml, lines = scan
    at, kind = FIELDS[field]
    assert outcome(node, stream(xml, lines)) == "image"
    raw = bytearray(bytes(message_bytes(lines)))
    size = len(raw) // len(lines)
    for value in extremes(kind):
        for line in (0, len(lines) // 2):
            changed = bytearray(raw)
            place = line * size + 2 + at
            changed[place : place + kind.itemsize] = value.tobytes()
            assert outcome(node, stream(xml, bytes(changed))) in {"image", "error"}


def test_every_value_of_the_xml_header_may_be_nonsense(node: Node, scan: tuple[str, Readouts]) -> None:
    xml, lines = scan
    values = list(re.finditer(r">([^<>\s][^<>]*)<", xml))
    assert len(values) > 30
    ends = set()
    for found in values:
        for nonsense in ("", "1e99", "65535"):
            changed = xml[: found.start(1)] + nonsense + xml[found.end(1) :]
            ends.add(outcome(node, stream(changed, lines)))
    assert ends == {"image", "error"}


def test_the_header_may_end_anywhere(scan: tuple[str, Readouts]) -> None:
    xml, _ = scan
    for end in range(0, len(xml) - 1, 7):
        with pytest.raises(ReconNodeError):
            parse_header(xml[:end])


def test_a_scan_may_end_anywhere(node: Node, scan: tuple[str, Readouts], tmp_path: Path) -> None:
    xml, lines = scan
    for count in range(0, len(lines), 5):
        assert outcome(node, stream(xml, lines.select(slice(0, count)))) in {"image", "error"}
