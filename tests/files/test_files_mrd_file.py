"""The file reader's runs beside the frame reader's, which every connection uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_files import header_xml

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.errors import ReconNodeError, TruncatedStream
from recon_node.core.scan import Readouts, Waveform
from recon_node.files import mrd_file
from recon_node.files.mrd_file import MrdFileSource
from recon_node.mrd.messages import message_bytes
from recon_node.mrd.wire import Close, HeaderXml, read_messages

Line = tuple[bytes, bytes]


def run(rng: np.random.Generator, count: int, coils: int, samples: int) -> Readouts:
    head = np.zeros(count, dtype=ACQUISITION_HEADER)
    head["number_of_samples"], head["active_channels"] = samples, coils
    head["scan_counter"] = rng.integers(0, 1000, count)
    data = rng.standard_normal((count, coils, 2 * samples)).astype(np.float32).view(np.complex64)
    return Readouts(head=head, samples=data)


def with_trajectory(block: Readouts, dimensions: int) -> bytes:
    """ACQUISITION messages that carry a trajectory between header and samples."""
    head = block.head.copy()
    head["trajectory_dimensions"] = dimensions
    trajectory = np.full(dimensions * block.samples.shape[2], 0.25, np.float32).tobytes()
    return b"".join(
        b"\xf0\x03" + one.tobytes() + trajectory + samples.tobytes()
        for one, samples in zip(head, block.samples, strict=True)
    )


def flattened(messages: object) -> tuple[list[Line | Waveform], str]:
    """Every line and waveform, and the kind of error that ended them."""
    found: list[Line | Waveform] = []
    try:
        for message in messages:  # type: ignore[attr-defined]
            if isinstance(message, Readouts):
                lines = zip(message.head, message.samples, strict=True)
                found += [(head.tobytes(), samples.tobytes()) for head, samples in lines]
            elif isinstance(message, Waveform):
                found.append((b"waveform", message.data.tobytes()))
    except ReconNodeError as error:
        return found, type(error).__name__
    return found, ""


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    parts = [message_bytes(HeaderXml(xml=header_xml().encode()))]
    for _ in range(draw(st.integers(1, 5))):
        shape = draw(st.tuples(st.integers(1, 40), st.integers(0, 3), st.integers(0, 40)))
        kind = draw(st.sampled_from(["lines", "lines", "trajectory", "waveform"]))
        if kind == "waveform":
            data = rng.integers(0, 9, (2, 5)).astype(np.uint32)
            parts.append(message_bytes(Waveform(waveform_id=0, time_stamp=1, sample_time_us=1.0, data=data)))
        elif kind == "trajectory":
            parts.append(with_trajectory(run(rng, *shape), draw(st.integers(1, 3))))
        else:
            parts.append(bytes(message_bytes(run(rng, *shape))))
    if draw(st.booleans()):
        parts.append(message_bytes(Close()) + draw(st.binary(max_size=3)))
    raw = b"".join(map(bytes, parts))
    if draw(st.booleans()):
        cut = draw(st.integers(len(parts[0]), len(raw)))
        raw = raw[:cut] + draw(st.binary(max_size=4)) + raw[cut + draw(st.integers(0, 4)) :]
    return raw


@settings(deadline=None, max_examples=150)
@given(raw=streams(), run_bytes=st.sampled_from([400, 3000, 1 << 20]))
def test_a_file_gives_what_a_connection_would_whatever_its_messages(
    raw: bytes, run_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("mrd") / "scan.mrd"
    path.write_bytes(raw)
    expected = flattened(read_messages(memoryview(raw), close_optional=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mrd_file, "_RUN_BYTES", run_bytes)
        with MrdFileSource(path) as source:
            found = flattened(source)
            if not found[1] and expected[1]:  # a damaged message looks like the begin of another scan
                with pytest.raises(ReconNodeError):
                    source.following()
                found = (found[0], expected[1])
    assert found == expected


def test_a_run_ends_where_the_shape_changes_and_grows_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "scan.mrd"
    blocks = [run(rng, 300, 2, 20), run(rng, 3, 2, 24), run(rng, 300, 2, 20)]
    path.write_bytes(
        message_bytes(HeaderXml(xml=header_xml().encode())) + b"".join(map(message_bytes, blocks))
    )
    with MrdFileSource(path) as source:
        runs = [len(block) for block in source if isinstance(block, Readouts)]
    assert (runs[0], sum(runs)) == (300, 603)
    assert len(runs) < 12


def test_a_file_cut_while_it_is_read_is_refused_not_touched_where_it_ended(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    path = tmp_path / "scan.mrd"
    blocks = [run(rng, 100, 8, 256), run(rng, 100, 8, 258)]
    path.write_bytes(
        message_bytes(HeaderXml(xml=header_xml().encode())) + b"".join(map(message_bytes, blocks))
    )
    with MrdFileSource(path) as source:
        lines = iter(source)
        next(lines)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        with pytest.raises(TruncatedStream, match="while it was read"):
            list(lines)


def test_runs_stay_what_they_are_after_later_ones_were_read_and_the_file_was_closed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "scan.mrd"
    block = run(rng, 2000, 4, 256)
    path.write_bytes(message_bytes(HeaderXml(xml=header_xml().encode())) + bytes(message_bytes(block)))
    with MrdFileSource(path) as source:
        runs = [part for part in source if isinstance(part, Readouts)]
    assert len(runs) > 2
    assert np.array_equal(np.concatenate([part.samples for part in runs]), block.samples)
