"""Deferred scans through Gadgetron: quick images for the chain, the others from a node that serves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from recon_node.mrd.captures import Capture
from recon_node.mrd.messages import Close, ConfigText, ImageMessage, RemoteError, message_bytes
from recon_node.mrd.meta import parse_meta
from recon_node.mrd.wire import read_messages
from recon_node.online.gadget import node_handler
from recon_node.online.recall import recall
from recon_node.online.received import open_captures
from recon_node.online.serve import serving
from recon_node.settings import CONFIG_VARIABLE, Settings, load_settings

RECORDED = Path(__file__).parent.parent / "data" / "gadgetron_wire"


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def session(name: str, **properties: str) -> bytes:
    """A recorded session with a configuration of the test's own."""
    data = (RECORDED / f"{name}_to_module.bin").read_bytes()
    children = "".join(f'<property name="{n}" value="{v}"/>' for n, v in properties.items())
    config = ConfigText(text=f'<?xml version="1.0"?>\n<configuration>{children}</configuration>')
    return bytes(message_bytes(config)) + data[6 + int.from_bytes(data[2:6], "little") :]


DEFERRED = {"method": "sense", "fallback": "zero-filled", "mode": "deferred"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of the node, found by the modules through the environment."""
    (tmp_path / "node.toml").write_text(
        f'[server]\nport = 0\nout = "{tmp_path / "dicom"}"\ndeferred = "{tmp_path / "deferred"}"\n'
        '[recon]\nmethod = "zero-filled"\n'
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "node.toml"))
    monkeypatch.setattr("recon_node.online.deferred_worker._PAUSE_S", 0.05)
    return load_settings()


def jobs(settings: Settings) -> list[Capture]:
    return open_captures(settings).all()


def states(settings: Settings) -> list[str]:
    return [job.state for job in jobs(settings)]


def images_of(answer: bytes) -> list[ImageMessage]:
    messages = list(read_messages(memoryview(answer)))
    assert [m.text for m in messages if isinstance(m, RemoteError)] == []
    assert isinstance(messages[-1], Close)
    return [m for m in messages if isinstance(m, ImageMessage)]


def methods(images: list[ImageMessage]) -> list[str]:
    return [parse_meta(image.attributes)["ReconMethod"][0] for image in images]


@pytest.mark.parametrize("name", ["acquisitions", "buckets", "recon_data"])
def test_the_chain_gets_quick_images_and_the_next_node_that_starts_makes_the_others(
    name: str, settings: Settings, listening, exchange
) -> None:
    port = listening(name, make_handler=node_handler)
    quick = images_of(exchange(port, session(name, noise="unit-parts", **DEFERRED)))
    assert methods(quick) == ["zero-filled", "zero-filled"]
    assert states(settings) == ["waiting"]
    assert not list(Path(settings.server.out).rglob("*.dcm"))
    with serving(settings):
        assert eventually(lambda: states(settings) == ["done"]), jobs(settings)[0].reason
    files = [pydicom.dcmread(path) for path in Path(settings.server.out).rglob("*.dcm")]
    assert len(files) == 2
    fetched = images_of(exchange(port, session(name, mode="retrieve", scan=jobs(settings)[0].scan_id)))
    assert methods(fetched) == ["sense", "sense"]


def test_a_module_without_a_mode_does_what_the_nodes_settings_say(
    settings: Settings, listening, exchange, tmp_path: Path
) -> None:
    with (tmp_path / "node.toml").open("a") as file:
        file.write('fallback = "zero-filled"\n')
    text = (tmp_path / "node.toml").read_text().replace("[server]", '[server]\nmode = "deferred"')
    (tmp_path / "node.toml").write_text(text)
    port = listening("acquisitions", make_handler=node_handler)
    assert len(images_of(exchange(port, session("acquisitions")))) == 2
    assert states(settings) == ["waiting"]
    assert len(images_of(exchange(port, session("acquisitions", mode="reconstruct")))) == 2
    assert states(settings) == ["waiting"]


@pytest.fixture
def module(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """``python -m gadgetron PORT recon_node.gadget acquisitions``, and the socket that it connected to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "gadgetron", str(listener.getsockname()[1])]
        environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*command, "recon_node.gadget", "acquisitions"], env=environment)
        sock, _ = listener.accept()
        sock.settimeout(120)
        with sock:
            yield process, sock
        process.kill()
        process.wait()


def test_a_module_that_is_killed_after_its_close_loses_nothing(module, settings: Settings) -> None:
    process, sock = module
    sock.sendall(session("acquisitions", **DEFERRED))
    answer = bytearray()
    while not answer.endswith(bytes(message_bytes(Close()))):
        answer += sock.recv(1 << 16)
    process.send_signal(signal.SIGKILL)
    assert len(images_of(bytes(answer))) == 2
    with serving(settings):
        assert eventually(lambda: states(settings) == ["done"])
    assert len(list(Path(settings.server.out).rglob("*.dcm"))) == 2


def test_what_a_module_received_before_it_was_killed_is_finished_by_the_running_node(
    module, settings: Settings
) -> None:
    process, sock = module
    with serving(settings):
        data = session("acquisitions", **DEFERRED)
        sock.sendall(data[: len(data) * 3 // 4])
        first = bytearray()
        while len(first) < 1000:
            first += sock.recv(1 << 16)  # the first slice has been kept, and answered
        assert states(settings) == ["arriving"]
        process.send_signal(signal.SIGKILL)
        assert eventually(lambda: states(settings) == ["done"])
    assert len(list(Path(settings.server.out).rglob("*.dcm"))) == 1


def test_a_module_captures_its_scans_and_a_killed_one_leaves_them_to_the_running_node(
    module, settings: Settings, listening, exchange, tmp_path: Path
) -> None:
    text = (tmp_path / "node.toml").read_text()
    kept = f'[server]\nrecord = "{tmp_path / "kept"}"'
    (tmp_path / "node.toml").write_text(text.replace("[server]", kept, 1))
    recording = load_settings()
    port = listening("recon_data", make_handler=node_handler)
    answered = images_of(exchange(port, session("recon_data")))
    (capture,) = jobs(recording)
    assert (capture.kind, capture.state, capture.handed, capture.whole) == ("direct", "done", True, True)
    again = recall(capture, recording, tmp_path / "again")
    assert (again.error, again.images, again.likeness) == (None, len(answered), "equal")
    process, sock = module
    data = session("acquisitions")
    sock.sendall(data[: len(data) * 3 // 4])
    first = bytearray()
    while len(first) < 1000:
        first += sock.recv(1 << 16)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states(recording) == ["done", "arriving"]
    with serving(recording):
        assert eventually(lambda: states(recording) == ["done", "done"])
    assert not jobs(recording)[1].whole
