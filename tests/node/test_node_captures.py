"""Captures: kept before an answer, tried again after a failure, replayed to the same, looked after."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pydicom
import pytest

from benchmarks.captures import campaign
from benchmarks.captures_node import STAGES
from recon_node.cli import run
from recon_node.core.errors import DataError
from recon_node.mrd.captures import Capture, Captures
from recon_node.mrd.captures.entitled import Identity
from recon_node.mrd.captures.leftovers import take_over
from recon_node.mrd.messages import ImageMessage
from recon_node.mrd.meta import parse_meta
from recon_node.offline.send import SendSummary, send_scan
from recon_node.online.received import open_captures
from recon_node.online.serve import Running, serving
from recon_node.pipeline import row
from recon_node.settings import Settings


def settings_in(folder: Path, **server: object) -> Settings:
    settings = Settings().replace("recon", method="view-sharing", fallback="zero-filled")
    modes = {"later": {"mode": "deferred"}, "fetch": {"mode": "retrieve"}, "echo": {"mode": "echo"}}
    own = {"out": folder / "dicom", "record": folder / "kept", "deferred": folder / "deferred"}
    given = {key: str(path) for key, path in own.items()} | server
    return settings.replace("server", port=0, configurations=modes, **given)


def config_of(folder: Path) -> Path:
    path = folder / "node.toml"
    path.write_text(
        f'[server]\nrecord = "{folder / "kept"}"\n'
        '[recon]\nmethod = "view-sharing"\nfallback = "zero-filled"\n'
    )
    return path


def ask(running: Running, raw: Path, config: str = "default") -> tuple[SendSummary, list[ImageMessage]]:
    images: list[ImageMessage] = []
    summary = send_scan(raw, port=running.server.port, config=config, on_image=images.append)
    return summary, images


def captures(folder: Path) -> list[Capture]:
    return Captures(folder / "kept", max_bytes=1 << 40).all()


def dicom(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*.dcm"):
        found[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path.read_bytes()
    return found


def methods(images: list[ImageMessage]) -> set[str]:
    return {parse_meta(image.attributes)["ReconMethod"][0] for image in images}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], None]], None]:
    """Have something called with the method's name before each slice is reconstructed."""

    def install(act: Callable[[str], None]) -> None:
        go_on = row._reconstructed

        def watched(prepared, pipeline, clock):
            act(pipeline.settings.recon.method)
            return go_on(prepared, pipeline, clock)

        monkeypatch.setattr(row, "_reconstructed", watched)

    return install


def test_a_failure_at_every_stage_leaves_no_scan_unanswered_and_every_capture_replays_bit_equal(
    tmp_path: Path,
) -> None:
    result = campaign(tmp_path, len(STAGES))
    assert result.troubles == []
    assert (result.answered, result.equal, result.delivered) == (len(STAGES), len(STAGES), len(STAGES))
    assert set(result.answered_at_once) == set(STAGES) - {"header", "kill"}


def test_a_capture_replays_to_the_same_files_and_is_listed_and_purged(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(settings_in(tmp_path)) as running:
        assert ask(running, heart[0])[0].ok
        assert ask(running, heart[0], "echo")[0].ok
        assert ask(running, heart[0], "fetch")[0].errors
    (direct, echoed) = captures(tmp_path)
    assert (direct.kind, direct.state, direct.handed, direct.whole) == ("direct", "done", True, True)
    assert (echoed.kind, echoed.state) == ("echo", "done")
    config = ["--config", str(config_of(tmp_path))]
    capsys.readouterr()
    assert run(["captures", "replay", direct.scan_id, "--out", str(tmp_path / "again"), *config]) == 0
    assert capsys.readouterr().out == f"{direct.scan_id}: 16 images, the same as were answered\n"
    assert dicom(tmp_path / "again") == dicom(tmp_path / "dicom")
    assert len(json.loads((tmp_path / "again" / "summary.json").read_text())["series"]) == 2
    assert run(["captures", "list", "--json", *config]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["counts"] == {"arriving": 0, "waiting": 0, "done": 2, "failed": 0}
    assert [entry["mode"] for entry in listed["captures"]] == ["direct", "echo"]
    assert listed["captures"][0]["bytes"] == direct.size
    assert run(["captures", "purge", "--older-than", "1h", *config]) == 0
    assert run(["captures", "purge", *config]) == 0
    assert capsys.readouterr().out == "0 scans removed, 2 left\n2 scans removed, 0 left\n"
    assert run(["captures", "list", *config]) == 0
    assert "nothing is kept" in capsys.readouterr().out


def test_a_replay_that_differs_from_what_was_answered_is_told(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(settings_in(tmp_path)) as running:
        assert ask(running, heart[0])[0].ok
    (capture,) = captures(tmp_path)
    answered = bytearray(capture.images.read_bytes())
    answered[-9] ^= 1
    capture.images.write_bytes(answered)
    out = ["--out", str(tmp_path / "again"), "--config", str(config_of(tmp_path))]
    assert run(["captures", "replay", *out]) == 1
    assert "16 images, DIFFERENT from those that were answered" in capsys.readouterr().out


def test_settings_that_changed_since_then_do_not_change_a_replay_unless_asked(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(settings_in(tmp_path)) as running:
        assert ask(running, heart[0])[0].ok
    config = config_of(tmp_path)
    config.write_text(config.read_text().replace("view-sharing", "zero-filled"))
    again = ["captures", "replay", "--config", str(config), "--out"]
    assert run([*again, str(tmp_path / "again")]) == 0
    assert "the same as were answered" in capsys.readouterr().out
    assert run([*again, str(tmp_path / "now"), "--now"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_words_that_are_wrong_are_told_with_what_was_meant(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Captures(tmp_path / "kept", max_bytes=1 << 30, keep_raw=True)
    kept(store, "0123456789ab", heart[0].read_bytes()[:100])
    config = ["--config", str(config_of(tmp_path))]
    for arguments, told in (
        (["captures", "replay", "0123456789aa", "--out", "x", *config], "did you mean 0123456789ab?"),
        (["captures", "lst"], "Did you mean 'list'?"),
        (["captures", "purge", "--older-than", "yesterday", *config], "expected an age such as 90m"),
        (["captures", "purge", "--down-to", "much", *config], "expected a size such as 500MB"),
    ):
        assert run(arguments) == 2
        assert told in capsys.readouterr().err
    assert run(["captures", "replay", "--out", str(tmp_path / "again"), *config]) == 1
    assert "recon-node: scan 0123456789ab: " in capsys.readouterr().err


def kept(store: Captures, name: str, data: bytes, *, reason: str | None = None) -> Capture:
    """A scan as a node leaves it: done, or failed."""
    with store.start(name) as arriving:
        arriving.write(data)
        arriving.settle(reason, handed=True)
    return next(capture for capture in store.all() if capture.scan_id == name)


def test_count_and_age_bound_the_store_and_what_is_in_work_never_goes(tmp_path: Path) -> None:
    store = Captures(tmp_path, max_bytes=1 << 30, most=3, max_age_s=3600.0, keep_raw=True)
    with store.start("arriving") as arriving, store.start("waits", needed=True) as waits:
        arriving.write(b"x" * 100)
        waits.write(b"x" * 100)
        waits.describe(kind="deferred")
        waits.keep()
        for number in range(4):
            kept(store, f"done{number}", b"x" * 100)
        kept(store, "failed", b"x" * 100, reason="no header")
        store.expire()
        assert [capture.scan_id for capture in store.all()] == ["arriving", "waits", "failed"]
        for capture in store.all():
            replace(capture, number=time.time_ns() - 2 * 3600 * 10**9).describe()
        assert store.expire() == 1
        assert store.purge(states=("done", "failed", "waiting", "arriving")) == []
        assert [capture.state for capture in store.all()] == ["arriving", "waiting"]


def test_purging_down_to_a_size_takes_the_oldest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Captures(tmp_path / "kept", max_bytes=1 << 30, keep_raw=True)
    for number in range(3):
        kept(store, f"scan{number}", os.urandom(1 << 20))
    config = ["--config", str(config_of(tmp_path))]
    assert run(["captures", "purge", "--down-to", "1.5MB", *config]) == 0
    assert capsys.readouterr().out == "2 scans removed, 1 left\n"
    assert [capture.scan_id for capture in store.all()] == ["scan2"]
    kept(store, "bad", b"x", reason="no header")
    assert run(["captures", "purge", "--state", "failed", "--yes", *config]) == 0
    assert [capture.scan_id for capture in store.all()] == ["scan2"]


def test_a_method_that_always_fails_is_answered_by_the_fallback_and_its_dicom_follows(
    heart: tuple[Path, Path], tmp_path: Path, failing, eventually
) -> None:
    def fails(method: str) -> None:
        if method == "view-sharing":
            raise ZeroDivisionError

    with serving(settings_in(tmp_path)) as running:
        failing(fails)
        sent, images = ask(running, heart[0])
        assert sent.ok
        assert (len(images), methods(images)) == (16, {"zero-filled"})
        assert "these images are by zero-filled, their DICOM follows" in sent.warnings[-1]
        assert eventually(lambda: [capture.state for capture in captures(tmp_path)] == ["done"])
        exams = running.node.metrics.exams
        assert eventually(lambda: "1 received, 1 answered, 0 delivered, 1 fallen back" in exams.line())
    assert len(dicom(tmp_path / "dicom")) == 16


def test_a_slice_that_was_answered_is_not_answered_twice(
    heart: tuple[Path, Path], tmp_path: Path, failing
) -> None:
    count = []

    def fails(method: str) -> None:
        count.append(method)
        if len(count) == 2:
            raise ZeroDivisionError

    with serving(settings_in(tmp_path)) as running:
        failing(fails)
        sent, images = ask(running, heart[0])
    assert sent.ok
    assert sorted((int(i.head["slice"][0]), int(i.head["phase"][0])) for i in images) == [
        (s, p) for s in range(2) for p in range(8)
    ]


def test_data_that_contradict_themselves_are_told_once_with_the_first_reason(
    heart: tuple[Path, Path], tmp_path: Path, failing, eventually
) -> None:
    tried = []

    def fails(method: str) -> None:
        tried.append(method)
        raise DataError("no calibration lines")

    with serving(settings_in(tmp_path)) as running:
        failing(fails)
        sent, images = ask(running, heart[0])
        exams = running.node.metrics.exams
        assert eventually(lambda: "1 failed (DataError 1)" in exams.line())
    assert images == []
    assert sent.errors == ("no calibration lines",)
    assert tried == ["view-sharing"] * 2 + ["zero-filled"] * 2
    assert [(capture.state, capture.reason) for capture in captures(tmp_path)] == [
        ("failed", "no calibration lines")
    ]


def test_without_a_capture_nothing_is_tried_again(heart: tuple[Path, Path], tmp_path: Path, failing) -> None:
    def fails(method: str) -> None:
        raise ZeroDivisionError

    with serving(settings_in(tmp_path, record=None)) as running:
        failing(fails)
        sent, _ = ask(running, heart[0])
    assert "internal error (ZeroDivisionError)" in sent.errors[0]


def test_readiness_looks_at_the_stores_folder(heart: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    with serving(settings_in(tmp_path)) as running:
        assert running.ready() is None
        monkeypatch.setattr("recon_node.core.disk.writable", lambda folder: folder != tmp_path / "kept")
        assert "the folder of received scans" in str(running.ready())


def test_what_former_versions_left_is_taken_in(heart: tuple[Path, Path], tmp_path: Path, eventually) -> None:
    settings = settings_in(tmp_path, record=None, on_vanish="finish")
    with serving(settings) as running:
        assert ask(running, heart[0], "later")[0].ok
        assert eventually(lambda: [c.state for c in open_captures(settings).all()] == ["done"])
    (new,) = open_captures(settings).all()
    former = new.folder.with_name("former")
    shutil.copytree(new.folder, former)
    (former / "capture.json").unlink()
    kept_then = ("configuration", "properties", "whole", "ticket")
    described = {"identity": asdict(new.identity), "number": 1, **{n: getattr(new, n) for n in kept_then}}
    (former / "job.json").write_text(json.dumps(described))
    (tmp_path / "kept").mkdir()
    flat = tmp_path / "kept" / "0123456789ab.mrd"
    flat.write_bytes(b"recorded")
    (tmp_path / "kept" / "mine.mrd").write_bytes(b"not the node's")
    assert [c.scan_id for c in open_captures(settings).all()] == ["former", new.scan_id]
    with serving(settings_in(tmp_path)) as running:
        assert {c.scan_id: c.state for c in captures(tmp_path)} == {
            "former": "done",
            new.scan_id: "done",
            "0123456789ab": "done",
        }
        fetched, images = ask(running, heart[0], "fetch")
        assert (fetched.ok, len(images)) == (True, 32)
    assert (tmp_path / "kept" / "0123456789ab" / "scan.mrd").read_bytes() == b"recorded"
    assert (tmp_path / "kept" / "mine.mrd").exists()
    store = Captures(tmp_path / "other", max_bytes=1)
    assert take_over(store, tmp_path / "absent") == (0, [])


def test_exams_are_counted_for_prometheus_and_told_at_the_end_of_the_day(
    heart: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch, eventually
) -> None:
    settings = settings_in(tmp_path, health_port=0).replace(
        "delivery", spool=str(tmp_path / "spool"), to=(str(tmp_path / "pacs"),), reserve_mb=1
    )
    caplog.set_level("INFO", "recon_node.online.exams")
    with serving(settings) as running:
        assert ask(running, heart[0])[0].ok
        exams = running.node.metrics.exams
        assert eventually(lambda: (exams.tick(), "1 delivered" in exams.line())[1])
        with urllib.request.urlopen(f"http://127.0.0.1:{running.health_port}/metrics", timeout=20) as page:
            told = page.read().decode()
        for name in ("received", "answered", "delivered"):
            assert f"recon_node_exams_{name}_total 1.0" in told
        monkeypatch.setattr(exams, "_clock", lambda: time.time() + 86_400)
        exams.tick()
    (line,) = [r.getMessage() for r in caplog.records if r.name == "recon_node.online.exams"]
    assert "1 received, 1 answered, 1 delivered, 0 fallen back, 0 recovered, 0 failed" in line
    assert "Phantom" not in line


def test_a_deferred_scan_is_a_capture_that_stays_and_replays_to_what_was_fetched(
    heart: tuple[Path, Path], tmp_path: Path, eventually, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(settings_in(tmp_path)) as running:
        sent, quick = ask(running, heart[0], "later")
        assert (sent.ok, methods(quick)) == (True, {"zero-filled"})
        assert eventually(lambda: [capture.state for capture in captures(tmp_path)] == ["done"])
        _, fetched = ask(running, heart[0], "fetch")
        assert (len(fetched), methods(fetched)) == (16, {"view-sharing"})
    (capture,) = captures(tmp_path)
    assert (capture.kind, capture.handed, capture.whole, capture.raw) == (
        "deferred",
        True,
        True,
        capture.folder / "scan.mrd",
    )
    out = ["--out", str(tmp_path / "again"), "--config", str(config_of(tmp_path))]
    assert run(["captures", "replay", *out]) == 0
    assert "16 images, the same as were answered" in capsys.readouterr().out
    assert dicom(tmp_path / "again") == dicom(tmp_path / "dicom")
    assert not list((tmp_path / "deferred").glob("*"))


def test_nobody_but_the_sender_fetches_a_captured_scan(heart: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as running:
        assert ask(running, heart[0])[0].ok
    (capture,) = captures(tmp_path)
    store = open_captures(settings_in(tmp_path))
    assert store.fetchable(capture.identity) == [capture]
    assert store.fetchable(Identity()) == []
