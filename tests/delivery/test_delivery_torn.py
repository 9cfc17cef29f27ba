"""Only whole DICOM files are taken; what is left out is told, and one odd file ends no export."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from delivery_parts import make_instance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from recon_node.cli import run
from recon_node.core.errors import DicomError
from recon_node.delivery import check_file
from recon_node.offline.export import export
from recon_node.settings import DeliverySettings

Instances = Callable[..., list[Path]]


@pytest.fixture
def chosen(tmp_path: Path) -> DeliverySettings:
    return DeliverySettings(spool=str(tmp_path / "spool"), reserve_mb=0)


def forms(file: Path, folder: Path) -> dict[str, bytes]:
    """The same instance in each kind of encoding."""
    made = {"explicit": file.read_bytes()}
    for syntax, name in (
        (ImplicitVRLittleEndian, "implicit"),
        (ExplicitVRBigEndian, "big endian"),
        (DeflatedExplicitVRLittleEndian, "deflated"),
    ):
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        path = folder / f"{name}.dcm"
        dcmwrite(path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
        made[name] = path.read_bytes()
    dataset = dcmread(file)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(folder / "rle.dcm")
    made["compressed"] = (folder / "rle.dcm").read_bytes()
    return made


@pytest.mark.filterwarnings("ignore")
def test_a_whole_file_passes_in_every_encoding_and_no_shorter_one_does(tmp_path: Path) -> None:
    file = make_instance(tmp_path / "1.dcm", 1)
    uid = dcmread(file).SOPInstanceUID
    for name, data in forms(file, tmp_path).items():
        assert check_file(data).uid == uid, name
        for keep in (*range(0, len(data) - 1, 7), len(data) - 2):
            with pytest.raises(DicomError):
                check_file(data[:keep])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_whole_or_one_clear_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(make_instance(tmp_path / "1.dcm", 1).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    told = ""
    try:
        check_file(bytes(content), "1.dcm")
    except DicomError as error:
        told = str(error)
    assert "\n" not in told
    assert len(told) < 300


def test_fewer_pixels_than_promised_are_told(tmp_path: Path) -> None:
    file = make_instance(tmp_path / "1.dcm", 1, NumberOfFrames=2)
    with pytest.raises(DicomError, match="512 bytes of pixels, expected 1024"):
        check_file(file.read_bytes(), file.name)


def test_a_deflated_bomb_is_not_unfolded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon_node.delivery.structure._INFLATED_BYTES", 10_000)
    data = forms(make_instance(tmp_path / "1.dcm", 1, PixelData=bytes(16 * 16 * 100)), tmp_path)["deflated"]
    with pytest.raises(DicomError, match="unfolds to more than"):
        check_file(data)


def test_cut_pixels_never_count_as_delivered(
    tmp_path: Path, chosen: DeliverySettings, instances: Instances
) -> None:
    files = instances(3)
    os.truncate(files[1], files[1].stat().st_size - 100)
    result = export([files[0].parent], str(tmp_path / "share"), chosen)
    assert (result.found, result.delivered) == (3, 2)
    [problem] = result.unusable
    assert problem.startswith(f"{files[1]}: ")
    assert "cut off" in problem
    assert len(list((tmp_path / "share").rglob("*.dcm"))) == 2


def test_what_a_writer_has_not_finished_is_nobodys(
    tmp_path: Path, chosen: DeliverySettings, instances: Instances
) -> None:
    folder = instances(2)[0].parent
    hidden = folder / "1.2.3" / ".writing-0123abcd"
    hidden.mkdir(parents=True)
    make_instance(hidden / "0001.dcm", 50)
    make_instance(folder / ".0002.dcm.1a2b.part", 51)
    (folder / "summary.json").write_text("{}")
    result = export([folder], str(tmp_path / "share"), chosen)
    assert (result.found, result.delivered, result.left_out) == (2, 2, [])


def test_what_is_left_out_is_told_and_the_exit_code_is_one(
    tmp_path: Path, instances: Instances, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECON_NODE__DELIVERY__SPOOL", str(tmp_path / "spool"))
    files = instances(2)
    folder = files[0].parent
    (folder / "bare").write_bytes(files[0].read_bytes()[132:])
    (folder / "notes.txt").write_text("nothing")
    (folder / "empty.dcm").touch()
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.dcm")
    (folder / "gone.dcm").symlink_to(folder / "nowhere")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "s"))
    (folder / os.fsdecode(b"odd\xff\n.dcm")).write_bytes(make_instance(tmp_path / "x.dcm", 9).read_bytes())
    (folder / os.fsdecode(b"odd\xfe.txt")).write_text("nothing")
    assert run(["export", str(folder), "--to", str(tmp_path / "share"), "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["delivered"] == 3
    told = sorted(line.removeprefix(f"recon-node: not sent: {folder}/") for line in shown.err.splitlines())
    assert sorted(line.split(": ")[0] for line in told) == [
        "bare",
        "empty.dcm",
        "gone.dcm",
        "notes.txt",
        "odd\\xfe.txt",
        "pipe",
        "pipe.dcm",
        "s",
    ]
    assert "without preamble" in told[0]


def test_a_pipe_given_by_name_hangs_nothing(
    tmp_path: Path, chosen: DeliverySettings, instances: Instances
) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = export([*instances(1), tmp_path / "pipe"], str(tmp_path / "share"), chosen)
    assert (result.delivered, len(result.left_out)) == (1, 1)


@pytest.mark.filterwarnings("ignore")
def test_one_odd_file_never_ends_an_export(
    tmp_path: Path, chosen: DeliverySettings, instances: Instances
) -> None:
    files = instances(4)
    folder = files[0].parent
    make_instance(folder / "long.dcm", 60, SOPInstanceUID="1." + "2" * 250)
    deep: Any = dcmread(files[0])
    (folder / "nested.dcm").write_bytes(
        files[0].read_bytes() + b"\x08\x00\x99\x11SQ\0\0\xff\xff\xff\xff" * 3000
    )
    assert deep
    result = export([folder], str(tmp_path / "share"), chosen, deidentify=None)
    assert (result.delivered, len(result.unusable)) == (4, 2)
    assert all(len(problem) < 300 + len(str(folder)) for problem in result.unusable)


@pytest.mark.filterwarnings("ignore")
def test_odd_files_do_not_end_a_deidentified_export_either(
    tmp_path: Path, chosen: DeliverySettings, instances: Instances
) -> None:
    files = instances(3, PatientName="Muster^Erika", PatientBirthDate="19700131", StudyDate="20260501")
    os.truncate(files[0], 700)
    result = export(files, str(tmp_path / "share"), chosen, deidentify=b"0123456789abcdef")
    assert (result.delivered, len(result.unusable)) == (2, 1)
