"""Replay by slice: once each, whatever stops it; a ledger to be asked; less data, NIfTI, a watched folder."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import click
import nibabel
import numpy as np
import pydicom
import pytest
from pyarrow import parquet

from recon_node.cli import run
from recon_node.core.errors import ConfigError, ReconNodeError, SourceError
from recon_node.files.open import open_source
from recon_node.offline.job import Extras
from recon_node.offline.ledger import query
from recon_node.offline.replay import LOCK, alone, replay
from recon_node.offline.watch import watch
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan

SETTINGS = Settings().replace("recon", method="view-sharing", check_trust=False)
FAST = ["--method", "view-sharing"]


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("archive") / "heart.h5"
    simulate_scan(
        raw, acceleration=4, pattern="random", coils=4, slices=3, phases=6, matrix=64, field=0.55, seed=3
    )
    return raw


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("archive") / "full.h5"
    simulate_scan(raw, acceleration=1, pattern="uniform", coils=4, slices=1, phases=6, matrix=64, seed=3)
    return raw


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


class Stopped(Exception):
    """Stands for whatever ends a run."""


def stop_after(count: int) -> Extras:
    seen: list[int] = []

    def on_slice(done: object, out: Path) -> None:
        seen.append(1)
        if len(seen) == count:
            raise Stopped

    return Extras(on_slice=on_slice)


def test_a_run_that_was_stopped_goes_on_with_the_slice_it_was_at(heart: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    replay([heart], whole, SETTINGS)
    with pytest.raises(Stopped):
        replay([heart], parts, SETTINGS, extras=stop_after(2))
    made: list[object] = []
    (result,) = replay(
        [heart], parts, SETTINGS, resume=True, extras=Extras(on_slice=lambda done, out: made.append(done))
    )
    assert result.skipped == 2
    assert len(made) == 1
    assert [entry["slice"] for entry in result.series] == [0, 1, 2]
    assert contents(parts) == contents(whole)


def test_other_settings_weights_or_bytes_are_another_result(heart: Path, tmp_path: Path) -> None:
    raw = tmp_path / "heart.h5"
    shutil.copy(heart, raw)
    out = tmp_path / "out"
    replay([raw], out, SETTINGS)
    (again,) = replay([raw], out, SETTINGS.replace("recon", method="zero-filled"), resume=True)
    assert again.skipped == 0
    simulate_scan(raw, acceleration=4, pattern="random", coils=4, slices=3, phases=6, matrix=64, seed=4)
    (again,) = replay([raw], out, SETTINGS, resume=True)
    assert again.skipped == 0


def test_a_series_that_was_taken_away_is_made_again(heart: Path, tmp_path: Path) -> None:
    (first,) = replay([heart], tmp_path, SETTINGS)
    before = contents(tmp_path)
    shutil.rmtree(tmp_path / first.series[1]["folders"][0])
    (again,) = replay([heart], tmp_path, SETTINGS, resume=True)
    assert again.skipped == 2
    assert contents(tmp_path) == before


def test_kill_costs_at_most_the_slice_at_work(heart: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "recon_node", "replay", str(heart), "--out", str(out), "--method", "kt"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list(out.rglob("*.dcm"))) < 6:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert all(one.read_bytes() for one in out.rglob("*.dcm"))
    assert subprocess.run([*command, "--resume"], capture_output=True, check=False).returncode == 0
    assert len(contents(out)) == 18
    rows = query(out, "status = 'done'")
    assert [one["slice"] for one in rows] == [0, 1, 2]


def test_two_replays_do_not_write_to_one_folder(heart: Path, tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ConfigError, match="another replay writes here"):
        replay([heart], tmp_path, SETTINGS)
    replay([heart], tmp_path, SETTINGS)
    assert (tmp_path / LOCK).exists()


def test_the_ledger_is_asked_by_a_condition_and_feeds_a_replay(
    heart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "first"
    assert run(["replay", str(heart), "--out", str(out), *FAST]) == 0
    capsys.readouterr()
    assert run(["ledger", "query", "field_t < 1 and slice >= 1", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    rows = list(csv.DictReader(table.splitlines()))
    assert [one["slice"] for one in rows] == ["1", "2"]
    assert rows[0]["method"] == "view-sharing"
    assert float(rows[0]["field_t"]) == pytest.approx(0.55)
    listed = tmp_path / "listed.csv"
    listed.write_text(table)
    again = tmp_path / "again"
    assert run(["replay", "--from-ledger", str(listed), "--out", str(again), "--method", "zero-filled"]) == 0
    assert [one["slice"] for one in query(again, "method = 'zero-filled'")] == [1, 2]
    capsys.readouterr()
    assert run(["ledger", "query", "slice = 0", "--out", str(out), "--json"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(capsys.readouterr().out))
    piped = tmp_path / "piped"
    assert run(["replay", "--from-ledger", "-", "--out", str(piped), *FAST]) == 0
    assert [one["slice"] for one in query(piped, "")] == [0]
    assert [path.name for path in piped.glob("ledger.sqlite*")] == ["ledger.sqlite"]


@pytest.mark.parametrize(
    "where", ["nonsense = 1", "1; DROP TABLE slices", "slice = (DELETE FROM slices)", "load_extension('x')"]
)
def test_a_condition_that_is_none_is_told_and_changes_nothing(
    where: str, heart: Path, tmp_path: Path
) -> None:
    replay([heart], tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match="expected a condition on input"):
        query(tmp_path, where)
    assert len(query(tmp_path, "")) == 3


def test_a_terminal_shows_the_most_important_columns(
    heart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replay([heart], tmp_path, SETTINGS)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["ledger", "query", "slice < 2", "--out", str(tmp_path)]) == 0
    head, *rows, last = click.unstyle(capsys.readouterr().out).splitlines()
    assert head.split()[:3] == ["input", "slice", "status"]
    assert [row.split()[1:4] for row in rows] == [
        ["0", "done", "view-sharing"],
        ["1", "done", "view-sharing"],
    ]
    assert last.startswith("2 rows")


def test_a_damaged_ledger_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SourceError, match=r"ledger is damaged .*not a database"):
        query(tmp_path, "trust = 'warn'")


def test_a_folder_without_a_ledger_is_told(tmp_path: Path) -> None:
    assert run(["ledger", "query", "--out", str(tmp_path)]) == 1
    assert run(["replay", "--from-ledger", str(tmp_path / "absent"), "--out", str(tmp_path)]) == 1
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    assert run(["replay", "--from-ledger", str(tmp_path / "odd.csv"), "--out", str(tmp_path)]) == 1
    assert run(["replay", "--out", str(tmp_path)]) == 2


def test_failures_are_in_the_ledger_and_one_missing_input_ends_nothing(
    heart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"nothing")
    out = tmp_path / "out"
    assert run(["replay", str(tmp_path / "absent.h5"), str(bad), str(heart), "--out", str(out), *FAST]) == 1
    told = capsys.readouterr().err
    assert "absent.h5: no such file" in told
    assert len(query(out, "status = 'done'")) == 3
    (failed,) = query(out, "status = 'failed'")
    assert failed["input"] == str(bad)
    assert "neither HDF5" in failed["error"]


def test_less_data_is_measured_against_all_of_it(full: Path, tmp_path: Path) -> None:
    command = ["replay", str(full), "--out", str(tmp_path), "--undersample", "4x:random", "--method", "kt"]
    assert run(command) == 0
    (entry,) = json.loads((tmp_path / "summary.json").read_text())["series"]
    assert entry["sampling"]["pattern"] == "random"
    assert set(entry["metrics"]) == {"kt", "sense", "zero-filled"}
    assert entry["metrics"]["kt"]["psnr"] > entry["metrics"]["zero-filled"]["psnr"] + 3
    assert any("not as it was acquired" in note for note in entry["notes"])
    (row,) = query(tmp_path, "psnr > 20")
    assert row["psnr"] == pytest.approx(entry["metrics"]["kt"]["psnr"])


@pytest.mark.parametrize("text", ["8", "x:random", "8x:spiral", "0:random", "4.5:uniform", "nan:random"])
def test_an_undersampling_that_is_none_is_told(text: str, full: Path, tmp_path: Path) -> None:
    assert run(["replay", str(full), "--out", str(tmp_path), "--undersample", text]) == 2


def test_undersampled_data_cannot_be_a_reference(heart: Path, tmp_path: Path) -> None:
    with pytest.raises(ReconNodeError, match="fully sampled"):
        raise ReconNodeError(_error_of(heart, tmp_path))


def _error_of(raw: Path, out: Path) -> str:
    from recon_node.offline.undersample import parse_undersampling

    extras = Extras(undersample=parse_undersampling("4x:random"))
    (result,) = replay([raw], out, SETTINGS, extras=extras)
    return result.error or ""


def test_nifti_lies_where_the_dicom_does(heart: Path, tmp_path: Path) -> None:
    replay([heart], tmp_path, SETTINGS, extras=Extras(nifti=True))
    (path,) = (tmp_path / "nifti").rglob("*.nii")
    image = nibabel.load(path)
    assert image.shape == (64, 64, 3, 6)
    files = [pydicom.dcmread(one) for one in tmp_path.rglob("*.dcm")]
    one = min((f for f in files), key=lambda f: (float(f.ImagePositionPatient[2]), float(f.TriggerTime)))
    expected = np.asarray(one.ImagePositionPatient, float) * [-1, -1, 1]
    corners = [image.affine @ [0, 0, place, 1] for place in range(3)]
    assert min(float(np.abs(corner[:3] - expected).max()) for corner in corners) < 0.01
    place = int(np.argmin([float(np.abs(corner[:3] - expected).max()) for corner in corners]))
    stored = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
    shown = np.asarray(image.dataobj)[:, :, place, 0].T
    np.testing.assert_allclose(shown, stored, atol=2 * float(one.RescaleSlope))
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside["Reconstruction"]["Method"] == "view-sharing"
    patient = str(files[0].PatientName)
    assert patient
    assert patient not in path.name


@pytest.mark.parametrize("workers", [1, 2])
def test_scans_of_one_patient_day_and_protocol_have_nifti_names_of_their_own(
    heart: Path, tmp_path: Path, workers: int
) -> None:
    other = tmp_path / "other.h5"
    simulate_scan(other, acceleration=2, pattern="uniform", coils=4, slices=3, phases=6, matrix=64, seed=3)
    with open_source(other) as one, open_source(heart) as two:
        assert one.headers[0].patient.patient_id == two.headers[0].patient.patient_id
    out = tmp_path / "out"
    for _ in range(2):
        replay([heart, other], out, SETTINGS, extras=Extras(nifti=True), workers=workers)
        names = sorted(path.name.replace("_scan-2", "") for path in (out / "nifti").rglob("*.nii"))
        assert len(names) == 2
        assert names[0] == names[1]
    first, second = (nibabel.load(path).get_fdata() for path in (out / "nifti").rglob("*.nii"))
    assert not np.array_equal(first, second)


def test_a_stack_is_whole_in_nifti_whatever_stopped_the_run_in_between(heart: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    replay([heart], whole, SETTINGS, extras=Extras(nifti=True))
    with pytest.raises(Stopped):
        replay([heart], parts, SETTINGS, extras=replace(stop_after(2), nifti=True))
    (result,) = replay([heart], parts, SETTINGS, resume=True, extras=Extras(nifti=True))
    assert result.skipped == 2
    (one,), (other,) = ((folder / "nifti").rglob("*cine.nii") for folder in (whole, parts))
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    assert not list((parts / "nifti").rglob("*.npz"))
    (again,) = replay([heart], parts, SETTINGS, resume=True, extras=Extras(nifti=True))
    assert again.skipped == 3
    replay([heart], tmp_path / "without", SETTINGS)
    (late,) = replay([heart], tmp_path / "without", SETTINGS, resume=True, extras=Extras(nifti=True))
    assert late.skipped == 0
    assert len(list((tmp_path / "without" / "nifti").rglob("*.nii"))) == 1


def test_a_watched_folder_is_done_as_files_become_whole(heart: Path, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    results: list[object] = []
    done = threading.Event()
    (inbox / "half.h5").write_bytes(heart.read_bytes()[:1000])

    def report(result: object) -> None:
        results.append(result)
        if getattr(result, "error", None) is None:
            done.set()

    thread = threading.Thread(
        target=watch, args=([inbox], out, SETTINGS), kwargs={"report": report, "stop": done.is_set}
    )
    thread.start()
    time.sleep(0.5)
    shutil.copy(heart, inbox / "part")
    os.utime(inbox / "part", (time.time() - 10, time.time() - 10))
    (inbox / "part").rename(inbox / "heart.h5")
    thread.join(60)
    assert done.is_set()
    assert len(contents(out)) == 18


def test_the_summary_of_a_watched_folder_tells_of_all_its_files(
    heart: Path, full: Path, tmp_path: Path
) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    for raw in (heart, full):
        shutil.copy(raw, inbox)
        os.utime(inbox / raw.name, (time.time() - 10, time.time() - 10))
    told: list[object] = []
    for _ in range(2):  # started again, it tells of what it had done
        told.clear()
        watch([inbox], out, SETTINGS, report=told.append, stop=lambda: len(told) == 2)
        series = json.loads((out / "summary.json").read_text())["series"]
        assert [(Path(one["input"]).name, one["slice"]) for one in series] == [
            ("full.h5", 0),
            *(("heart.h5", place) for place in range(3)),
        ]


def test_workers_give_the_same_bytes_and_ledger(heart: Path, full: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    ticks: list[int] = []
    replay([heart, full], one, SETTINGS)
    replay([heart, full], two, SETTINGS, workers=2, progress=ticks.append)
    assert contents(one) == contents(two)
    assert sum(ticks) == 4
    names = ("input", "slice", "key", "trust", "instances")
    assert [[r[n] for n in names] for r in query(one, "")] == [[r[n] for n in names] for r in query(two, "")]


def test_a_ledger_of_a_former_version_is_taken_up_and_new_rows_have_identifiers(
    heart: Path, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db:
        counters = "slice, contrast, 'set', repetition, encoding, partition"
        unique = f"UNIQUE (input_sha256, scan, {counters}, key)"
        columns = f"input, scan, {counters}, input_sha256, key, status, finished"
        db.execute(f"CREATE TABLE slices ({columns}, {unique})")
    assert query(tmp_path, "status = 'done'") == []
    (result,) = replay([heart], tmp_path, SETTINGS)
    rows = query(tmp_path, "series_uids is not null")
    assert [one["instance_uids"].split("; ") for one in rows] == [one["instances"] for one in result.series]
    one = pydicom.dcmread(next((tmp_path / rows[0]["folders"]).glob("*.dcm")))
    assert (rows[0]["study_uid"], rows[0]["series_uids"]) == (one.StudyInstanceUID, one.SeriesInstanceUID)


def test_the_ledger_goes_out_as_parquet_and_csv_with_the_same_rows(heart: Path, tmp_path: Path) -> None:
    replay([heart], tmp_path, SETTINGS)
    table, text = tmp_path / "slices.parquet", tmp_path / "slices.csv"
    command = ["ledger", "query", "slice > 0", "--out", str(tmp_path)]
    assert run([*command, "--parquet", str(table), "--csv", str(text)]) == 0
    read = parquet.read_table(table)
    assert read.column("slice").to_pylist() == [1, 2]
    assert str(read.schema.field("score").type) == "double"
    assert str(read.schema.field("psnr").type) == "double"  # also where no slice has one
    assert str(read.schema.field("slice").type) == "int64"
    with text.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [one["input_sha256"] for one in rows] == read.column("input_sha256").to_pylist()
    assert run(["ledger", "query", "slice > 99", "--out", str(tmp_path), "--parquet", str(table)]) == 0
    assert parquet.read_table(table).num_rows == 0
    assert parquet.read_schema(table).names == list(rows[0])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mrd")
    [result] = replay([tmp_path / "pipe.mrd"], tmp_path / "out", Settings())
    assert "is no plain file" in str(result.error)


@pytest.mark.parametrize("name", ["ledger.sqlite", ".replay.lock", "nifti", "report", ".replay", "{study}"])
def test_a_link_out_of_the_output_folder_is_not_followed(heart: Path, tmp_path: Path, name: str) -> None:
    plain, out, outside = tmp_path / "plain", tmp_path / "out", tmp_path / "outside"
    replay([heart], plain, SETTINGS)
    (study,) = {path.parent.parent.name for path in plain.rglob("*.dcm")}
    out.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("precious")
    target = outside / "precious" if "." in name else outside
    (out / name.format(study=study)).symlink_to(target)
    try:
        told = " ".join(result.error or "" for result in replay([heart], out, SETTINGS))
    except ConfigError as error:
        told = str(error)
    assert "leads out of" in told
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"


def test_a_pipe_in_place_of_the_ledger_is_told_at_once(heart: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ledger.sqlite")
    with pytest.raises(ConfigError, match="is a pipe or a device"):
        replay([heart], tmp_path, SETTINGS)
