"""The MRD server and its client: scans go in, images come out while acquisitions still arrive."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from recon_node.core.errors import ConfigError, SourceError, TruncatedStream
from recon_node.core.scan import Readouts, Waveform
from recon_node.files.image_store import load_images
from recon_node.mrd.messages import (
    Close,
    ConfigFile,
    ConfigText,
    HeaderXml,
    ImageMessage,
    MessageId,
    Text,
    message_bytes,
)
from recon_node.mrd.server import MrdServer, ServerLimits
from recon_node.mrd.wire import read_messages
from recon_node.offline.send import send_scan

RECORDED = Path("../shared/gadgetron_wire")
needs_recorded = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="the recorded sessions are not beside this checkout"
)


def collect(sock: socket.socket) -> list:
    with sock, sock.makefile("rb") as file:
        return list(read_messages(memoryview(file.read()), close_optional=True))


def exchange(server: MrdServer, *messages) -> list:
    """Send messages and give back everything the server answers."""
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    sock.sendall(b"".join(bytes(message_bytes(m)) if not isinstance(m, bytes) else m for m in messages))
    return collect(sock)


def errors(answers: list) -> list[str]:
    return [m.text for m in answers if isinstance(m, Text) and m.text.startswith("ERR")]


def test_a_file_that_is_sent_comes_back_as_images(serve, scan_file: Path, tmp_path: Path, helpers) -> None:
    server = serve()
    out = tmp_path / "images.h5"
    summary = send_scan(scan_file, port=server.port, out=out)
    assert summary.ok
    assert (summary.readouts, summary.images) == (32, 2)
    images = load_images(out)
    with ismrmrd.Dataset(str(scan_file), "dataset", create_if_needed=False) as dataset:
        kspace = np.stack([dataset.read_acquisition(i).data for i in range(16)], axis=1)
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    expected = np.sqrt((np.abs(image) ** 2).sum(0))[:, 6:18]
    np.testing.assert_allclose(images[0].data[0, 0], expected, rtol=1e-4)


def test_images_leave_while_acquisitions_still_arrive(serve, helpers) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        for message in (ConfigFile(name="default"), HeaderXml(xml=helpers.header_xml().encode())):
            sock.sendall(message_bytes(message))
        sock.sendall(message_bytes(helpers.some_readouts(16)))
        sock.settimeout(20)
        first = sock.recv(1 << 16)
        assert int.from_bytes(first[:2], "little") == MessageId.IMAGE
        sock.sendall(message_bytes(Close()))
        while sock.recv(1 << 16):
            pass


@needs_recorded
def test_the_recorded_gadgetron_client_gets_its_images(serve) -> None:
    server = serve()
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    sock.sendall((RECORDED / "client_to_server.bin").read_bytes())
    answers = collect(sock)
    got = [m for m in answers if isinstance(m, ImageMessage)]
    theirs = read_messages(memoryview((RECORDED / "raw_acquisitions_from_module.bin").read_bytes()))
    wanted = [m for m in theirs if isinstance(m, ImageMessage)]
    assert isinstance(answers[-1], Close)
    for mine, recorded in zip(got, wanted, strict=True):
        reference = recorded.data[0, 0]
        reference = reference[:, (reference.shape[1] - 48) // 2 :][:, :48]
        scale = np.vdot(mine.data, reference) / np.vdot(mine.data, mine.data)
        np.testing.assert_allclose(scale * mine.data[0, 0], reference, atol=1e-4 * reference.max())


def test_a_configuration_from_the_network_is_only_looked_up_by_name(serve, helpers) -> None:
    server = serve()
    for name in ("os.system", "../../etc/passwd", "/etc/passwd", "default; rm", "x" * 500):
        answers = exchange(
            server, ConfigFile(name=name), HeaderXml(xml=helpers.header_xml().encode()), Close()
        )
        assert any("unknown configuration" in e and "knows default" in e for e in errors(answers))
        assert isinstance(answers[-1], Close)


def test_properties_of_xml_and_json_reach_the_handler(serve, helpers) -> None:
    seen = []
    server = serve(
        {"default": lambda s: seen.append((s.config, list(s))), "other": lambda s: seen.append(s.config)}
    )
    xml = HeaderXml(xml=helpers.header_xml().encode())
    chain = ConfigText(text='<configuration><property name="method" value="sense"/><x/></configuration>')
    parameters = Text(text='{"parameters": {"weights": "small", "check": true, "iterations": 5}}')
    assert errors(exchange(server, chain, xml, parameters, helpers.some_readouts(2), Close())) == []
    config, blocks = seen[0]
    assert dict(config.properties) == {
        "method": "sense",
        "weights": "small",
        "check": "true",
        "iterations": "5",
    }
    assert sum(map(len, blocks)) == 2
    exchange(server, ConfigFile(name="other.xml"), xml, Close())
    assert seen[1].name == "other"
    exchange(server, xml, Text(text='{"parameters": {"config": "other"}}'), Close())
    assert seen[2].name == "other"


def test_an_openrecon_scanner_gets_the_configuration_of_its_card(serve, helpers) -> None:
    """It asks for the configuration openrecon, and ends its JSON with a zero byte."""
    seen = []
    server = serve({"default": lambda s: seen.append(s.config), "other": lambda s: seen.append(s.config)})
    xml = HeaderXml(xml=helpers.header_xml().encode())
    for name in ("default", "other"):
        card = Text(text=f'{{"parameters": {{"config": "{name}", "method": "sense"}}}}\0')
        assert errors(exchange(server, ConfigFile(name="openrecon"), xml, card, Close())) == []
    exchange(server, ConfigFile(name="openrecon"), xml, Close())
    exchange(server, ConfigFile(name="other"), xml, Text(text='{"config": "default"}'), Close())
    assert [config.name for config in seen] == ["default", "other", "default", "default"]
    assert [dict(config.properties) for config in seen] == [{"method": "sense"}] * 2 + [{}] * 2


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ([Close()], "no ISMRMRD header"),
        (["readouts"], "no ISMRMRD header"),
        (
            [ConfigText(text="<configuration><stream><gadget/></stream></configuration>")],
            "only Gadgetron can run",
        ),
        ([ConfigText(text="<configuration>")], "well-formed"),
        ([ConfigText(text="<html/>")], "<configuration>"),
        ([ConfigText(text="<configuration><property name='a'/></configuration>")], "<property name"),
        ([HeaderXml(xml=b"this is no xml")], "XML"),
        (["header", "header"], "second ISMRMRD header"),
        (["header", "readouts", "header"], "HeaderXml among the data"),
        (["header", Text(text='{"parameters": {"a": [1]}}')], "is a list"),
        (["header", Text(text='{"parameters": {"method": "sense"')], "malformed JSON"),
        (["header", Text(text='{"parameters": {"method": "sense", "method": "kt"}}')], "malformed JSON"),
        ([ConfigText(text='{"parameters": {"method": "sense",}}')], "malformed JSON"),
        ([ConfigText(text='{"parameters": ' + '{"a":' * 2000)], "malformed JSON"),
        (["header", b"\x63\x27" + b"\0" * 100], "10083 is unknown"),
        ([b"\x03\0" + b"\xff\xff\xff\xff"], "more than the limit"),
        (["header", b"\xf0\x03" + b"\xff" * 340], "more than the limit"),
    ],
)
def test_each_violation_is_answered_with_err_and_close_and_the_server_goes_on(
    serve, scan_file: Path, helpers, sent: list, complaint: str
) -> None:
    server = serve(list)
    named = {"header": HeaderXml(xml=helpers.header_xml().encode()), "readouts": helpers.some_readouts(2)}
    answers = exchange(server, *(named.get(m, m) if isinstance(m, str) else m for m in sent))
    (error,) = errors(answers)
    assert complaint in error
    assert error.endswith("\n")
    assert "\n" not in error[:-1]
    assert isinstance(answers[-1], Close)
    assert send_scan(scan_file, port=server.port).ok


def test_a_crash_in_one_scan_is_reported_without_its_inner_text_and_touches_no_other(
    serve, scan_file, helpers
) -> None:
    def handler(session) -> None:
        if session.config.properties:
            raise KeyError("Secret^Patient")
        helpers.rss_handler(session)

    server = serve(handler)
    answers = exchange(
        server,
        ConfigText(text='<configuration><property name="a" value="b"/></configuration>'),
        HeaderXml(xml=helpers.header_xml().encode()),
        helpers.some_readouts(2),
        Close(),
    )
    (error,) = errors(answers)
    assert "internal error" in error
    assert "Secret" not in error
    assert send_scan(scan_file, port=server.port).images == 2


def test_scans_run_side_by_side_and_a_waiting_one_is_told_so(serve, scan_file: Path, helpers) -> None:
    both = threading.Barrier(2, timeout=20)
    release = threading.Event()
    running = []

    def handler(session) -> None:
        running.append(session.scan_id)
        if len(running) <= 2:
            both.wait()
            release.wait(20)
        helpers.rss_handler(session)

    server = serve(handler, limits=ServerLimits(scans=2, waiting=1))
    summaries: list = []
    threads = [
        threading.Thread(target=lambda: summaries.append(send_scan(scan_file, port=server.port)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert helpers.eventually(lambda: len(running) == 2)
    told: list[str] = []
    third = threading.Thread(
        target=lambda: summaries.append(send_scan(scan_file, port=server.port, on_text=told.append))
    )
    third.start()
    assert helpers.eventually(lambda: any("waiting" in text for text in told))
    refused = send_scan(scan_file, port=server.port)
    assert "busy" in refused.errors[0]
    release.set()
    for thread in (*threads, third):
        thread.join(20)
    assert [s.images for s in summaries] == [2, 2, 2]
    assert sum(any("waiting" in t for t in s.texts) for s in summaries) == 1


def test_a_client_that_reads_nothing_until_it_has_sent_everything_does_not_deadlock(serve, helpers) -> None:
    """Both directions carry more than the socket buffers hold."""

    def echo(session) -> None:
        for _ in session:
            session.reply(helpers.rss(np.ones((1, 512, 1024), np.complex64), session.headers[0], 0))

    server = serve(echo)
    many = [helpers.some_readouts(1, coils=64, samples=2048) for _ in range(40)]
    answers = exchange(server, HeaderXml(xml=helpers.header_xml(1024, 512).encode()), *many, Close())
    assert sum(isinstance(m, ImageMessage) for m in answers) >= 1
    assert isinstance(answers[-1], Close)


def test_a_vanished_client_is_seen_as_a_truncated_scan_and_its_handler_may_finish(
    serve, scan_file, helpers
) -> None:
    finished = threading.Event()
    events = []

    def handler(session) -> None:
        try:
            list(session)
        except TruncatedStream:
            image = helpers.rss(np.ones((1, 16, 24), np.complex64), session.headers[0], 0)
            assert session.reply(image) in {True, False}
            finished.set()
            raise

    server = serve(handler, on_event=lambda name, event: events.append((name, dict(event))))
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        for message in (HeaderXml(xml=helpers.header_xml().encode()), helpers.some_readouts(3)):
            sock.sendall(message_bytes(message))
    assert finished.wait(20)
    assert helpers.eventually(lambda: server.active == 0)
    ended = [event for name, event in events if name == "finished"]
    assert [(e["outcome"], e["readouts"]) for e in ended] == [("truncated", 3)]


def test_a_silent_connection_is_given_up_and_takes_no_turn(serve, scan_file: Path, helpers) -> None:
    server = serve(limits=ServerLimits(scans=1, handshake_seconds=0.6, linger_seconds=0.2))
    with socket.create_connection(("127.0.0.1", server.port), 20) as silent:
        assert send_scan(scan_file, port=server.port).ok
        silent.settimeout(20)
        answer = silent.makefile("rb").read()
    assert b"ERR" in answer
    assert b"time limit" in answer


def test_a_client_that_drips_bytes_is_given_up_in_bounded_time(serve, helpers) -> None:
    server = serve(limits=ServerLimits(handshake_seconds=0.6, linger_seconds=0.2))
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        stream = message_bytes(HeaderXml(xml=helpers.header_xml().encode()))
        try:
            for at in range(len(stream)):
                sock.send(stream[at : at + 1])
                sent += 1
                time.sleep(0.02)
        except OSError:
            pass
    assert sent < len(stream)
    assert helpers.eventually(lambda: server.active == 0)


def test_a_scan_beyond_the_byte_limit_is_refused(serve, helpers) -> None:
    server = serve(list, limits=ServerLimits(scan_bytes=100_000))
    answers = exchange(
        server, HeaderXml(xml=helpers.header_xml().encode()), helpers.some_readouts(400), Close()
    )
    assert "100000 bytes" in errors(answers)[0]


def test_only_allowed_peers_are_served(serve, scan_file: Path) -> None:
    server = serve(allowed_peers=("192.0.2.0/24",))
    assert "allowed peers" in send_scan(scan_file, port=server.port).errors[0]
    assert send_scan(scan_file, port=serve(allowed_peers=("127.0.0.0/8",)).port).ok
    with pytest.raises(ConfigError, match="no address or network"):
        MrdServer({}, port=0, allowed_peers=("scanner",))


def test_images_that_arrive_are_sent_back_unchanged(serve, helpers) -> None:
    server = serve(list)
    picture = ismrmrd.Image.from_array(np.arange(12, dtype=np.int16).reshape(3, 4))
    raw = b"\xfe\x03" + picture.to_bytes()
    answers = exchange(server, HeaderXml(xml=helpers.header_xml().encode()), raw, Close())
    (image,) = [m for m in answers if isinstance(m, ImageMessage)]
    assert message_bytes(image) == raw


def test_waveforms_reach_the_handler(serve, helpers) -> None:
    seen = []
    server = serve(seen.extend)
    wave = Waveform(waveform_id=0, time_stamp=5, sample_time_us=100.0, data=np.ones((2, 3), np.uint32))
    exchange(server, HeaderXml(xml=helpers.header_xml().encode()), wave, helpers.some_readouts(1), Close())
    assert [type(item) for item in seen] == [Waveform, Readouts]


def refused_or_unreachable(path: Path, port: int) -> bool:
    try:
        summary = send_scan(path, port=port)
    except SourceError:
        return True
    return "shutting down" in summary.errors[0]


def test_stopping_lets_running_scans_finish_and_takes_no_new_ones(serve, scan_file: Path, helpers) -> None:
    begun, release = threading.Event(), threading.Event()

    def handler(session) -> None:
        begun.set()
        release.wait(20)
        helpers.rss_handler(session)

    server = serve(handler)
    summaries: list = []
    client = threading.Thread(target=lambda: summaries.append(send_scan(scan_file, port=server.port)))
    client.start()
    assert begun.wait(20)
    assert server.accepting
    stopped: list[bool] = []
    stopper = threading.Thread(target=lambda: stopped.append(server.stop(drain_seconds=20)))
    stopper.start()
    assert helpers.eventually(lambda: not server.accepting)
    assert refused_or_unreachable(scan_file, server.port)
    release.set()
    stopper.join(20)
    client.join(20)
    assert stopped == [True]
    assert summaries[0].images == 2


def test_a_scan_that_never_ends_is_cut_off_when_the_server_stops(serve, helpers) -> None:
    server = serve(list, limits=ServerLimits(linger_seconds=0.5))
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        sock.sendall(message_bytes(HeaderXml(xml=helpers.header_xml().encode())))
        assert helpers.eventually(lambda: server.active == 1)
        started = time.monotonic()
        assert server.stop(drain_seconds=0.1) is False
        assert time.monotonic() - started < 25
    assert server.active == 0


def test_a_port_in_use_is_one_clear_error(serve) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        MrdServer({}, port=serve().port)


def test_no_server_at_the_address_is_one_clear_error(scan_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match=f"no MRD server at 127.0.0.1:{port}"):
        send_scan(scan_file, port=port)


def test_the_client_reports_what_the_server_says_even_while_it_still_sends(
    serve, tmp_path: Path, helpers
) -> None:
    def handler(session) -> None:
        session.text("slice 1 of 2")
        session.text("WRN noise scan is missing")
        raise SourceError("calibration lines are missing")

    path = helpers.write_scan(tmp_path / "long.h5", samples=2048, lines=64, repetitions=4)
    summary = send_scan(path, port=serve(handler).port)
    assert summary.errors == ("calibration lines are missing",)
    assert summary.warnings == ("noise scan is missing",)
    assert summary.texts == ("slice 1 of 2",)
    assert not summary.ok


def test_real_time_pacing_keeps_the_intervals_of_the_time_stamps(serve, tmp_path: Path, helpers) -> None:
    path = helpers.write_scan(tmp_path / "slow.h5", repetitions=1, step=10)
    summary = send_scan(path, port=serve().port, realtime=True)
    assert summary.ok
    assert summary.seconds >= 15 * 10 * 2.5e-3


def test_a_server_that_hangs_up_is_one_clear_error(scan_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(SourceError, match=r"went away|broke"):
            send_scan(scan_file, port=listener.getsockname()[1])
        thread.join()


def test_logs_of_a_scan_hold_no_patient_data(serve, scan_file: Path, caplog, helpers) -> None:
    caplog.set_level("DEBUG")
    server = serve()
    send_scan(scan_file, port=server.port)
    exchange(server, HeaderXml(xml=helpers.header_xml().encode() + b"<"), Close())
    assert caplog.records
    text = "\n".join(record.getMessage() + repr(record.__dict__) for record in caplog.records)
    assert "SECRET" not in text.upper()


def test_a_client_made_of_the_ismrmrd_package_is_served(serve, scan_file: Path) -> None:
    sock = socket.create_connection(("127.0.0.1", serve().port), 20)
    with sock, sock.makefile("rwb") as file, ismrmrd.Dataset(str(scan_file), "dataset", False) as dataset:
        out = ismrmrd.ProtocolSerializer(file)
        out.serialize(ismrmrd.serialization.ConfigFile("default"))
        out.serialize(ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header()))
        for number in range(dataset.number_of_acquisitions()):
            out.serialize(dataset.read_acquisition(number))
        out.close()
        images = list(ismrmrd.ProtocolDeserializer(file).deserialize())
    assert [image.repetition for image in images] == [0, 1]
    assert images[0].data.shape == (1, 1, 16, 12)
    assert images[0].meta["DataRole"] == "Image"


def test_a_chain_that_counts_on_its_own_noise_adjustment_is_refused(serve, scan_file, helpers) -> None:
    server = serve()
    header = HeaderXml(xml=helpers.header_xml().encode())
    for name, refused in (("buckets", True), ("acquisitions", False)):
        chain = Path(f"gadget_configs/recon_node_{name}.xml").read_text()
        answers = exchange(server, ConfigText(text=chain), header, Close())
        assert any("NoiseAdjustGadget" in error for error in errors(answers)) is refused
