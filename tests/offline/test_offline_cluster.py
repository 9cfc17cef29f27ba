"""Slices as tasks of Dask workers: killed ones cost nothing, what kills them is set aside, bytes stay."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client, Future, Scheduler, SpecCluster, Worker, get_client, get_worker

from recon_node.cli import run
from recon_node.core.allocator import KEPT_BYTES
from recon_node.core.errors import ConfigError, DataError
from recon_node.core.types import KSpace
from recon_node.offline.alone import EndedError, alone
from recon_node.offline.cluster import keep_all, processes
from recon_node.offline.job import Extras, Job
from recon_node.offline.journal import ROOM, Journal, JournalReader, Tries
from recon_node.offline.ledger import query
from recon_node.offline.replay import FileResult, replay
from recon_node.offline.spread import FileTask
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan

SETTINGS = Settings().replace("recon", method="view-sharing", check_trust=False)


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("hearts")
    for seed in (1, 2):
        simulate_scan(
            folder / f"{seed}.h5",
            acceleration=4,
            pattern="random",
            coils=4,
            slices=4,
            phases=5,
            matrix=48,
            seed=seed,
        )
    return [folder / "1.h5", folder / "2.h5"]


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Somebody's scheduler with two workers, one of them tagged with a graphics card; in this process."""
    with cluster_of(card={"resources": {"GPU": 1}}, plain={}) as address:
        yield address


@contextlib.contextmanager
def cluster_of(**options_by_name: dict[str, object]) -> Iterator[str]:
    """Address of a scheduler in this process, with workers of those names."""
    plain = {"nthreads": 1, "dashboard_address": "127.0.0.1:0"}
    workers = {
        name: {"cls": Worker, "options": {**plain, **options}} for name, options in options_by_name.items()
    }
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with SpecCluster(
        workers=workers, scheduler={"cls": Scheduler, "options": options}, silence_logs=False
    ) as cluster:
        yield cluster.scheduler_address


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def rows(folder: Path) -> list[tuple[object, ...]]:
    names = ("input", "slice", "key", "input_sha256", "trust", "instances", "folders", "status")
    return [tuple(row[name] for name in names) for row in query(folder, "")]


@dataclass(frozen=True)
class Sabotage:
    """Kills the process that reconstructs one slice: as often as there are marks, or always."""

    slice: int
    marks: tuple[str, ...] = ()

    def __call__(self, kspace: KSpace) -> KSpace:
        if kspace.index.slice == self.slice:
            left = [mark for mark in map(Path, self.marks) if not mark.exists()]
            if left:
                left[0].touch()
            if left or not self.marks:
                os.kill(os.getpid(), signal.SIGKILL)
        return kspace


@dataclass(frozen=True)
class Lost:
    """In place of undersampling: the cluster forgets a slice at work, as with a worker that held it, once."""

    mark: str

    def __call__(self, kspace: KSpace) -> KSpace:
        if kspace.index.slice == 1 and not Path(self.mark).exists():
            Path(self.mark).touch()
            client = get_client()
            client.cancel([Future(get_worker().get_current_task(), client)], force=True)
        return kspace


def test_a_slice_that_the_cluster_lost_is_handed_to_it_again(
    hearts: list[Path], scheduler: str, tmp_path: Path
) -> None:
    mark = tmp_path / "lost"
    extras = Extras(undersample=Lost(str(mark)))  # type: ignore[arg-type]
    (result,) = replay([hearts[0]], tmp_path / "out", SETTINGS, scheduler=scheduler, extras=extras)
    assert mark.exists()
    assert result.error is None
    assert [entry["slice"] for entry in result.series] == [0, 1, 2, 3]


def test_a_scheduler_gives_the_bytes_names_and_ledger_of_one_process(
    hearts: list[Path], scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hearts[0].parent)
    names = [Path(path.name) for path in hearts]  # relative: the workers' folder may be another
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    ticks: list[int] = []
    replay(names, alone, SETTINGS)
    results = replay(names, spread, SETTINGS, scheduler=scheduler, progress=ticks.append)
    assert contents(spread) == contents(alone)
    assert rows(spread) == rows(alone)
    assert (spread / "summary.json").read_text().count('"input": "1.h5"') == 4
    assert sum(ticks) == 8
    assert [result.skipped for result in results] == [0, 0]
    assert not (spread / ROOM).exists()
    again = replay(names, spread, SETTINGS, scheduler=scheduler, resume=True)
    assert [result.skipped for result in again] == [4, 4]


@dataclass(frozen=True)
class Where:
    """Notes which worker a slice is reconstructed by."""

    file: str

    def __call__(self, kspace: KSpace) -> KSpace:
        with Path(self.file).open("a") as stream:
            stream.write(f"{get_worker().name}\n")
        return kspace


def test_slices_go_to_workers_tagged_with_a_graphics_card(
    hearts: list[Path], scheduler: str, tmp_path: Path
) -> None:
    where = tmp_path / "where"
    extras = Extras(undersample=Where(str(where)))  # type: ignore[arg-type]
    results = replay(hearts, tmp_path / "out", SETTINGS, scheduler=scheduler, extras=extras)
    assert [result.error for result in results] == [None, None]
    assert where.read_text().split() == ["card"] * 8


@dataclass(frozen=True)
class Meeting:
    """Each slice is at work until its neighbour has begun, too."""

    folder: str

    def __call__(self, kspace: KSpace) -> KSpace:
        number = kspace.index.slice
        Path(self.folder, str(number)).write_text(get_worker().name)
        end = time.monotonic() + 60
        while not Path(self.folder, str(number ^ 1)).exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        return kspace


def test_slices_of_one_file_are_at_work_at_the_same_time(hearts: list[Path], tmp_path: Path) -> None:
    where = tmp_path / "where"
    where.mkdir()
    extras = Extras(undersample=Meeting(str(where)))  # type: ignore[arg-type]
    with cluster_of(one={}, other={}) as address:
        (result,) = replay([hearts[0]], tmp_path / "out", SETTINGS, scheduler=address, extras=extras)
    assert result.error is None
    names = [(where / str(number)).read_text() for number in range(4)]
    assert {names[0], names[1]} == {names[2], names[3]} == {"one", "other"}


def test_what_a_replay_does_beside_works_by_any_worker(scheduler: str, tmp_path: Path) -> None:
    full = tmp_path / "full.h5"
    simulate_scan(full, acceleration=1, pattern="uniform", coils=4, slices=2, phases=4, matrix=48, seed=3)
    beside = ["--undersample", "4x:random", "--report", "--nifti", "--method", "view-sharing"]
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    assert run(["replay", str(full), "--out", str(alone), *beside]) == 0
    assert run(["replay", str(full), "--out", str(spread), *beside, "--scheduler", scheduler]) == 0
    assert contents(alone) == contents(spread)
    names = [
        {str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()} for out in (alone, spread)
    ]
    assert names[0] - {"ledger.sqlite-wal", "ledger.sqlite-shm"} == names[1] - {
        "ledger.sqlite-wal",
        "ledger.sqlite-shm",
    }
    assert len([name for name in names[1] if name.endswith(".nii")]) == 1
    figures = [[row["psnr"] for row in query(out, "")] for out in (alone, spread)]
    assert figures[0] == figures[1]
    assert all(figures[0])


def test_the_processes_of_a_replay_are_reached_from_this_machine_alone_and_with_a_key() -> None:
    me = psutil.Process()
    before = {one.laddr.port for one in me.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    with processes(1) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        mine = [one for one in me.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        theirs = [
            one
            for child in me.children(recursive=True)
            for one in child.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
        ]
        opened = [one for one in mine if one.laddr.port not in before]
        assert opened
        assert theirs
        assert {one.laddr.ip for one in [*opened, *theirs]} == {"127.0.0.1"}
        set_here = client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_")
        assert list(set_here.values()) == [str(KEPT_BYTES)]
        begun_with_it = client.run(lambda: "recon_node.pipeline.row" in sys.modules)
        assert list(begun_with_it.values()) == [True]


def test_killed_workers_cost_nothing_and_only_what_kills_its_own_process_is_set_aside(
    hearts: list[Path], tmp_path: Path
) -> None:
    """And no worker outlives the replay."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    before = set(active_children())
    bad, unlucky = tmp_path / "bad.h5", tmp_path / "unlucky.h5"
    shutil.copy(hearts[0], bad)
    shutil.copy(hearts[1], unlucky)
    whole = replay([unlucky], alone, SETTINGS)
    poison = Extras(undersample=Sabotage(slice=2))  # type: ignore[arg-type]
    (result,) = replay([bad], killed, SETTINGS, workers=2, extras=poison)
    assert result.error is not None
    assert "slice 2: 2 worker processes were killed at it, and so was one that did nothing" in result.error
    assert "signal 9" in result.error
    assert [entry["slice"] for entry in result.series] == [0, 1, 3]
    (failed,) = query(killed, "status = 'failed'")
    assert "set aside" in failed["error"]
    marks = (str(tmp_path / "killed-once"), str(tmp_path / "killed-twice"))
    twice = Extras(undersample=Sabotage(slice=2, marks=marks))  # type: ignore[arg-type]
    told: list[FileResult] = []
    (result,) = replay([unlucky], killed, SETTINGS, workers=2, extras=twice, report=told.append)
    assert all(Path(mark).exists() for mark in marks)
    assert result.error is None
    assert told == [result]
    mine = [entry["instances"] for entry in result.series]
    assert mine == [entry["instances"] for entry in whole[0].series]
    assert len(query(killed, f"input = '{unlucky}' and status = 'done'")) == 4
    until = time.monotonic() + 30
    while set(active_children()) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(active_children()) - before


def _ends(how: str) -> str:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "left":
        os._exit(0)
    if how == "raised":
        raise DataError("of its own")
    if how == "large":
        return str(len(np.ones(1 << 30, np.uint8))) + str(time.sleep(60))
    print("printed")
    return f"{how} by {os.getpid()}"


def test_a_call_in_a_process_of_its_own_comes_back_whatever_it_does() -> None:
    assert alone(_ends, "done").startswith("done by ")
    assert alone(_ends, "done") != f"done by {os.getpid()}"
    with pytest.raises(EndedError, match="signal 9"):
        alone(_ends, "killed")
    with pytest.raises(EndedError, match="exit code 0"):
        alone(_ends, "left")
    with pytest.raises(DataError, match="of its own"):
        alone(_ends, "raised")
    with pytest.raises(EndedError, match="signal 9"):
        alone(_ends, "large", most_bytes=700 << 20)


def test_a_file_at_which_workers_were_killed_by_chance_is_read_all_the_same(
    hearts: list[Path], scheduler: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / ROOM / "00000000"
    for _ in range(2):
        Tries(folder).begin("reading")
    job = Job(path=hearts[0], out=tmp_path / "out", settings=SETTINGS)
    with Client(scheduler) as client:
        result = client.submit(FileTask(job=job, folder=folder, ahead=1), pure=False).result()
    assert result.error is None
    assert len(result.series) == 4


def test_what_a_killed_replay_left_in_journals_is_not_done_again(hearts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    replay(hearts[:1], out, SETTINGS)
    known = [dict(row) for row in query(out, "slice < 2")]
    entries = _whole_rows(out)
    for path in out.glob("ledger.sqlite*"):
        path.unlink()
    journal = Journal(out / ROOM / "00000001")
    for row in entries[:2]:
        journal.note(row)
    with (out / ROOM / "00000001" / "rows.jsonl").open("ab") as stream:
        stream.write(b'\n{"status": "do')  # killed while it wrote
    (result,) = replay(hearts[:1], out, SETTINGS, resume=True)
    assert result.skipped == len(known) == 2
    assert [entry["slice"] for entry in result.series] == [0, 1, 2, 3]


def _whole_rows(out: Path) -> list[dict[str, object]]:
    with contextlib.closing(sqlite3.connect(out / "ledger.sqlite")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM slices ORDER BY slice")]


def test_a_journal_tells_whole_rows_once(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "1"), JournalReader(tmp_path / "1")
    assert reader.news() == []
    row = {"status": "done", "input_sha256": "a", "key": "k", "input": "b\udcff.h5"}
    journal.note(row)
    with (tmp_path / "1" / "rows.jsonl").open("ab") as stream:
        stream.write(b'\n{"half')
    assert [one["status"] for one in reader.news()] == ["done"]
    journal.note({**row, "status": "failed"})
    assert [one["status"] for one in reader.news()] == ["failed"]
    assert len(journal.done("a", "k")) == 1


def test_marks_are_left_by_killed_processes_until_there_is_progress(tmp_path: Path) -> None:
    tries = Tries(tmp_path)
    for _ in range(2):
        tries.begin("reading")
    assert (tries.killed("reading"), tries.killed("slice 1")) == (2, 0)
    tries.forget("reading")
    for _ in range(3):
        with tries.at("reading"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_scheduler_that_is_none_is_one_line(hearts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Dask scheduler answers"):
        replay(hearts, tmp_path, SETTINGS, scheduler="no-protocol://x")
    command = ["replay", str(hearts[0]), "--out", str(tmp_path / "out"), "--scheduler", "no-protocol://x"]
    assert run(command) == 2


def test_nothing_is_left_of_a_client_that_found_no_scheduler(hearts: list[Path], tmp_path: Path) -> None:
    # Ended by the collector while another one starts, it would wait for that one's lock, for ever.
    gc.disable()
    try:
        with pytest.raises(ConfigError, match="no Dask scheduler answers"):
            replay(hearts, tmp_path, SETTINGS, scheduler="no-protocol://x")
        left = [one for one in gc.get_objects() if type(one) is Client and one.status != "closed"]
    finally:
        gc.enable()
    assert left == []


def test_an_error_in_one_file_is_the_same_by_any_worker(
    hearts: list[Path], scheduler: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"nothing")
    (alone,) = replay([bad], tmp_path / "alone", SETTINGS)
    spread = replay([bad, hearts[0]], tmp_path / "spread", SETTINGS, scheduler=scheduler)
    assert [result.error for result in spread] == [alone.error, None]
    assert np.unique([row["status"] for row in query(tmp_path / "spread", "")]).tolist() == ["done", "failed"]
    assert threading.active_count() < 200


def test_a_worker_that_is_gone_for_good_is_replaced() -> None:
    with processes(1) as client:
        (nanny,) = client.cluster.workers.values()
        client.sync(nanny.close)  # as after a kill while it started
        until = time.monotonic() + 60
        while client.scheduler_info(n_workers=-1)["workers"] and time.monotonic() < until:
            time.sleep(0.05)
        while not client.scheduler_info(n_workers=-1)["workers"] and time.monotonic() < until:
            keep_all(client, 0)
            time.sleep(0.5)
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3
