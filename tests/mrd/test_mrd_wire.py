"""The MRD wire: what is written is read back, and no peer can hang, crash or flood the reader."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import ismrmrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import ProtocolError, SourceError, TruncatedStream
from recon_node.core.scan import Readouts, Waveform
from recon_node.mrd.messages import ID, IMAGE_HEADER, LENGTH32, message_bytes
from recon_node.mrd.wire import (
    Close,
    ConfigFile,
    ConfigText,
    FrameReader,
    HeaderXml,
    ImageMessage,
    MessageId,
    MessageWriter,
    Opaque,
    RemoteError,
    Text,
    WireLimits,
    read_messages,
)

RECORDED = [Path(__file__).parent.parent / "data" / "gadgetron_wire", Path("../shared/gadgetron_wire")]
FOREVER = float("inf")


class Dripping:
    """A byte source that hands over at most `step` bytes at a time, then ends."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data = memoryview(data)
        self.step = step

    def receive(self, room: memoryview, deadline: float) -> int:
        size = min(self.step, len(room), len(self.data))
        room[:size] = self.data[:size]
        self.data = self.data[size:]
        return size


def some_readouts(count: int = 5, coils: int = 3, samples: int = 7, seed: int = 0) -> Readouts:
    rng = np.random.default_rng(seed)
    head = np.zeros(count, ACQUISITION_HEADER)
    head["version"] = 1
    head["number_of_samples"] = samples
    head["active_channels"] = coils
    head["scan_counter"] = np.arange(count)
    head["flags"] = AcquisitionFlag.LAST_IN_SLICE
    head["idx"]["kspace_encode_step_1"] = np.arange(count)
    data = rng.normal(size=(count, coils, samples, 2)).astype(np.float32).view(np.complex64)[..., 0]
    return Readouts(head=head, samples=np.ascontiguousarray(data))


def some_image() -> ImageMessage:
    head = np.zeros(1, IMAGE_HEADER)
    head["slice"] = 3
    data = np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)
    return ImageMessage(head=head, attributes="<ismrmrdMeta/>", data=data)


def every_message() -> list[object]:
    waveform = Waveform(
        waveform_id=1, time_stamp=77, sample_time_us=2500.0, data=np.arange(8, dtype=np.uint32).reshape(2, 4)
    )
    return [
        ConfigFile(name="default"),
        ConfigText(text="<configuration/>"),
        HeaderXml(xml=b"<ismrmrdHeader/>"),
        some_readouts(),
        waveform,
        some_readouts(count=2, samples=9),
        some_image(),
        Text(text="slice 3 of 10"),
        RemoteError(text="no such method"),
        Opaque(message_id=MessageId.NDARRAY, payload=b"\x05\0\0\0\x01\0" + b"\x02" + b"\0" * 7 + b"\0" * 8),
        Close(),
    ]


def stream_of(messages: list[object]) -> bytes:
    file = io.BytesIO()
    writer = MessageWriter(file.write)
    for message in messages:
        writer.write(message)
    return file.getvalue()


def assert_same(got: object, wanted: object) -> None:
    assert type(got) is type(wanted)
    if isinstance(wanted, Readouts):
        assert isinstance(got, Readouts)
        assert got.head.tobytes() == wanted.head.tobytes()
        np.testing.assert_array_equal(got.samples, wanted.samples)
    elif isinstance(wanted, (Waveform, ImageMessage)):
        assert bytes(message_bytes(got)) == bytes(message_bytes(wanted))
    else:
        assert got == wanted


@pytest.mark.parametrize("step", [1, 7, 342, 1000, 1 << 20])
def test_every_message_comes_back_as_it_was_written_however_the_bytes_arrive(step: int) -> None:
    wanted = every_message()
    data = stream_of(wanted)
    whole = list(read_messages(Dripping(data, 1 << 20)))
    for got, message in zip(whole, wanted, strict=True):
        assert_same(got, message)
    dripped = list(read_messages(Dripping(data, step)))
    assert stream_of(dripped) == data


def test_a_memory_map_and_a_stream_give_the_same_messages() -> None:
    data = stream_of(every_message())
    assert stream_of(list(read_messages(memoryview(data)))) == data


def test_consecutive_acquisitions_of_one_shape_become_one_block() -> None:
    data = stream_of([some_readouts(count=40), some_readouts(count=3, coils=4), Close()])
    blocks = [m for m in read_messages(memoryview(data)) if isinstance(m, Readouts)]
    assert [b.samples.shape for b in blocks] == [(40, 3, 7), (3, 4, 7)]


def test_a_block_never_grows_above_the_limit_of_a_run() -> None:
    data = stream_of([some_readouts(count=40), Close()])
    size = len(message_bytes(some_readouts(count=1)))
    blocks = list(read_messages(memoryview(data), limits=WireLimits(run_bytes=10 * size)))[:-1]
    assert [len(b) for b in blocks] == [10, 10, 10, 10]


def test_a_single_line_is_handed_on_before_the_next_arrives() -> None:
    line = bytes(message_bytes(some_readouts(count=1)))
    reader = iter(read_messages(Dripping(line, 1 << 20)))
    assert len(next(reader)) == 1
    with pytest.raises(TruncatedStream, match="without a CLOSE"):
        next(reader)


def test_acquisitions_with_a_trajectory_are_read_without_it() -> None:
    acquisition = ismrmrd.Acquisition.from_array(
        np.arange(12, dtype=np.complex64).reshape(2, 6), np.ones((6, 2), np.float32)
    )
    data = ID.pack(MessageId.ACQUISITION) + acquisition.to_bytes()
    (block,) = read_messages(memoryview(data), close_optional=True)
    np.testing.assert_array_equal(block.samples[0], acquisition.data)


def test_the_ismrmrd_package_reads_what_is_written_here() -> None:
    wanted = [m for m in every_message() if not isinstance(m, (HeaderXml, RemoteError, Opaque))]
    got = list(ismrmrd.ProtocolDeserializer(io.BytesIO(stream_of(wanted))).deserialize())
    readouts = wanted[2]
    assert got[0] == "default"
    np.testing.assert_array_equal(np.stack([a.data for a in got[2:7]]), readouts.samples)
    waveform, image = got[7], got[10]
    assert (waveform.time_stamp, waveform.waveform_id, waveform.sample_time_us) == (77, 1, 2500.0)
    np.testing.assert_array_equal(waveform.data, wanted[3].data)
    np.testing.assert_array_equal(image.data, some_image().data)
    assert image.slice == 3


def test_what_the_ismrmrd_package_writes_is_read_here() -> None:
    file = io.BytesIO()
    acquisition = ismrmrd.Acquisition.from_array(np.ones((2, 6), np.complex64))
    image = ismrmrd.Image.from_array(np.arange(6, dtype=np.uint16).reshape(2, 3))
    with ismrmrd.ProtocolSerializer(file) as out:
        for item in (ismrmrd.serialization.ConfigFile("default"), acquisition, image, "hello"):
            out.serialize(item)
    name, block, picture, text, close = read_messages(memoryview(file.getvalue()))
    assert name == ConfigFile(name="default")
    np.testing.assert_array_equal(block.samples[0], acquisition.data)
    np.testing.assert_array_equal(picture.data, image.data)
    assert (text, close) == (Text(text="hello"), Close())


@pytest.mark.parametrize("path", [p for f in RECORDED for p in sorted(f.glob("*.bin"))], ids=lambda p: p.name)
def test_recorded_gadgetron_sessions_are_framed_to_their_last_byte(path: Path) -> None:
    data = path.read_bytes()
    raw = b"".join(bytes(frame.raw) for frame in FrameReader(Dripping(data, 5000)))
    assert raw == data


def test_a_stream_cut_at_any_byte_is_reported_as_truncated() -> None:
    data = stream_of(every_message())
    for cut in range(len(data)):
        with pytest.raises(TruncatedStream):
            list(read_messages(memoryview(data[:cut])))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_stream_with_changed_bytes_gives_messages_or_one_clear_error(data: st.DataObject) -> None:
    stream = bytearray(stream_of(every_message()))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(stream)) in {"messages", "one clear error"}


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=3000), st.sampled_from([i for i in MessageId if i is not MessageId.CLOSE]))
def test_random_payloads_give_messages_or_one_clear_error(body: bytes, message_id: MessageId) -> None:
    assert outcome(ID.pack(message_id) + body) in {"messages", "one clear error"}


def outcome(stream: bytes) -> str:
    """What reading does; any exception that is not a `SourceError` gets through and fails the test."""
    try:
        list(read_messages(memoryview(stream)))
    except SourceError as error:
        return "one clear error" if "\n" not in str(error) else "many lines"
    return "messages"


@pytest.mark.parametrize(
    "start",
    [
        ID.pack(MessageId.CONFIG_TEXT) + LENGTH32.pack(0xFFFFFFFF),
        ID.pack(MessageId.HEADER) + LENGTH32.pack(0xFFFFFFFF),
        ID.pack(MessageId.TEXT) + LENGTH32.pack(0xFFFFFFFF),
        ID.pack(MessageId.ERROR) + b"\xff" * 8,
        ID.pack(MessageId.ACQUISITION) + b"\xff" * 340,
        ID.pack(MessageId.WAVEFORM) + b"\xff" * 40,
        ID.pack(MessageId.IMAGE) + b"\0\0\x05\0" + b"\xff" * 202,
        ID.pack(MessageId.BUCKET) + b"\xff" * 104,
        ID.pack(MessageId.RECON_DATA) + b"\x01" + b"\0" * 7 + b"\x02" + b"\0" * 7 + b"\xff" * 16,
        ID.pack(MessageId.IMAGE_ARRAY) + b"\xff" * 8,
        ID.pack(MessageId.NDARRAY) + b"\x05\0\0\0\x02\0" + b"\xff" * 16,
    ],
    ids=lambda start: MessageId(ID.unpack(start[:2])[0]).name,
)
def test_a_huge_length_is_refused_before_memory_is_taken(start: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=r"limit|dimensions"):
            list(read_messages(Dripping(start + b"\0" * 64, 1 << 20)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_memory_grows_with_the_bytes_that_arrive_not_with_the_length_announced() -> None:
    start = ID.pack(MessageId.HEADER) + LENGTH32.pack(900 << 20) + b"x" * 1000
    tracemalloc.start()
    try:
        with pytest.raises(TruncatedStream, match="inside a message"):
            list(read_messages(Dripping(start, 100), limits=WireLimits(header_bytes=1 << 30)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_message_larger_than_the_buffer_is_read_whole() -> None:
    readouts = some_readouts(count=1, coils=64, samples=8192)
    (block,) = read_messages(Dripping(message_bytes(readouts), 70_000), close_optional=True)
    np.testing.assert_array_equal(block.samples, readouts.samples)


def test_an_unknown_message_id_is_named_with_the_known_ones() -> None:
    with pytest.raises(ProtocolError, match=r"4242 is unknown, expected one of 1, 2, 3.*1008"):
        list(read_messages(memoryview(ID.pack(4242) + b"rest")))


def test_text_that_is_not_utf8_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="not UTF-8"):
        list(read_messages(memoryview(ID.pack(5) + LENGTH32.pack(2) + b"\xff\xfe")))


def test_a_configuration_name_too_long_for_its_field_is_refused() -> None:
    with pytest.raises(ProtocolError, match="1023"):
        message_bytes(ConfigFile(name="x" * 1024))


def test_a_pixel_type_that_mrd_does_not_know_is_refused() -> None:
    image = ImageMessage(head=np.zeros(1, IMAGE_HEADER), attributes="", data=np.zeros((1, 1, 2, 2), np.int8))
    with pytest.raises(ProtocolError, match="int8"):
        message_bytes(image)
