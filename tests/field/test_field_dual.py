"""Two series of one scan in a Gadgetron chain: the node's lies as those of Gadgetron's own gadgets do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from field_scans import Lines, axial, header, kspace_of, phantom, write

from recon_node.core.fft import centred_ifft
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.messages import Close, ConfigText, HeaderXml, ImageMessage, message_bytes
from recon_node.mrd.wire import read_messages
from recon_node.online.gadget import listen
from recon_node.settings import CONFIG_VARIABLE

NY, NX = 40, 36


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    (tmp_path / "node.toml").write_text(
        f'[server]\nout = "{tmp_path / "dicom"}"\ndeferred = "{tmp_path / "deferred"}"\n'
        '[recon]\nmethod = "sense"\n'
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "node.toml"))
    stopping, ports, ready = threading.Event(), list[int](), threading.Event()

    def on_port(found: int) -> None:
        ports.append(found)
        ready.set()

    options = {"stopping": stopping, "on_port": on_port}
    thread = threading.Thread(target=listen, args=(0, "acquisitions"), kwargs=options)
    thread.start()
    assert ready.wait(60)
    yield ports[0]
    stopping.set()
    thread.join(60)


def shown(port: int, raw: Path, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """The image that a chain gets, and its header."""
    import socket

    config = f'<configuration><property name="mode" value="{mode}"/></configuration>'
    with open_source(raw) as source:
        start = [ConfigText(text=config), HeaderXml(xml=source.headers[0].xml)]
        messages = [*start, *(block for block in source if isinstance(block, Readouts)), Close()]
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.sendall(b"".join(bytes(message_bytes(message)) for message in messages))
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    (image,) = [m for m in read_messages(memoryview(answer)) if isinstance(m, ImageMessage)]
    return image.data[0, 0], image.head[0]


def places(head: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`(y, x, 3)`: where each pixel lies, by the header's directions about pixel n // 2."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    step = [float(head["field_of_view"][n]) / size for n, size in enumerate(shape[::-1])]
    along_x = (x - shape[1] // 2)[..., None] * step[0] * head["read_dir"]
    along_y = (y - shape[0] // 2)[..., None] * step[1] * head["phase_dir"]
    return np.asarray(head["position"] + along_x + along_y)


def test_in_a_dual_chain_pixels_lie_as_a_plain_transform_has_them_and_stay_at_their_places(
    port: int, tmp_path: Path
) -> None:
    data = kspace_of(phantom(NY, NX), noise=0.003)
    raw = write(tmp_path / "a.h5", header(NY, NX), Lines().add(data, **axial(5.0)))
    plain = np.sqrt((np.abs(centred_ifft(data)) ** 2).sum(0))
    alone, alone_head = shown(port, raw, "reconstruct")
    beside, beside_head = shown(port, raw, "both")
    correlation = [np.corrcoef(image.ravel(), plain.ravel())[0, 1] for image in (alone, beside)]
    assert correlation[1] > 0.95 > correlation[0]
    turned = np.roll(alone[::-1, ::-1], 1, axis=(0, 1))
    np.testing.assert_allclose(beside, turned, rtol=1e-5, atol=1e-5 * alone.max())
    inner = np.s_[1:, 1:]  # the first row and column turn onto themselves
    where = np.roll(places(alone_head, alone.shape)[::-1, ::-1], 1, axis=(0, 1))
    np.testing.assert_allclose(places(beside_head, beside.shape)[inner], where[inner], atol=1e-4)


def test_data_of_other_vendors_are_not_turned(port: int, tmp_path: Path) -> None:
    data = kspace_of(phantom(NY, NX), noise=0.003)
    raw = write(tmp_path / "a.h5", header(NY, NX, vendor="Philips"), Lines().add(data, **axial()))
    np.testing.assert_array_equal(shown(port, raw, "reconstruct")[0], shown(port, raw, "both")[0])
