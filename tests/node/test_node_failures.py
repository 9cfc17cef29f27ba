from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from recon_node.cli import run


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert run(arguments) == code
    told = capsys.readouterr().err.strip()
    assert told.count("\n") == 0
    assert "Traceback" not in told
    return told


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"not raw data at all", "neither"), (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5")],
)
def test_a_file_that_is_no_raw_data_is_one_line_and_no_dicom(
    content: bytes, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_bytes(content)
    out = tmp_path / "out"
    told = _fails(["replay", str(bad), "--out", str(out), "--method", "sense"], capsys)
    assert word in told
    assert not list(out.rglob("*.dcm"))


def test_a_truncated_file_is_one_line(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = heart[0].read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: len(whole) // 2])
    _fails(["replay", str(cut), "--out", str(tmp_path / "out"), "--method", "sense"], capsys)


def test_a_header_that_is_not_xml_is_one_line(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.h5"
    shutil.copy(heart[0], bad)
    with h5py.File(bad, "r+") as file:
        file["dataset/xml"][0] = b"<ismrmrdHeader"
    assert "XML" in _fails(["replay", str(bad), "--out", str(tmp_path / "out"), "--method", "sense"], capsys)


def test_a_scan_without_calibration_lines_names_them(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.h5"
    shutil.copy(heart[0], bad)
    with h5py.File(bad, "r+") as file:
        table = file["dataset/data"][:]
        step = table["head"]["idx"]["kspace_encode_step_1"]
        centre = np.abs(step.astype(int) - 48) < 12
        noise = (table["head"]["flags"] & (1 << 18)) > 0
        kept = table[~centre | noise]
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=kept)
    told = _fails(["replay", str(bad), "--out", str(tmp_path / "out"), "--method", "sense"], capsys)
    assert "calibration" in told


def test_a_pacs_that_does_not_answer_leaves_the_files_and_says_where(
    heart: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECON_NODE__DELIVERY__SPOOL", str(tmp_path / "spool"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["replay", str(heart[0]), "--out", str(tmp_path / "out"), "--method", "zero-filled"]
    told = _fails([*arguments, "--to", f"dicom://PACS@127.0.0.1:{port}"], capsys)
    assert "spool" in told
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 16
    assert run(["spool", "list", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert [states["waiting"] for states in counts.values()] == [16]


def test_unknown_weights_are_one_line(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _fails(["replay", str(heart[0]), "--out", str(tmp_path), "--weights", "nothing"], capsys)
    assert "nothing" in told


def test_a_missing_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in _fails(["replay", str(tmp_path / "x.h5"), "--out", str(tmp_path)], capsys)


def test_a_misspelt_destination_is_refused_before_the_work_and_makes_no_folder(
    heart: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    told = _fails(["replay", str(heart[0]), "--out", "out", "--to", "orthank"], capsys, code=2)
    assert "orthank" in told
    assert not list(tmp_path.iterdir())


def test_an_output_folder_that_is_a_file_is_one_line(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").touch()
    arguments = ["replay", str(heart[0]), "--out", str(tmp_path / "out"), "--method", "zero-filled"]
    assert "out: File exists" in _fails(arguments, capsys)


def test_a_missing_input_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from recon_node.cli import run\n"
        f"code = run(['replay', 'no-such-file.h5', '--out', {str(tmp_path / 'out')!r}])\n"
        "print(code, 'torch' in sys.modules, 'distributed' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1", "False", "False"]
    assert done.stderr.strip() == "recon-node: no-such-file.h5: no such file, and no raw data file matches it"
    assert not (tmp_path / "out").exists()
