"""MRD 2 streams: read by the schema they carry, as the ``mrd-python`` package wrote them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import mrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import (
    InconsistentReadouts,
    ProtocolError,
    ReconNodeError,
    SourceError,
    TruncatedStream,
)
from recon_node.core.scan import Readouts, Waveform
from recon_node.files.open import open_source
from recon_node.mrd.v2 import decode, encode
from recon_node.mrd.v2.bulk import BulkReader
from recon_node.mrd.v2.schema import Array, Primitive, Vector, parse_schema
from recon_node.mrd.v2.source import MrdV2Source
from recon_node.mrd.v2.writer import MrdV2Writer, installed_schema

SAME = (
    "encoded_matrix",
    "recon_matrix",
    "limits",
    "vendor",
    "model",
    "field_strength_t",
    "te_ms",
    "tr_ms",
    "flip_deg",
    "protocol",
    "patient",
    "trajectory",
    "receiver_channels",
)
LINE = np.arange(8, dtype=np.complex64).reshape(2, 4)


def merged(source: Any) -> tuple[np.ndarray, np.ndarray]:
    blocks = [block for block in source if isinstance(block, Readouts)]
    return np.concatenate([b.head for b in blocks]), np.concatenate([b.samples.reshape(-1) for b in blocks])


def stream_of(*items: tuple[str, Any], schema: Any = None, header: bytes | None = None) -> bytes:
    """A stream by our own writer, with the header of a 4 x 4 scan."""
    out = io.BytesIO()
    used = schema or installed_schema()
    space = {"matrixSize": {"x": 4, "y": 4, "z": 1}, "fieldOfViewMm": {"x": 100.0, "y": 100.0, "z": 5.0}}
    plain = {"encoding": [{"encodedSpace": space, "reconSpace": space}]}
    writer = MrdV2Writer(out, used, header=header or encode.encoder(used.header)(plain))
    for tag, record in items:
        writer.item(tag, record)
    writer.close()
    return out.getvalue()


def acquisition(**head: Any) -> tuple[str, Any]:
    counters = {"kspaceEncodeStep1": 1, "slice": 0}
    return "Acquisition", {"head": {"idx": counters, **head}, "data": LINE, "trajectory": np.zeros((0, 0))}


def test_acquisitions_and_waveforms_are_those_that_the_package_wrote(heart: Path, mrd2_stream: bytes) -> None:
    with open_source(heart) as one:
        expected_head, expected = merged(one)
        waveforms = sum(isinstance(block, Waveform) for block in one)
    source = MrdV2Source(io.BytesIO(mrd2_stream))
    blocks = list(source)
    head, samples = merged(blocks)
    np.testing.assert_array_equal(samples, expected)
    names = set(head.dtype.names) - {"version", "available_channels", "channel_mask"}
    for name in names:
        np.testing.assert_array_equal(head[name], expected_head[name], err_msg=name)
    assert sum(isinstance(block, Waveform) for block in blocks) == waveforms


def varied(count: int) -> list[mrd.StreamItem]:
    """Acquisitions that differ in what is there, how long it is, and how large, with waveforms between."""
    rng = np.random.default_rng(7)
    items: list[mrd.StreamItem] = []
    for number in range(count):
        noise = number < 20
        counters = mrd.EncodingCounters(user=[int(v) for v in rng.integers(0, 300, 2)])
        counters.kspace_encode_step_1 = None if noise else number % 200
        counters.slice = number // 100
        flags = 1 << 18 if noise else int(rng.integers(0, 2)) << 7
        head = mrd.AcquisitionHeader(flags=mrd.AcquisitionFlags(flags), idx=counters, scan_counter=number)
        head.acquisition_time_stamp = int(rng.integers(0, 2**32)) if number % 3 else None
        head.sample_time_us = None if number % 50 == 0 else 2.5
        head.user_int = [-int(rng.integers(0, 100)), number]
        head.user_float = [float(rng.random())]
        head.physiology_time_stamp = [number, 1, 2, 3][: 2 + number % 90 // 80]
        head.channel_order = [0, 1]
        head.position[:] = rng.random(3)
        samples = rng.standard_normal((2, 16, 2)).astype(np.float32).view(np.complex64)[..., 0]
        items.append(mrd.StreamItem.Acquisition(mrd.Acquisition(head=head, data=samples)))
        if number % 70 == 69:
            data = np.arange(4, dtype=np.uint32)[None]
            items.append(mrd.StreamItem.WaveformUint32(mrd.WaveformUint32(waveform_id=1, data=data)))
    return items


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_runs_read_at_once_are_what_each_acquisition_is_by_itself(
    block: int, mrd2_stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    items = varied(400)
    with mrd.BinaryMrdReader(io.BytesIO(mrd2_stream)) as reader, mrd.BinaryMrdWriter(out) as writer:
        writer.write_header(reader.read_header())
        list(reader.read_data())
        for start in range(0, len(items), block):
            writer.write_data(items[start : start + block])
        writer._stream.flush()
        data = out.getvalue() + b"\0"
    used: list[int] = []
    read = BulkReader.read

    def watched(self: BulkReader, *given: Any) -> Any:
        found = read(self, *given)
        used.append(0 if found is None else len(found[0]))
        return found

    monkeypatch.setattr(BulkReader, "read", watched)
    at_once = list(MrdV2Source(io.BytesIO(data)))
    assert sum(used) > 100
    monkeypatch.setattr(BulkReader, "read", lambda *given: None)
    alone = list(MrdV2Source(io.BytesIO(data)))
    assert sum(isinstance(item, Waveform) for item in at_once) == 5
    for mine, wanted in zip(merged(at_once), merged(alone), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    found = [len(item) for item in at_once if isinstance(item, Readouts)]
    assert sum(found) == 400
    with mrd.BinaryMrdReader(io.BytesIO(data)) as reader:
        reader.read_header()
        theirs = [i.value for i in reader.read_data() if isinstance(i, mrd.StreamItem.Acquisition)]
    head, samples = merged(at_once)
    np.testing.assert_array_equal(samples, np.concatenate([one.data.reshape(-1) for one in theirs]))
    assert head["scan_counter"].tolist() == [one.head.scan_counter for one in theirs]
    assert head["user_int"][:, 0].tolist() == [one.head.user_int[0] for one in theirs]


@pytest.mark.parametrize("keep", [slice(None), slice(0, 1)], ids=["whole runs", "a line of each"])
def test_samples_that_somebody_keeps_stay_while_the_rest_of_a_long_stream_is_read(keep: slice) -> None:
    count, shape = 240, (32, 256)
    lines = [np.full(shape, number, np.complex64) for number in range(count)]
    data = stream_of(*((tag, record | {"data": line}) for line in lines for tag, record in [acquisition()]))
    kept: list[np.ndarray] = []
    wanted: list[int] = []
    at = 0
    for block in MrdV2Source(io.BytesIO(data)):
        assert isinstance(block, Readouts)
        kept.append(block.samples[keep])
        wanted += list(range(at, at + len(block)))[keep]
        at += len(block)
    assert at == count
    found = np.concatenate(kept)
    assert (found == np.asarray(wanted)[:, None, None]).all()


def test_the_header_means_the_same_in_both_versions(heart: Path, mrd2_stream: bytes) -> None:
    with open_source(heart) as one:
        old = one.headers[0]
    new = MrdV2Source(io.BytesIO(mrd2_stream)).headers[0]
    for name in SAME:
        assert getattr(new, name) == getattr(old, name), name
    assert new.recon_fov_mm == pytest.approx(old.recon_fov_mm)
    assert new.study.study_time == "10:30:00"
    assert new.patient_position == "HFS"


def test_a_file_is_recognised_by_its_first_bytes(mrd2_stream: bytes, tmp_path: Path) -> None:
    path = tmp_path / "scan.bin"
    path.write_bytes(mrd2_stream)
    with open_source(path) as source:
        assert isinstance(source, MrdV2Source)


def test_a_version_with_fields_nobody_knows_is_read() -> None:
    tree = json.loads(installed_schema().text)
    for entry in tree["types"]:
        if entry["name"] == "AcquisitionHeader":
            fields = [{"name": "novelty", "type": {"vector": {"items": "string"}}}]
            for field in entry["fields"]:
                renamed = {"acquisitionTimeStamp": "acquisitionTimeStampNs", "sampleTimeUs": "sampleTimeNs"}
                field["type"] = [None, "uint64"] if field["name"] in renamed else field["type"]
                field["name"] = renamed.get(field["name"], field["name"])
            entry["fields"] = [*fields, *entry["fields"]]
    schema = parse_schema(json.dumps(tree))
    own = acquisition(novelty=["a", "bc"], acquisitionTimeStampNs=10_000_000_000, sampleTimeNs=4000)
    (block,) = MrdV2Source(io.BytesIO(stream_of(own, schema=schema)))
    assert int(block.head["acquisition_time_stamp"][0]) == 4000
    assert float(block.head["sample_time_us"][0]) == pytest.approx(4.0)
    np.testing.assert_array_equal(block.samples[0], LINE)


def test_images_are_read_by_the_package(mrd2_stream: bytes) -> None:
    image = {
        "head": {"imageType": 1, "imageSeriesIndex": 3},
        "data": np.ones((1, 1, 2, 3)),
        "meta": {"a": [("string", "b")]},
    }
    with mrd.BinaryMrdReader(io.BytesIO(stream_of(("ImageFloat", image)))) as reader:
        reader.read_header()
        (item,) = list(reader.read_data())
    assert item.value.head.image_series_index == 3
    assert item.value.data.shape == (1, 1, 2, 3)
    assert item.value.meta["a"][0].value == "b"


def test_a_line_that_does_not_say_which_it_is_is_refused() -> None:
    nameless = acquisition(idx={"slice": 0})
    with pytest.raises(InconsistentReadouts, match="kspaceEncodeStep1"):
        list(MrdV2Source(io.BytesIO(stream_of(nameless))))


def test_what_is_no_raw_data_is_counted_and_sorted_data_is_refused_by_name() -> None:
    array = ("ArrayComplexFloat", np.zeros((2, 2)))
    source = MrdV2Source(io.BytesIO(stream_of(array, acquisition(), array)))
    assert len(list(source)) == 1
    assert source.passed == {"ArrayComplexFloat": 2}
    with pytest.raises(ReconNodeError, match="ReconData"):
        list(MrdV2Source(io.BytesIO(stream_of(("ReconData", {})))))


def test_lines_in_a_bucket_are_lines() -> None:
    bucket = ("AcquisitionBucket", {"data": [acquisition()[1], acquisition()[1]], "ref": [acquisition()[1]]})
    assert sum(len(block) for block in MrdV2Source(io.BytesIO(stream_of(bucket)))) == 3


def test_a_stream_cut_anywhere_gives_whole_lines_then_one_error() -> None:
    data = stream_of(acquisition(), acquisition(), acquisition())
    start = data.index(LINE.tobytes())
    seen = set()
    for end in range(5, len(data), 1 if len(data) < 2000 else 97):
        with pytest.raises((TruncatedStream, ProtocolError)) as caught:
            list(MrdV2Source(io.BytesIO(data[:end])))
        assert len(str(caught.value)) <= 300
    for end in range(start, len(data)):
        source = MrdV2Source(io.BytesIO(data[:end]))
        lines: list[int] = []
        with pytest.raises(TruncatedStream):
            lines.extend(len(block) for block in source)
        seen.add(sum(lines))
    assert seen == {0, 1, 2, 3}


def test_a_second_scan_behind_the_first_is_told_of() -> None:
    data = stream_of(acquisition())
    with pytest.raises(SourceError, match="more follows"):
        list(MrdV2Source(io.BytesIO(data + data)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GARBAGE.........", "no MRD 2 stream"),
        (encode.MAGIC + encode.text("{"), "schema"),
        (encode.MAGIC + encode.text('{"protocol": {"name": "Other", "sequence": []}, "types": []}'), "Other"),
        (encode.MAGIC + encode.varint(1 << 40), "text of"),
    ],
)
def test_nonsense_is_one_clear_error(data: bytes, words: str) -> None:
    with pytest.raises(ReconNodeError, match=words):
        MrdV2Source(io.BytesIO(data))


def test_an_array_that_claims_more_than_there_can_be_is_refused_before_it_is_read() -> None:
    read = decode.decoder(Array(Primitive("complexfloat32"), 2))
    with pytest.raises(ProtocolError, match="over"):
        read(encode.varint(1 << 20) + encode.varint(1 << 20), 0)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_changed_bytes_never_end_in_anything_but_an_error_of_ours(data: st.DataObject) -> None:
    whole = bytearray(stream_of(acquisition(), acquisition()))
    start = len(encode.MAGIC)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(start, len(whole) - 1))] = data.draw(st.integers(0, 255))
    told = ""
    try:
        list(MrdV2Source(io.BytesIO(bytes(whole))))
    except ReconNodeError as error:
        told = str(error)
    assert len(told) <= 300
    assert "\n" not in told


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_integers_of_an_array_come_back(values: list[int]) -> None:
    kind = Array(Primitive("int64"), 1)
    data = encode.encoder(kind)(np.array(values, np.int64))
    found, end = decode.decoder(kind)(data, 0)
    assert found.tolist() == values
    assert end == len(data)


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=100))
def test_lists_of_fractions_come_back(values: list[float]) -> None:
    kind = Vector(Primitive("float32"))
    found, _ = decode.decoder(kind)(encode.encoder(kind)(values), 0)
    assert list(found) == values
