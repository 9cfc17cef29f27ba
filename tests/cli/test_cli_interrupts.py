"""Ctrl-C as a terminal sends it: to every process of the command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recon_node.cli import run
from recon_node.delivery import Spool
from recon_node.simulate import simulate_scan

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data that takes a while."""
    raw = tmp_path_factory.mktemp("raw") / "heart.h5"
    simulate_scan(raw, acceleration=8, pattern="random", coils=8, slices=4, phases=15, matrix=96, seed=1)
    return raw


@dataclass
class Silent:
    """A peer that takes a connection and never says a word."""

    port: int
    called: threading.Event


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Silent(server.getsockname()[1], threading.Event())
        server.settimeout(PATIENCE_S)
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(TimeoutError):
                taken.append(server.accept()[0])
                peer.called.set()

        taking = threading.Thread(target=take)
        taking.start()
        yield peer
        taking.join()
        for connection in taken:
            connection.close()


GOES_ON = "recon-node: interrupted: the same command with --resume goes on where it stopped"


def until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for `reached` while `process` runs."""
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the command did not get there in time"
        time.sleep(0.02)


def interrupted(
    arguments: list[str],
    reached: Callable[[], bool],
    code: int = signal.SIGINT,
    stdout: int = subprocess.DEVNULL,
) -> tuple[int, str]:
    """Exit code and stderr of a command that gets Ctrl-C (or `code`) once `reached` says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "recon_node", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(reached, process)
        os.killpg(process.pid, code)
        told = process.communicate(timeout=PATIENCE_S)[1].strip()
        end = time.monotonic() + PATIENCE_S
        while group_lives(process.pid):
            assert time.monotonic() < end, "a process of the command outlived it"
            time.sleep(0.02)
    finally:
        if group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, told


def group_lives(group: int) -> bool:
    """Whether a process group has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_replay_says_how_to_go_on_and_leaves_whole_series_only(
    heart: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    arguments = ["replay", str(heart), "--out", str(tmp_path), "--method", "kt"]
    code, told = interrupted(arguments, lambda: any(tmp_path.rglob("*.dcm")), sent)
    assert (code, told) == (130, GOES_ON)
    for series in {path.parent for path in tmp_path.rglob("*.dcm")}:
        assert len(list(series.glob("*.dcm"))) == 15


def test_ctrl_c_ends_the_workers_of_a_replay_without_a_word_of_theirs(heart: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for copy in copies:
        os.link(heart, copy)
    out = tmp_path / "out"
    arguments = ["replay", *map(str, copies), "--out", str(out), "--workers", "2", "--method", "kt"]
    code, told = interrupted(arguments, lambda: any(out.rglob("*.dcm")))
    assert (code, told) == (130, GOES_ON)


@pytest.mark.parametrize(
    ("more", "again"), [("--resume", "the same command goes on"), ("--watch", "the same command goes on")]
)
def test_a_replay_that_goes_on_by_itself_says_so(heart: Path, tmp_path: Path, more: str, again: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    os.link(heart, folder / "a.h5")
    out = tmp_path / "out"
    arguments = ["replay", str(folder), "--out", str(out), "--method", "kt", more]
    code, told = interrupted(arguments, lambda: any(out.rglob("*.dcm")))
    assert code == 130
    assert told.splitlines()[-1] == f"recon-node: interrupted: {again} where it stopped"


def test_ctrl_c_ends_a_demo_before_it_is_through(tmp_path: Path) -> None:
    code, told = interrupted(["demo", "--out", str(tmp_path)], lambda: any(tmp_path.glob("pacs/**/*.dcm")))
    assert (code, told) == (130, "recon-node: interrupted")
    assert not (tmp_path / "report.html").exists()


def test_ctrl_c_ends_a_simulation_without_half_a_file(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    arguments = ["simulate", str(out), "--slices", "40"]
    code, told = interrupted(arguments, lambda: any(tmp_path.iterdir()))
    assert (code, told) == (130, "recon-node: interrupted")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_where_python_drops_exceptions(sent: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "dropped.py"
    script.write_text(
        "import os, signal, time, click\n"
        "from recon_node import cli\n"
        "class Dying:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), signal.{sent.name})\n"
        "        for _ in range(1000): time.sleep(0.001)\n"
        "@cli.cli.command('wait')\n"
        "def wait():\n"
        "    dying = Dying()\n"
        "    del dying\n"
        "    print('went on', flush=True)\n"
        "    time.sleep(60)\n"
        "cli.LazyGroup.get_command = lambda self, ctx, name: wait\n"
        "cli.main(['wait'])\n",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr.strip()) == (130, "recon-node: interrupted")
    assert ended.stdout.strip() == "went on"


@pytest.mark.parametrize(("signal_", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_server_is_ended_by_either_signal_and_says_so(signal_: int, expected: int, tmp_path: Path) -> None:
    listening = tmp_path / "listening"
    with listening.open("w") as told_there:
        code, told = interrupted(
            ["serve", "--port", "0", "--method", "sense", "--out", str(tmp_path / "images")],
            lambda: "listening" in listening.read_text(),
            signal_,
            stdout=told_there.fileno(),
        )
    assert code == expected
    assert told == "stopping: running scans may end"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_server_at_once_and_aborts_nothing(second: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recon_node", "serve", "--port", "0", "--method", "sense"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "images")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline().partition(",")[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 20) as silent:
            silent.sendall(b"\x05\x00")  # the beginning of a message: the connection is being served
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            told = iter(process.stderr.readline, "")
            assert any("stopping" in line for line in told)
            process.send_signal(second)
            assert process.wait(20) == (1 if second == signal.SIGTERM else 130)
        assert "Fatal Python error" not in process.stderr.read()


def test_ctrl_c_ends_an_export_to_a_pacs_that_never_answers_and_loses_nothing(
    heart: Path, silent: Silent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_NODE__DELIVERY__SPOOL", str(tmp_path / "spool"))
    images = tmp_path / "images"
    assert run(["replay", str(heart), "--out", str(images), "--method", "zero-filled"]) == 0
    address = f"dicom://PACS@127.0.0.1:{silent.port}?associate=600"
    code, told = interrupted(["export", str(images), "--to", address], silent.called.is_set)
    assert (code, told) == (130, "recon-node: interrupted")
    assert len(list(images.rglob("*.dcm"))) == 60
    with Spool(tmp_path / "spool") as spool:
        counts = spool.counts()[address]
    assert counts["waiting"] > 0
    assert sum(counts.values()) == counts["waiting"]


def test_ctrl_c_ends_a_client_without_half_a_file_of_images(
    heart: Path, silent: Silent, tmp_path: Path
) -> None:
    arguments = ["send", str(heart), "--port", str(silent.port), "--out", str(tmp_path / "back.h5")]
    assert interrupted(arguments, silent.called.is_set) == (130, "recon-node: interrupted")
    assert not list(tmp_path.iterdir())
