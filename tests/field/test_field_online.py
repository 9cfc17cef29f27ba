"""Online equals offline: more than was announced, late lines, in real time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pydicom
import pytest
from field_scans import Lines, axial, header, kspace_of, one_slice, phantom, replay, write

from recon_node.cli import run
from recon_node.offline.send import send_scan
from recon_node.online.serve import Running, serving
from recon_node.settings import Settings

Capture = pytest.CaptureFixture[str]
LAST = 1 << 7


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Running]:
    folders = {"out": str(tmp_path / "served"), "deferred": str(tmp_path / "deferred")}
    settings = Settings().replace("recon", method="sense").replace("server", port=0, **folders)
    with serving(settings) as running:
        yield running


def looped(counter: str, count: int, **values: Any) -> Lines:
    """`count` of a counter, one after the other, 10 ms apart."""
    lines = Lines()
    for number in range(count):
        place = 12.0 * number if counter == "slice" else 0.0
        stamps = 1000 + 4 * number
        data = kspace_of(phantom(24, 24, shift=0.05 * number), seed=number)
        fields = {counter: number, "acquisition_time_stamp": stamps, **axial(place), **values}
        lines.add(data, **fields)
    return lines


CASES = {
    "phases": (looped("phase", 8), {"phase": 5}, 8),
    "phases, slices announced": (looped("phase", 8), {"phase": 5, "slice": 0, "average": 0}, 8),
    "slices": (looped("slice", 3), {"slice": 1, "phase": 0}, 3),
    "repetitions": (looped("repetition", 4), {"repetition": 1, "phase": 0}, 4),
    "contrasts": (looped("contrast", 3), {"contrast": 0, "phase": 0}, 3),
    "sets": (looped("set", 3), {"phase": 0}, 3),
    "averages": (looped("average", 3), {"phase": 0, "average": 0}, 1),
}


@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_more_than_announced_gives_the_same_over_the_network_as_from_a_file(
    case: str, realtime: bool, node: Running, tmp_path: Path, capsys: Capture
) -> None:
    lines, limits, images = CASES[case]
    raw = write(tmp_path / "a.h5", header(24, 24, limits=limits), lines)
    found = replay(raw, tmp_path / "out", capsys)
    sent = send_scan(raw, port=node.server.port, realtime=realtime)
    assert (found.code, len(found.instances)) == (0, images)
    assert sent.ok
    assert sent.images == images
    served = [pydicom.dcmread(path) for path in (tmp_path / "served").rglob("*.dcm")]
    pixels = {ds.SOPInstanceUID: ds.PixelData for ds in served}
    assert pixels == {ds.SOPInstanceUID: ds.PixelData for ds in found.instances}
    if case.startswith("phases"):
        assert any("beyond the header's limit" in note for note in found.notes)


def test_lines_after_a_slice_was_complete_are_told_in_both_ways(
    node: Running, tmp_path: Path, capsys: Capture
) -> None:
    data = kspace_of(phantom(24, 24))
    lines = Lines().add(data, range(23), **axial()).add(data, [23], flags=LAST, **axial())
    lines.add(data, [3, 4], **axial()).add(data, slice=1, **axial(12))
    raw = write(tmp_path / "a.h5", header(24, 24, limits={"phase": 0, "slice": 1}), lines)
    found = replay(raw, tmp_path / "out", capsys)
    sent = send_scan(raw, port=node.server.port)
    assert (found.code, len(found.instances), sent.images) == (1, 2, 2)
    for told in (found.errors, *sent.errors):
        assert "2 lines of slice 0 came after it had been complete" in told


def test_send_chooses_a_dataset_and_says_when_nothing_came_back(
    node: Running, tmp_path: Path, capsys: Capture
) -> None:
    raw = one_slice(tmp_path / "a.h5")
    with h5py.File(raw, "r+") as file:
        file.move("dataset", "exam/first")
        file.copy("exam/first", "exam/second")
    start = ["send", str(raw), "--port", str(node.server.port)]
    assert run(start) == 1
    assert "choose one (--group NAME)" in capsys.readouterr().err
    assert run([*start, "--group", "/exam/second", "--out", str(tmp_path / "images.h5")]) == 0
    assert "1 images back" in capsys.readouterr().out
    empty = write(tmp_path / "b.h5", header(trajectory="spiral"), Lines().add(kspace_of(phantom())))
    assert run(["send", str(empty), "--port", str(node.server.port), "--out", str(tmp_path / "no.h5")]) == 1
    told = capsys.readouterr()
    assert "the server reports: " in told.err
    assert "spiral" in told.err
    assert "nothing was written" in told.out
    assert not (tmp_path / "no.h5").exists()


def test_both_scans_of_a_stream_are_replayed_and_sent(node: Running, tmp_path: Path, capsys: Capture) -> None:
    from recon_node.files.open import open_source
    from recon_node.mrd.messages import Close, HeaderXml, message_bytes

    raw = tmp_path / "two.mrd"
    with raw.open("wb") as out:
        for number, end in enumerate((message_bytes(Close()), b"")):
            lines = Lines().add(kspace_of(phantom(24, 24, shift=0.1 * number), seed=number))
            with open_source(write(tmp_path / f"{number}.h5", header(24, 24), lines)) as source:
                out.write(message_bytes(HeaderXml(xml=source.headers[0].xml)))
                for block in source:
                    out.write(message_bytes(block))
            out.write(end)
    found = replay(raw, tmp_path / "out", capsys)
    assert (found.code, len(found.instances)) == (0, 2)
    assert send_scan(raw, port=node.server.port).images == 2
    raw.write_bytes(raw.read_bytes() + b"\x04\x00" + b"rubbish that is no scan")
    assert replay(raw, tmp_path / "again", capsys).code == 1
