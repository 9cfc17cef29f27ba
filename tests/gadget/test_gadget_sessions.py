"""The gadget in recorded sessions of a real Gadgetron, and the ways a chain can be wrong."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import numpy as np
import pydicom
import pytest

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.errors import CalibrationError, ConfigError
from recon_node.core.scan import Readouts, Waveform
from recon_node.mrd.gadget_connection import LIMITS
from recon_node.mrd.gadget_frames import BUCKET_META
from recon_node.mrd.gadget_io import bucket_items, recon_data_items
from recon_node.mrd.messages import (
    ID,
    IMAGE_HEADER,
    WAVEFORM_HEADER,
    Close,
    ConfigText,
    HeaderXml,
    ImageMessage,
    MessageId,
    RemoteError,
    Text,
    message_bytes,
)
from recon_node.mrd.meta import parse_meta
from recon_node.mrd.wire import FrameReader, read_messages
from recon_node.online.gadget import listen, main, node_handler
from recon_node.online.properties import PROPERTIES

RECORDED = Path(__file__).parent.parent / "data" / "gadgetron_wire"
MORE = Path("../shared/gadgetron_wire")
SESSIONS = {
    "acquisitions": "acquisitions",
    "raw_acquisitions": "acquisitions",
    "buckets": "buckets",
    "recon_data": "recon_data",
}


def recording(name: str) -> bytes:
    """A recording of the repository, or one of the larger ones that may lie beside the checkout."""
    for folder in (RECORDED, MORE):
        if (folder / name).exists():
            return (folder / name).read_bytes()
    pytest.skip(f"the recording {name} is not beside this checkout")


def session_bytes(name: str) -> bytes:
    return recording(f"{name}_to_module.bin")


def images_of(stream: bytes) -> list[ImageMessage]:
    messages = list(read_messages(memoryview(stream)))
    assert isinstance(messages[-1], Close)
    return [m for m in messages if isinstance(m, ImageMessage)]


def remote_errors(stream: bytes) -> list[str]:
    messages = list(read_messages(memoryview(stream)))
    assert not any(isinstance(m, Text) for m in messages), "Gadgetron refuses TEXT from a module"
    assert isinstance(messages[-1], Close)
    return [m.text for m in messages if isinstance(m, RemoteError)]


def assert_same_pictures(got: list[ImageMessage], wanted: list[ImageMessage]) -> None:
    for mine, theirs in zip(got, wanted, strict=True):
        reference = theirs.data[0, 0] * np.sqrt(theirs.data.size)  # its inverse FFT was not orthonormal
        np.testing.assert_allclose(mine.data[0, 0], reference, atol=1e-5 * reference.max())


@pytest.mark.parametrize("name", sorted(SESSIONS))
def test_a_recorded_session_gives_the_images_that_the_recorded_module_made(name, listening, exchange) -> None:
    got = images_of(exchange(listening(SESSIONS[name]), session_bytes(name)))
    wanted = images_of(recording(f"{name}_from_module.bin"))
    assert [int(m.head["repetition"][0]) for m in got] == [0, 1]
    assert_same_pictures(got, wanted)


@pytest.mark.parametrize("name", ["acquisitions", "buckets", "recon_data"])
def test_the_image_is_the_phantom_the_right_way_up(name, listening, exchange) -> None:
    (image, _) = images_of(exchange(listening(SESSIONS[name]), session_bytes(name)))
    truth = np.load(RECORDED / "phantom.npy")
    picture = image.data[0, 0]
    flips = {
        "as it is": picture,
        "up down": picture[::-1],
        "left right": picture[:, ::-1],
        "both": picture[::-1, ::-1],
    }
    likeness = {name: np.corrcoef(p.ravel(), truth.ravel())[0, 1] for name, p in flips.items()}
    assert max(likeness, key=likeness.__getitem__) == "as it is"
    assert likeness["as it is"] > 0.95


@pytest.mark.parametrize("name", sorted(SESSIONS))
def test_the_gadget_runs_under_the_gadgetron_package(name: str, execute) -> None:
    answer, status, log = execute(SESSIONS[name], session_bytes(name))
    assert status == 0, log
    assert_same_pictures(images_of(answer), images_of(recording(f"{name}_from_module.bin")))


def with_method(name: str, method: str) -> bytes:
    """A recorded session whose chain asks for another method than SENSE."""
    data = session_bytes(name).replace(b'value="sense"', f'value="{method}"'.encode())
    grown = len(method) - len("sense")
    return data[:2] + (int.from_bytes(data[2:6], "little") + grown).to_bytes(4, "little") + data[6:]


def test_a_chain_may_ask_for_a_method_of_an_installed_package(
    listening, exchange, install, tmp_path: Path, monkeypatch
) -> None:
    code = """
import numpy as np
from recon_node.core.fft import centred_ifft

class Combined:
    def reconstruct(self, kspace, maps, text):
        return np.einsum("cyx,pcyx->pyx", maps.data[0].conj(), centred_ifft(kspace.data))
"""
    install("their_package", code, recon_node__methods="their-method = their_package:Combined")
    monkeypatch.chdir(tmp_path)
    answer = exchange(
        listening("acquisitions", make_handler=node_handler), with_method("acquisitions", "their-method")
    )
    assert remote_errors(answer) == []
    images = images_of(answer)
    assert [parse_meta(image.attributes)["ReconMethod"] for image in images] == [("their-method",)] * 2
    truth = np.load(RECORDED / "phantom.npy")
    assert all(np.corrcoef(image.data.ravel(), truth.ravel())[0, 1] > 0.95 for image in images)
    (first, _) = [pydicom.dcmread(file) for file in tmp_path.rglob("*.dcm")]
    assert first.ContributingEquipmentSequence[0].ManufacturerModelName == "their-method"
    assert "their_package 1.2" in first.ContributingEquipmentSequence[0].SoftwareVersions


@pytest.mark.parametrize("name", ["acquisitions", "buckets", "recon_data"])
def test_the_nodes_own_reconstruction_shows_the_phantom_and_writes_dicom(
    name: str, listening, exchange, tmp_path: Path, monkeypatch
) -> None:
    data = with_method(name, "zero-filled")
    truth = np.load(RECORDED / "phantom.npy")
    monkeypatch.chdir(tmp_path)
    answer = exchange(listening(SESSIONS[name], make_handler=node_handler), data)
    assert remote_errors(answer) == []
    images = images_of(answer)
    assert [int(m.head["repetition"][0]) for m in images] == [0, 1]
    for image in images:
        assert np.corrcoef(image.data.ravel(), truth.ravel())[0, 1] > 0.95
        assert parse_meta(image.attributes)["ReconMethod"] == ("zero-filled",)
    assert len(list(tmp_path.rglob("*.dcm"))) == 2


@pytest.mark.parametrize("name", ["buckets_accelerated", "recon_data_accelerated"])
def test_undersampled_sorted_data_gives_back_each_line_once_and_the_reference_lines(name: str) -> None:
    data = session_bytes(name)
    items = {MessageId.BUCKET: bucket_items, MessageId.RECON_DATA: recon_data_items}
    for repetition, frame in enumerate(f for f in FrameReader(memoryview(data)) if f.message_id in items):
        reference, imaging = list(items[frame.message_id](frame))
        assert sorted(imaging.head["idx"]["kspace_encode_step_1"]) == list(range(repetition, 64, 2))
        assert sorted(reference.head["idx"]["kspace_encode_step_1"]) == list(range(25 - repetition, 40, 2))
        assert (reference.head["flags"] & np.uint64(1 << 19)).all()
        assert imaging.samples.shape == (32, 4, 64)
        assert (np.abs(imaging.samples).max(axis=(1, 2)) > 0).all()


def test_buckets_and_buffers_of_one_scan_hold_the_same_samples() -> None:
    lines: dict[str, np.ndarray] = {}
    for name, items in (("buckets_accelerated", bucket_items), ("recon_data_accelerated", recon_data_items)):
        frame = next(f for f in FrameReader(memoryview(session_bytes(name))) if f.message_id >= 1000)
        (_, imaging) = list(items(frame))
        order = np.argsort(imaging.head["idx"]["kspace_encode_step_1"])
        lines[name] = imaging.samples[order]
    np.testing.assert_allclose(lines["buckets_accelerated"], lines["recon_data_accelerated"], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(SESSIONS))
def test_a_session_cut_anywhere_ends_in_bounded_time(name: str, listening, exchange) -> None:
    data = session_bytes(name)
    port = listening(SESSIONS[name])
    for cut in (1, 5, 100, 150, 2000, 2300, len(data) // 2, len(data) - 3):
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            sock.sendall(data[:cut])
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda s=sock: s.recv(1 << 16), b""))
        assert len(remote_errors(answer)) == 1


def test_the_module_ends_by_itself_when_gadgetron_vanishes(execute) -> None:
    _, status, log = execute("acquisitions", session_bytes("acquisitions")[:100_000], cut=True)
    assert "ends inside a message" in log
    assert status is not None


@pytest.mark.parametrize("target", ["acquisitions", "buckets", "recon_data"])
@pytest.mark.parametrize("name", ["acquisitions", "buckets", "recon_data"])
def test_a_chain_whose_messages_do_not_fit_the_target_is_told_which_target_to_use(
    target: str, name: str, listening, exchange
) -> None:
    answer = exchange(listening(target), session_bytes(name))
    if target == name:
        assert remote_errors(answer) == []
    else:
        assert "targets are acquisitions (ACQUISITION)" in remote_errors(answer)[0]


HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>8</x><y>4</y><z>1</z></matrixSize>
<fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>8</x><y>4</y><z>1</z></matrixSize>
<fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></reconSpace>
<encodingLimits/><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def some_readouts(count: int = 4) -> Readouts:
    head = np.zeros(count, ACQUISITION_HEADER)
    head["number_of_samples"], head["active_channels"] = 8, 2
    head["idx"]["kspace_encode_step_1"] = np.arange(count) % 4
    return Readouts(head=head, samples=np.ones((count, 2, 8), np.complex64))


WAVE = Waveform(
    waveform_id=1, time_stamp=3, sample_time_us=4.0, data=np.arange(6, dtype=np.uint32).reshape(2, 3)
)


def chain(*data, configuration: str = "<configuration/>", header: str = HEADER) -> bytes:
    start = (ConfigText(text=f'<?xml version="1.0"?>\n{configuration}'), HeaderXml(xml=header.encode()))
    return b"".join(bytes(message_bytes(m)) for m in (*start, *data, Close()))


def with_property(name: str, value: str) -> str:
    return f'<configuration><property name="{name}" value="{value}"/><comment>text</comment></configuration>'


def test_waveforms_and_images_are_passed_on_unchanged(listening, exchange) -> None:
    seen = []
    image = ImageMessage(
        head=np.zeros(1, IMAGE_HEADER), attributes="", data=np.ones((1, 1, 2, 3), np.float32)
    )
    port = listening(handler=seen.extend)
    answer = exchange(port, chain(WAVE, some_readouts(), image, Text(text="hello"), WAVE))
    assert answer == b"".join(bytes(message_bytes(m)) for m in (WAVE, image, WAVE, Close()))
    assert [type(item) for item in seen] == [Waveform, Readouts, Waveform]


def test_in_both_mode_the_data_is_passed_on_beside_the_images(listening, exchange) -> None:
    answer = exchange(listening(), chain(some_readouts(), configuration=with_property("mode", "both")))
    kinds = [type(m) for m in read_messages(memoryview(answer))]
    assert kinds == [Readouts, ImageMessage, Close]


def test_images_take_the_series_index_that_the_chain_gives_them(listening, exchange) -> None:
    answer = exchange(listening(), chain(some_readouts(), configuration=with_property("series", "101")))
    (image,) = images_of(answer)
    assert image.head["image_series_index"][0] == 101


def test_in_pass_through_mode_everything_is_passed_on_and_nothing_reconstructed(listening, exchange) -> None:
    def never(properties):
        raise AssertionError("pass-through needs no reconstruction")

    port = listening(make_handler=never)
    answer = exchange(port, chain(some_readouts(), WAVE, configuration=with_property("mode", "pass-through")))
    assert answer == b"".join(bytes(message_bytes(m)) for m in (some_readouts(), WAVE, Close()))


def test_properties_reach_the_handler_and_other_children_are_ignored(listening, exchange, rss) -> None:
    seen = []
    port = listening(make_handler=lambda properties: seen.append(dict(properties)) or rss)
    exchange(port, chain(some_readouts(), configuration=with_property("method", "sense")))
    exchange(port, chain(some_readouts(), configuration=""))
    assert seen == [{"method": "sense"}, {}]


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (chain(configuration=with_property("methud", "sense")), "unknown property 'methud'; known are"),
        (chain(configuration=with_property("mode", "fast")), "mode is 'fast'"),
        (chain(configuration=with_property("series", "0")), "series is '0'"),
        (chain(configuration="<configuration><property/></configuration>"), "<property name"),
        (chain(header="no xml"), "XML"),
        (message_bytes(Close()), "expected CONFIG_TEXT"),
        (bytes(message_bytes(some_readouts())) + b"\x04\0", "expected CONFIG_TEXT"),
        (chain()[:-2] + b"\x63\x27", "10083 is unknown"),
        (chain()[:-2] + ID.pack(MessageId.ACQUISITION) + b"\xff" * 340, "more than the limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_reported_as_gadgetron_understands_it(
    sent: bytes, complaint: str, listening, exchange
) -> None:
    limits = dataclasses.replace(LIMITS, linger_seconds=0.3)
    (error,) = remote_errors(exchange(listening(limits=limits), bytes(sent)))
    assert complaint in error
    assert error.startswith("recon-node: ")


def test_a_bucket_that_announces_more_than_the_limit_is_refused(listening, exchange) -> None:
    limits = dataclasses.replace(LIMITS, linger_seconds=0.3)
    sent = chain()[:-2] + ID.pack(MessageId.BUCKET) + b"\xff" * 104
    (error,) = remote_errors(exchange(listening("buckets", limits=limits), sent))
    assert "more than the limit" in error


def test_an_unknown_property_names_every_known_one(listening, exchange) -> None:
    (error,) = remote_errors(exchange(listening(), chain(configuration=with_property("x", "y"))))
    assert all(name in error for name in PROPERTIES)


@pytest.mark.parametrize(
    "failure", [CalibrationError("no calibration lines in slice 0"), KeyError("Secret^Name")]
)
def test_a_failing_reconstruction_is_reported_although_much_input_is_left(
    failure: Exception, listening, exchange
) -> None:
    def fails(session) -> None:
        next(iter(session))
        raise failure

    many = [some_readouts(4000) for _ in range(40)]
    (error,) = remote_errors(exchange(listening(handler=fails), chain(*many)))
    assert "Secret" not in error
    expected = (
        "no calibration lines" if isinstance(failure, CalibrationError) else "internal error (KeyError)"
    )
    assert expected in error


def test_images_sent_before_a_failure_are_kept(listening, exchange, rss) -> None:
    def fails(session) -> None:
        rss(session)
        raise CalibrationError("too late")

    messages = list(read_messages(memoryview(exchange(listening(handler=fails), chain(some_readouts())))))
    assert [type(m) for m in messages] == [ImageMessage, RemoteError, Close]
    assert parse_meta(messages[0].attributes)["GADGETRON_DataRole"] == ("Image",)


def test_waveforms_in_a_bucket_are_given_first() -> None:
    readouts = some_readouts(2)
    meta = np.zeros(1, BUCKET_META)
    meta["data"] = (2, 680, readouts.samples.nbytes, 0)
    meta["waveforms"] = (1, WAVEFORM_HEADER.itemsize, WAVE.data.nbytes)
    wave = bytes(message_bytes(WAVE))[2:]
    parts = (meta.tobytes(), readouts.head.tobytes(), readouts.samples.tobytes(), wave)
    (frame,) = FrameReader(memoryview(ID.pack(MessageId.BUCKET) + b"".join(parts)), close_optional=True)
    first, second = bucket_items(frame)
    np.testing.assert_array_equal(first.data, WAVE.data)
    np.testing.assert_array_equal(second.samples, readouts.samples)


def test_listening_for_an_unknown_target_or_on_a_used_port_is_one_clear_error(listening, capsys) -> None:
    with pytest.raises(ConfigError, match="unknown target"):
        listen(0, "images")
    port = listening()
    assert main([str(port), "acquisitions"]) == 2
    assert "cannot listen on" in capsys.readouterr().err
