"""Preliminary images through the real server, the module and the stream, and what they leave alone."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from recon_node.core.errors import ProtocolError, SourceError
from recon_node.core.scan import SliceIndex
from recon_node.mrd.captures import Captures
from recon_node.mrd.messages import (
    Close,
    ConfigFile,
    ConfigText,
    HeaderXml,
    ImageMessage,
    MessageId,
    Text,
    message_bytes,
    text_bytes,
)
from recon_node.mrd.meta import parse_meta
from recon_node.mrd.replies import Outbox
from recon_node.mrd.transport import SocketTransport
from recon_node.mrd.wire import read_messages
from recon_node.online import frames as online
from recon_node.online.frames import FRAME_SERIES, Frames
from recon_node.online.gadget import listen, node_handler
from recon_node.online.node import Node
from recon_node.online.serve import serving
from recon_node.online.stream import reconstruct_stream
from recon_node.pipeline.frames import FrameMaker, FrameWindow
from recon_node.pipeline.scan import prepare
from recon_node.settings import CONFIG_VARIABLE, Settings

PHASES = 6
PATIENCE_S = 120.0


def settings_in(folder: Path, **server: object) -> Settings:
    settings = Settings().replace("recon", method="view-sharing", fallback="sense", check_trust=False)
    folders = {"out": str(folder / "dicom"), "deferred": str(folder / "deferred")}
    return settings.replace("server", port=0, **folders, **server)


def opening(scan, frames: str) -> list[bytes]:
    return [
        bytes(message_bytes(ConfigFile(name="default"))),
        bytes(message_bytes(HeaderXml(xml=scan.headers[0].xml))),
        text_bytes(MessageId.TEXT, f'{{"parameters": {{"config": "default", "frames": "{frames}"}}}}'),
    ]


def messages(scan) -> list[bytes]:
    return [bytes(message_bytes(line)) for line in scan.lines]


def middle(scan) -> int:
    """So many lines that half of the first slice has come."""
    first = [number for number, line in enumerate(scan.lines) if int(line.head["idx"]["slice"][0]) == 0]
    return (first[0] + first[-1]) // 2 + len(first) // 8


class Peer:
    """A client that sends when it is told to and reads all the while."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.answered: list[object] = []
        self._came = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self, parts: list[bytes]) -> None:
        self._sock.sendall(b"".join(parts))

    def wait_for_image(self) -> ImageMessage:
        with self._came:
            assert self._came.wait_for(lambda: self.images or self._closed, PATIENCE_S)
            assert self.images, "the node ended the scan without an image"
            return self.images[0]

    def finish(self) -> None:
        self._thread.join(PATIENCE_S)
        assert self._closed

    def vanish(self) -> None:
        """Break the connection off, where it is still there."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)

    @property
    def images(self) -> list[ImageMessage]:
        return [message for message in self.answered if isinstance(message, ImageMessage)]

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.answered if isinstance(message, Text)]

    def _read(self) -> None:
        with suppress(SourceError):
            for message in read_messages(SocketTransport(self._sock), close_optional=True):
                with self._came:
                    self.answered.append(message)
                    self._came.notify_all()
        with self._came:
            self._closed = True
            self._came.notify_all()


@contextmanager
def peer(port: int) -> Iterator[Peer]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
        client = Peer(sock)
        try:
            yield client
        finally:
            client.vanish()


def sent(port: int, scan, frames: str) -> Peer:
    """A scan sent at once, and what came back."""
    with peer(port) as client:
        client.send([*opening(scan, frames), *messages(scan), bytes(message_bytes(Close()))])
        client.finish()
    return client


def series_of(image: ImageMessage) -> int:
    return int(image.head["image_series_index"][0])


def final(images: list[ImageMessage]) -> list[tuple[bytes, str, bytes]]:
    return [
        (image.head.tobytes(), image.attributes, image.data.tobytes())
        for image in images
        if series_of(image) != FRAME_SERIES
    ]


def early(images: list[ImageMessage]) -> list[ImageMessage]:
    return [image for image in images if series_of(image) == FRAME_SERIES]


def dicom(folder: Path) -> dict[str, bytes]:
    files = sorted((folder / "dicom").rglob("*.dcm"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def usual(by_frames, tmp_path_factory: pytest.TempPathFactory) -> tuple[list, dict[str, bytes]]:
    """Final images and DICOM without preliminary ones."""
    folder = tmp_path_factory.mktemp("usual")
    with serving(settings_in(folder)) as running:
        client = sent(running.server.port, by_frames, "off")
    assert not early(client.images)
    assert len(client.images) == 2 * PHASES
    return final(client.images), dicom(folder)


def test_frames_come_while_lines_are_still_to_be_sent_and_the_final_images_are_the_same(
    by_frames, usual, tmp_path: Path
) -> None:
    lines, half = messages(by_frames), middle(by_frames)
    with serving(settings_in(tmp_path)) as running, peer(running.server.port) as client:
        client.send([*opening(by_frames, "sliding"), *lines[:half]])
        first = client.wait_for_image()
        client.send([*lines[half:], bytes(message_bytes(Close()))])
        client.finish()
        counted = running.node.metrics.text().decode()
    assert (final(client.images), dicom(tmp_path)) == usual
    assert series_of(first) == FRAME_SERIES
    meta = parse_meta(first.attributes)
    assert meta["Preliminary"] == ("true",)
    assert meta["ImageType"] == ("DERIVED", "SECONDARY", "PRELIMINARY")
    assert meta["TrustVerdict"] == ("unchecked",)
    assert "preliminary: not for clinical use" in meta["ImageComment"][0]
    assert meta["SeriesDescription"][0].endswith("sense preliminary")
    phases = [int(image.head["phase"][0]) for image in early(client.images)]
    slices = [int(image.head["slice"][0]) for image in early(client.images)]
    assert len(set(zip(slices, phases, strict=True))) == len(phases)
    assert f'recon_node_frames_total{{outcome="sent"}} {len(phases)}.0' in counted
    assert f"recon_node_frame_latency_seconds_count {len(phases)}.0" in counted


def test_a_preliminary_image_lies_where_the_final_one_does(by_frames, tmp_path: Path) -> None:
    lines, half = messages(by_frames), middle(by_frames)
    with serving(settings_in(tmp_path)) as running, peer(running.server.port) as client:
        client.send([*opening(by_frames, "sliding"), *lines[:half]])
        first = client.wait_for_image()
        client.send([*lines[half:], bytes(message_bytes(Close()))])
        client.finish()
    same = next(
        image
        for image in client.images
        if series_of(image) == 1 and all(image.head[n] == first.head[n] for n in ("slice", "phase"))
    )
    assert first.data.shape == same.data.shape
    for name in ("position", "read_dir", "phase_dir", "slice_dir", "field_of_view", "image_index"):
        assert (first.head[name] == same.head[name]).all(), name


def test_segments_and_deferred_scans_get_them_too(segmented, tmp_path: Path) -> None:
    with serving(settings_in(tmp_path, mode="deferred")) as running, peer(running.server.port) as client:
        lines = messages(segmented)
        ends = [
            number for number, line in enumerate(segmented.lines) if int(line.head["flags"][0]) & (1 << 11)
        ]
        client.send([*opening(segmented, "sliding"), *lines[: ends[0] + 1]])
        assert series_of(client.wait_for_image()) == FRAME_SERIES
        client.send([*lines[ends[0] + 1 :], bytes(message_bytes(Close()))])
        client.finish()
    assert len(final(client.images)) == 2 * PHASES


class NoThread(threading.Thread):
    """What the system refuses."""

    def start(self) -> None:
        if self.name == "frames":
            raise RuntimeError("can't start new thread for Secret^Patient")
        super().start()


@pytest.mark.parametrize("where", ["image", "lines", "thread"])
def test_what_goes_wrong_with_a_frame_stays_with_it(
    where: str, by_frames, usual, tmp_path: Path, monkeypatch, caplog
) -> None:
    def fails(self, given) -> None:
        raise RuntimeError("no room for Secret^Patient")

    if where == "thread":
        monkeypatch.setattr(online.threading, "Thread", NoThread)
    else:
        monkeypatch.setattr(*{"image": (FrameMaker, "make"), "lines": (FrameWindow, "see")}[where], fails)
    with serving(settings_in(tmp_path)) as running:
        client = sent(running.server.port, by_frames, "sliding")
    assert (final(client.images), dicom(tmp_path)) == usual
    assert not early(client.images)
    assert caplog.text.count("a preliminary image failed (RuntimeError") == 1
    assert "Secret" not in caplog.text
    assert any("0 preliminary images of" in text for text in client.texts)
    assert not any(text.startswith("ERR") for text in client.texts)


def test_a_cut_stream_ends_the_thread_and_keeps_the_whole_slices(
    by_frames, tmp_path: Path, eventually: Callable[[Callable[[], object]], bool]
) -> None:
    first = [number for number, line in enumerate(by_frames.lines) if int(line.head["idx"]["slice"][0]) == 0]
    cut = first[-1] + 30
    with serving(settings_in(tmp_path)) as running:
        with peer(running.server.port) as client:
            client.send([*opening(by_frames, "sliding"), *messages(by_frames)[:cut]])
            client.wait_for_image()
        assert eventually(lambda: running.server.active == 0)
        assert not [thread for thread in threading.enumerate() if thread.name == "frames"]
    assert len(dicom(tmp_path)) == PHASES


def test_they_are_no_answers_to_those_who_keep_or_try_again(
    by_frames, usual, tmp_path: Path, monkeypatch
) -> None:
    """The first try fails after preliminary images have left; the second answers every slice."""
    real, shown = Node.slices, threading.Event()

    def fails_once(self, session, settings, **options):
        for done in real(self, session, settings, **options):
            if options.get("arriving"):
                assert shown.wait(PATIENCE_S)
                raise RuntimeError("the first try fails")
            yield done

    monkeypatch.setattr(Node, "slices", fails_once)
    settings = settings_in(tmp_path, record=str(tmp_path / "kept"))
    lines, half = messages(by_frames), middle(by_frames)
    with serving(settings) as running, peer(running.server.port) as client:
        client.send([*opening(by_frames, "sliding"), *lines[:half]])
        client.wait_for_image()
        shown.set()
        client.send([*lines[half:], bytes(message_bytes(Close()))])
        client.finish()
    assert (final(client.images), dicom(tmp_path)) == usual
    (capture,) = Captures(tmp_path / "kept", max_bytes=0).all()
    kept = list(read_messages(memoryview(capture.images.read_bytes()), close_optional=True))
    assert final([image for image in kept if isinstance(image, ImageMessage)]) == usual[0]
    assert len(kept) == 2 * PHASES


class Shown:
    """Where preliminary images go in place of a peer."""

    def __init__(self) -> None:
        self.frames: list[tuple[SliceIndex, int]] = []
        self.first = threading.Event()

    def __call__(self, images, *, phases, **options) -> bool:
        self.frames.append((images.index, phases[0]))
        self.first.set()
        return True


def test_of_frames_that_come_quicker_than_they_are_made_the_newest_is_made(by_frames, monkeypatch) -> None:
    begun, go = threading.Event(), threading.Event()
    real = FrameMaker.make

    def slow(self, frame):
        begun.set()
        assert go.wait(PATIENCE_S)
        return real(self, frame)

    monkeypatch.setattr(FrameMaker, "make", slow)
    shown, outcomes, all_told = Shown(), [], threading.Event()

    def on_frame(outcome: str, seconds: float | None) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 2 * PHASES:
            all_told.set()

    frames = Frames(Settings(), shown, on_frame=on_frame)
    with frames:

        def watch(placed) -> None:
            frames.watch(placed)
            if begun.is_set() or not placed.lines.head["flags"][-1] & (1 << 11):
                return
            assert begun.wait(PATIENCE_S)  # the first frame is being made before others come

        for _ in prepare(by_frames, watch=watch):
            pass
        go.set()
        assert all_told.wait(PATIENCE_S)
    assert [(index.slice, phase) for index, phase in shown.frames] == [(0, 0), (1, PHASES - 1)]
    assert frames.counts == {"sent": 2, "dropped": 2 * PHASES - 2}
    assert frames.told is not None
    assert frames.told.startswith(f"2 preliminary images of {2 * PHASES} frames, without")


def test_none_leaves_behind_the_images_of_its_slice(by_frames) -> None:
    shown = Shown()
    with Frames(Settings(), shown) as frames:
        frames.over(SliceIndex(slice=0))
        for _ in prepare(by_frames, watch=frames.watch):
            pass
        assert shown.first.wait(PATIENCE_S)
    assert {index.slice for index, _ in shown.frames} == {1}


def test_a_stream_has_them_between_its_slices(by_frames, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    head = bytes(message_bytes(HeaderXml(xml=by_frames.headers[0].xml)))
    lines, half = messages(by_frames), middle(by_frames)
    outputs: dict[str, bytes] = {}
    for frames in ("off", "sliding"):
        read, write = os.pipe()
        image = threading.Event()

        class Output:
            def __init__(self, image: threading.Event) -> None:
                self.data = bytearray()
                self._image = image

            def write(self, part: bytes) -> int:
                self.data += part
                self._image.set()
                return len(part)

            def flush(self) -> None:
                pass

        def feed(write: int = write, wait: bool = frames != "off", image: threading.Event = image) -> None:
            with os.fdopen(write, "wb", buffering=0) as pipe:
                pipe.write(b"".join([head, *lines[:half]]))
                assert not wait or image.wait(PATIENCE_S)
                pipe.write(b"".join([*lines[half:], bytes(message_bytes(Close()))]))

        feeder, output = threading.Thread(target=feed), Output(image)
        feeder.start()
        with os.fdopen(read, "rb") as source:
            summary = reconstruct_stream(
                source,
                output,
                settings.replace("server", frames=frames),  # type: ignore[arg-type]
            )
        feeder.join(PATIENCE_S)
        assert summary.error is None
        assert summary.images == 2 * PHASES
        outputs[frames] = bytes(output.data)
    images = {
        frames: [m for m in read_messages(memoryview(data)) if isinstance(m, ImageMessage)]
        for frames, data in outputs.items()
    }
    assert final(images["sliding"]) == final(images["off"])
    assert early(images["sliding"])
    assert series_of(images["sliding"][0]) == FRAME_SERIES
    assert not early(images["off"])


def test_a_chain_gets_them_behind_its_own_series(by_frames, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "node.toml").write_text(
        f'[server]\nout = "{tmp_path / "dicom"}"\n[recon]\nmethod = "view-sharing"\ncheck_trust = false\n'
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "node.toml"))
    config = ConfigText(
        text='<?xml version="1.0"?>\n<configuration><property name="frames" value="sliding"/>'
        '<property name="series" value="10"/></configuration>'
    )
    stopping, ports, listening = threading.Event(), [], threading.Event()

    def on_port(port: int) -> None:
        ports.append(port)
        listening.set()

    thread = threading.Thread(
        target=listen,
        args=(0, "acquisitions", node_handler),
        kwargs={"stopping": stopping, "on_port": on_port},
    )
    thread.start()
    try:
        assert listening.wait(PATIENCE_S)
        lines, half = messages(by_frames), middle(by_frames)
        with peer(ports[0]) as client:
            head = [
                bytes(message_bytes(config)),
                bytes(message_bytes(HeaderXml(xml=by_frames.headers[0].xml))),
            ]
            client.send([*head, *lines[:half]])
            assert series_of(client.wait_for_image()) == FRAME_SERIES + 9
            client.send([*lines[half:], bytes(message_bytes(Close()))])
            client.finish()
    finally:
        stopping.set()
        thread.join(PATIENCE_S)
    assert sum(series_of(image) == 10 for image in client.images) == 2 * PHASES


@pytest.fixture
def pair() -> Iterator[tuple[SocketTransport, socket.socket]]:
    """A transport with little patience and small buffers, and its peer."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with near, far:
        yield SocketTransport(near, send_seconds=0.1), far


def test_an_image_that_nobody_has_to_take_waits_without_a_limit(pair) -> None:
    transport, far = pair
    data, received = bytes(1 << 20), bytearray()
    asked = 0

    def read() -> None:
        while len(received) < len(data):
            received.extend(far.recv(1 << 16))

    reader = threading.Thread(target=read)

    def urgent() -> bool:
        nonlocal asked
        asked += 1
        if asked == 4:  # the system has waited in vain at least twice, 0.5 s each
            reader.start()
        return False

    transport.send(data, urgent=urgent)
    reader.join(PATIENCE_S)
    assert len(received) == len(data)
    with pytest.raises(ProtocolError, match="time limit"):
        transport.send(data)


def test_no_more_than_one_is_queued_and_none_behind_much_else(pair) -> None:
    transport, far = pair
    outbox = Outbox(transport, max_bytes=1 << 24)
    data, received = bytes(1 << 20), bytearray()
    assert outbox.put(data)
    assert outbox.offer(data)
    assert not outbox.offer(data)
    while len(received) < 2 * len(data):
        received.extend(far.recv(1 << 16))
    assert outbox.put(bytes(1 << 22))
    assert not outbox.offer(data)
    far.close()
    assert not outbox.finish()
    assert not outbox.offer(data)
    assert not outbox.put(data)


def test_the_series_of_preliminary_images_is_no_other() -> None:
    from recon_node.online import answer

    assert online.FRAME_SERIES not in (1, answer.WITHHELD_SERIES, answer.STAND_IN_SERIES)
