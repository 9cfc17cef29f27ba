"""Deferred scans: quick images at once, the others later, nothing lost, and never to another patient."""

from __future__ import annotations

import io
import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pydicom
import pytest

from recon_node.cli import run
from recon_node.core.errors import DataError, DeviceError
from recon_node.files.open import open_source
from recon_node.mrd.captures import Capture, Captures
from recon_node.mrd.captures.entitled import Identity
from recon_node.mrd.header import parse_header
from recon_node.mrd.messages import HeaderXml, ImageMessage, message_bytes
from recon_node.mrd.meta import parse_meta
from recon_node.offline.send import SendSummary, send_scan
from recon_node.online.log import setup_logging
from recon_node.online.serve import Running, serving
from recon_node.pipeline import row
from recon_node.pipeline.result import Reconstruction
from recon_node.pipeline.row import Pipeline
from recon_node.pipeline.scan import Prepared
from recon_node.settings import Settings


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def settings_in(folder: Path, **server: object) -> Settings:
    settings = Settings().replace("recon", method="view-sharing", fallback="zero-filled")
    folders = {"out": str(folder / "dicom"), "deferred": str(folder / "deferred")}
    later = {"later": {"mode": "deferred"}, "fetch": {"mode": "retrieve"}}
    return settings.replace("server", port=0, configurations=later, **folders, **server)


def jobs(folder: Path) -> list[Capture]:
    return Captures(folder / "deferred", max_bytes=1 << 40).all()


def states(folder: Path) -> list[str]:
    return [job.state for job in jobs(folder)]


def methods(images: list[ImageMessage]) -> set[str]:
    return {parse_meta(image.attributes)["ReconMethod"][0] for image in images}


def ask(
    running: Running, raw: Path, config: str, **options: object
) -> tuple[SendSummary, list[ImageMessage]]:
    images: list[ImageMessage] = []
    summary = send_scan(raw, port=running.server.port, config=config, on_image=images.append, **options)
    return summary, images


Before = Callable[[str], object]
BeforeSlices = Callable[[Before], None]


@pytest.fixture
def before_slices(monkeypatch: pytest.MonkeyPatch) -> BeforeSlices:
    """Have something called with the method's name before each slice is reconstructed."""

    def install(act: Before) -> None:
        go_on = row._reconstructed

        def watched(prepared: Prepared, pipeline: Pipeline, clock: Any) -> Reconstruction:
            act(pipeline.settings.recon.method)
            return go_on(prepared, pipeline, clock)

        monkeypatch.setattr(row, "_reconstructed", watched)

    return install


@pytest.fixture
def hold(before_slices: BeforeSlices) -> Callable[[], threading.Event]:
    """The final reconstruction waits until the event is set."""

    def wait() -> threading.Event:
        release = threading.Event()

        def act(method: str) -> None:
            assert method != "view-sharing" or release.wait(30)

        before_slices(act)
        return release

    return wait


def test_the_console_gets_quick_images_and_the_others_when_it_asks_again(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    with serving(settings_in(tmp_path)) as running:
        sent, quick = ask(running, heart[0], "later")
        assert sent.ok
        assert methods(quick) == {"zero-filled"}
        assert any("the view-sharing series follows" in text for text in sent.texts)
        assert eventually(lambda: states(tmp_path) == ["done"])
        fetched, final = ask(running, heart[0], "fetch")
        assert fetched.ok
        assert methods(final) == {"view-sharing"}
        assert len(final) == len(quick) == 16
        again, more = ask(running, heart[0], "fetch")
        assert "was fetched before; property scan fetches it again" in again.errors[0]
        assert more == []
    files = list((tmp_path / "dicom").rglob("*.dcm"))
    assert len(files) == 16
    assert not list((tmp_path / "deferred").rglob("scan.mrd*"))


def test_a_deferred_scan_makes_the_same_instances_as_a_direct_one(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    uids = []
    for config in ("default", "later"):
        with serving(settings_in(tmp_path / config)) as running:
            assert ask(running, heart[0], config)[0].ok
            assert config == "default" or eventually(lambda c=config: states(tmp_path / c) == ["done"])
        files = (tmp_path / config / "dicom").rglob("*.dcm")
        uids.append({(d.SOPInstanceUID, d.PixelData) for d in map(pydicom.dcmread, files)})
    assert uids[0] == uids[1]


def test_patient_data_of_a_deferred_scan_stays_out_of_the_log(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    stream = io.StringIO()
    patients = setup_logging(stream=stream)
    log = logging.getLogger("recon_node.online.deferred_worker")
    kept(tmp_path, heart[0])
    with serving(settings_in(tmp_path), patients=patients) as running:
        running.node.observer = lambda done: log.info(
            "reconstructed %s", done.result.kspace.header.patient.name
        )
        assert eventually(lambda: states(tmp_path) == ["done"])
    assert "[redacted]" in stream.getvalue()
    assert "Phantom" not in stream.getvalue()


def test_asking_before_it_is_finished_is_told_so(
    heart: tuple[Path, Path], tmp_path: Path, hold: Callable[[], threading.Event]
) -> None:
    with serving(settings_in(tmp_path)) as running:
        release = hold()
        sent, _ = ask(running, heart[0], "later")
        assert sent.ok
        early, images = ask(running, heart[0], "fetch")
        assert images == []
        assert "not finished yet" in early.errors[0]
        release.set()
        assert eventually(lambda: states(tmp_path) == ["done"])


def test_a_scan_at_the_console_goes_before_the_slices_of_a_deferred_one(
    heart: tuple[Path, Path], tmp_path: Path, hold: Callable[[], threading.Event], before_slices: BeforeSlices
) -> None:
    with serving(settings_in(tmp_path)) as running:
        release = hold()
        order: list[str] = []
        before_slices(order.append)
        assert ask(running, heart[0], "later")[0].ok
        assert eventually(lambda: running.node.device_queue.busy)
        order.clear()
        console = threading.Thread(
            target=ask, args=(running, heart[0], "default"), kwargs={"properties": {"method": "zero-filled"}}
        )
        console.start()
        assert eventually(lambda: running.node.device_queue.waiting == 1)
        release.set()
        console.join(30)
        assert eventually(lambda: states(tmp_path) == ["done"])
    assert order[0] == "zero-filled"
    assert sorted(order) == ["view-sharing", "zero-filled", "zero-filled"]


def test_a_deferred_scan_whose_client_vanishes_is_finished_as_far_as_it_came(
    cut_heart: bytes, tmp_path: Path, vanish: Callable[[int, bytes, str], None]
) -> None:
    with serving(settings_in(tmp_path)) as running:
        vanish(running.server.port, cut_heart, "later")
        assert eventually(lambda: states(tmp_path) == ["done"])
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 8


def with_patient(raw: Path, target: Path, name: str) -> Path:
    """The scan of another patient, as an MRD stream."""
    with open_source(raw) as source:
        xml = source.headers[0].xml.decode()
        patient = source.headers[0].patient
        assert patient.name is not None
        assert patient.patient_id is not None
        xml = xml.replace(patient.name, name).replace(patient.patient_id, name)
        with target.open("wb") as file:
            file.write(message_bytes(HeaderXml(xml=xml.encode())))
            for block in source:
                file.write(message_bytes(block))
    return target


def test_images_never_go_to_another_patient(heart: tuple[Path, Path], tmp_path: Path) -> None:
    other = with_patient(heart[0], tmp_path / "other.mrd", "Somebody^Else")
    nobody = with_patient(heart[0], tmp_path / "nobody.mrd", "")
    with serving(settings_in(tmp_path)) as running:
        assert ask(running, heart[0], "later")[0].ok
        assert eventually(lambda: states(tmp_path) == ["done"])
        (job,) = jobs(tmp_path)
        for raw in (other, nobody):
            for parameters in ({}, {"scan": job.scan_id}):
                refused, images = ask(running, raw, "fetch", properties=parameters)
                assert images == []
                assert "no deferred scan of this patient" in refused.errors[0]
        found, images = ask(running, heart[0], "fetch", properties={"scan": job.scan_id})
        assert found.ok
        assert len(images) == 16


def test_a_node_that_is_started_again_goes_on_with_what_waits(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    kept(tmp_path, heart[0])
    assert states(tmp_path) == ["waiting"]
    with serving(settings_in(tmp_path)) as running:
        assert eventually(lambda: states(tmp_path) == ["done"])
        fetched, images = ask(running, heart[0], "fetch")
        assert fetched.ok
        assert len(images) == 16
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 16


def kept(folder: Path, raw: Path, *, whole: bool = True) -> Captures:
    """A scan in the folder as a node leaves it that is killed at some point."""
    scans = Captures(folder / "deferred", max_bytes=1 << 40)
    with open_source(raw) as source:
        arriving = scans.start("abc", needed=True)
        arriving.describe(kind="deferred", identity=Identity.of(source.headers, ""))
        items = arriving.following(source.headers[0].xml, source)
        for _ in items if whole else itertools.islice(items, sum(1 for _ in source) - 1):
            pass
        if whole:
            arriving.keep()
        else:
            arriving._file.close()
    return scans


def test_a_scan_that_was_arriving_when_the_node_was_killed_is_finished_as_far_as_it_came(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    scans = kept(tmp_path, heart[0], whole=False)
    assert scans.counts() == {"arriving": 1, "waiting": 0, "done": 0, "failed": 0}
    with serving(settings_in(tmp_path)):
        assert eventually(lambda: states(tmp_path) == ["done"])
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) >= 8


def test_a_scan_that_was_arriving_is_dropped_where_the_settings_say_stop(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    kept(tmp_path, heart[0], whole=False)
    assert states(tmp_path) != []
    with serving(settings_in(tmp_path, on_vanish="stop")):
        assert eventually(lambda: states(tmp_path) == [])


def test_a_scan_that_cannot_be_reconstructed_is_kept_with_the_reason_and_reported(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    scans = Captures(tmp_path / "deferred", max_bytes=1 << 40)
    with open_source(heart[0]) as source:
        with scans.start("bad", needed=True) as arriving:
            identity = Identity.of(source.headers, "")
            arriving.describe(kind="deferred", identity=identity, configuration="gone")
            assert sum(1 for _ in arriving.following(source.headers[0].xml, source))
            arriving.keep()
    with serving(settings_in(tmp_path)) as running:
        assert eventually(lambda: states(tmp_path) == ["failed"])
        answer, _ = ask(running, heart[0], "fetch")
        assert "unknown configuration 'gone'" in answer.errors[0]
    assert (tmp_path / "deferred" / "bad" / "scan.mrd").exists()


def test_a_reason_that_may_pass_fails_no_deferred_scan(
    heart: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_slices: BeforeSlices
) -> None:
    monkeypatch.setattr("recon_node.online.deferred_worker._PAUSE_S", 0.05)
    with serving(settings_in(tmp_path)) as running:
        tries: list[str] = []

        def breaks(method: str) -> None:
            if method == "view-sharing":
                tries.append(method)
                if len(tries) < 4:
                    raise DeviceError("the device is busy")

        before_slices(breaks)
        assert ask(running, heart[0], "later")[0].ok
        assert eventually(lambda: states(tmp_path) == ["done"])
    assert len(tries) == 5


def test_of_two_nodes_one_works_on_a_folder_and_the_other_takes_over(
    heart: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon_node.online.deferred_worker._PAUSE_S", 0.05)
    worked: list[str] = []
    with ExitStack() as first_only, ExitStack() as both:
        first = first_only.enter_context(serving(settings_in(tmp_path)))
        assert eventually(lambda: not Captures(tmp_path / "deferred", max_bytes=1).idle())
        second = both.enter_context(serving(settings_in(tmp_path)))
        first.node.observer = lambda done: worked.append("first")
        second.node.observer = lambda done: worked.append("second")
        assert ask(second, heart[0], "later")[0].ok
        assert eventually(lambda: states(tmp_path) == ["done"])
        first_only.close()
        assert ask(second, heart[0], "later")[0].ok
        assert eventually(lambda: states(tmp_path) == ["done", "done"])
    assert worked == ["first", "first", "second", "second"]


def test_a_scan_that_arrives_in_another_living_process_is_left_alone(
    heart: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon_node.online.deferred_worker._PAUSE_S", 0.02)
    scans = Captures(tmp_path / "deferred", max_bytes=1 << 40)
    for on_vanish in ("finish", "stop"):
        with open_source(heart[0]) as source, serving(settings_in(tmp_path, on_vanish=on_vanish)):
            with scans.start(on_vanish, needed=True) as arriving:
                arriving.describe(kind="deferred", identity=Identity.of(source.headers, ""))
                for _ in arriving.following(source.headers[0].xml, source):
                    assert states(tmp_path)[-1] == "arriving"
                    time.sleep(0.02)
                arriving.keep()
            assert eventually(lambda: states(tmp_path)[-1] == "done")
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 16


def test_finished_scans_make_room_and_waiting_ones_never_do(heart: tuple[Path, Path], tmp_path: Path) -> None:
    scans = kept(tmp_path, heart[0])
    (job,) = scans.all()
    size = job.scan.stat().st_size
    tight = Captures(scans.folder, max_bytes=size + 10_000)
    with (
        open_source(heart[0]) as source,
        pytest.raises(DataError, match="are full"),
        tight.start("def", needed=True) as arriving,
    ):
        list(arriving.following(source.headers[0].xml, source))
    assert [job.scan_id for job in scans.all()] == ["abc"]
    job.finish([b"images"])
    assert tight.make_room(size)
    assert [job.scan_id for job in scans.all()] == ["abc"]
    assert tight.make_room(size + 9_999)
    assert scans.all() == []


def test_patient_data_is_not_in_the_names_or_the_description(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    scans = kept(tmp_path, heart[0])
    (job,) = scans.all()
    with open_source(heart[0]) as source:
        patient = parse_header(source.headers[0].xml)[0].patient
    described = (job.folder / "capture.json").read_text()
    assert patient.patient_id is not None
    assert patient.patient_id not in described
    assert job.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in job.folder.iterdir())


@pytest.mark.parametrize("failure", [DataError("not this one"), ZeroDivisionError("a fault")])
def test_quick_images_that_fail_do_not_lose_the_scan(
    failure: Exception, heart: tuple[Path, Path], tmp_path: Path, before_slices: BeforeSlices
) -> None:
    with serving(settings_in(tmp_path)) as running:

        def fails(method: str) -> None:
            if method == "zero-filled":
                raise failure

        before_slices(fails)
        sent, images = ask(running, heart[0], "later")
        assert sent.ok
        assert images == []
        expected = "not this one" if isinstance(failure, DataError) else "internal error (ZeroDivisionError)"
        assert f"no quick images: {expected}" in sent.warnings[0]
        assert eventually(lambda: states(tmp_path) == ["done"])
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 16


def test_failed_scans_are_listed_with_their_reason_and_tried_again(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = kept(tmp_path, heart[0])
    config = tmp_path / "node.toml"
    config.write_text(f'[server]\ndeferred = "{scans.folder}"\n')
    scans.all()[0].fail("the device broke")
    assert run(["deferred", "list", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "abc  failed: the device broke\n"
    assert run(["deferred", "retry", "other", "--config", str(config)]) == 2
    assert run(["deferred", "retry", "--config", str(config)]) == 0
    assert scans.counts()["waiting"] == 1
    assert run(["deferred", "list", "--json", "--config", str(config)]) == 0
    assert '"state": "waiting"' in capsys.readouterr().out
