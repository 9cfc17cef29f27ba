"""Folders that somebody else can write to: links, pipes and devices in them, and names that change what they lead to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from delivery_parts import make_instance

from benchmarks.fault_mutants import in_a_fork, judged
from benchmarks.fault_node import MOST_MB
from benchmarks.fault_parts import KINDS, Experiments, Verdict
from benchmarks.stream_cuts import small_scan

_PATIENCE_S = 60.0
_RACE_S = 6.0
_RACES = 20


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def odd_folder(name: str) -> Callable[[Experiments], Experiments]:
    def register(make: Experiments) -> Experiments:
        KINDS.append((f"hostile file: {name}", make))
        return make

    return register


# ---------------------------------------------------------------- a folder that is watched


class Watch:
    """``recon-node replay IN --watch`` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.scan, config = small_scan(folder)
        self.inside, self.out = folder / "in", folder / "out"
        self.inside.mkdir()
        self._log = folder / "log"
        command = ["replay", str(self.inside), "--watch", "--out", str(self.out), "--config", str(config)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recon_node", *command], stdout=log, stderr=log
            )

    def put(self, name: str) -> None:
        """A whole scan, under its name at once."""
        part = self.scan.with_name(f"{name}.part")
        part.write_bytes(self.scan.read_bytes())
        os.utime(part, (time.time() - 10,) * 2)
        part.rename(self.inside / name)

    def done(self, name: str) -> bool:
        """Whether a scan's images come, within our patience."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end and self.process.poll() is None:
            if any(line.startswith(f"{name} slice 1:") for line in self.told()):
                return True
            time.sleep(0.1)
        return False

    def told(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def peak_mb(self) -> float:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) / 1024
        return 0.0

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def judge_watch(watch: Watch, outside: Path, faults: int) -> Verdict:
    """A good scan behind it is done, nothing got out, and it ends when it is asked to."""
    before = sorted(outside.rglob("*"))
    watch.put("good.mrd")
    began = time.monotonic()
    lost = int(not watch.done("good.mrd"))
    good_s = time.monotonic() - began
    peak = watch.peak_mb()
    code = watch.stop()
    told = watch.told()
    return Verdict(
        faults=faults,
        lost=lost,
        stuck=int(code != 130) + int(peak > MOST_MB),
        outside=len(sorted(outside.rglob("*"))) - len(before),
        dead=sum(line.startswith("Traceback") for line in told),
        peak_mb=peak,
        good_s=good_s,
    )


@odd_folder("a watched folder with links, pipes and devices made while it is watched")
def watched(folder: Path, short: bool) -> Iterator[Verdict]:
    watch = Watch(folder)
    inside, outside = watch.inside, folder / "outside"
    outside.mkdir()
    (outside / "real.mrd").write_bytes(watch.scan.read_bytes())
    watch.put("first.mrd")
    lost = int(not watch.done("first.mrd"))
    made: list[Callable[[], object]] = [
        lambda: (inside / "passwd.mrd").symlink_to("/etc/passwd"),
        lambda: (inside / "nowhere.mrd").symlink_to(folder / "absent"),
        lambda: (inside / "itself.mrd").symlink_to("itself.mrd"),
        lambda: (inside / "round").symlink_to(inside),
        lambda: (inside / "root").symlink_to("/proc/self"),
        lambda: (inside / "zero.mrd").symlink_to("/dev/zero"),
        lambda: (inside / "random.h5").symlink_to("/dev/urandom"),
        lambda: os.mkfifo(inside / "pipe.mrd"),
        lambda: (inside / "pipe.h5").symlink_to("pipe.mrd"),
        lambda: _socket(inside / "socket.mrd"),
        (inside / "folder.mrd").mkdir,
        lambda: os.link(outside / "real.mrd", inside / "hard.mrd"),
        lambda: (inside / "outside.mrd").symlink_to(outside / "real.mrd"),
        lambda: (inside / "noise.h5").write_bytes(os.urandom(4000)),
        (inside / "empty.mrd").touch,
        lambda: (inside / "unreadable.mrd").touch(0),
        lambda: os.link(watch.scan, os.fsencode(inside) + b"/\xff\n.mrd"),
    ]
    for make in made:
        make()
    watch.put("second.mrd")
    lost += int(not watch.done("second.mrd"))
    verdict = judge_watch(watch, outside, len(made))
    verdict.lost += lost
    yield verdict


@odd_folder("names in a watched folder that lead elsewhere from moment to moment")
def racing_watch(folder: Path, short: bool) -> Iterator[Verdict]:
    watch = Watch(folder)
    outside = folder / "outside"
    outside.mkdir()
    watch.put("first.mrd")
    lost = int(not watch.done("first.mrd"))
    stop = threading.Event()
    thread = threading.Thread(target=swap, args=(watch.inside, watch.scan, stop))
    thread.start()
    stop.wait(1.0 if short else 3 * _RACE_S)
    stop.set()
    thread.join()
    for path in watch.inside.glob("race*"):
        path.unlink()
    verdict = judge_watch(watch, outside, _RACES)
    verdict.lost += lost
    yield verdict


def swap(inside: Path, scan: Path, stop: threading.Event) -> None:
    """A name that is a scan, a pipe and an endless device in turn, as fast as it goes."""
    pipe, whole = inside.parent / "race-pipe", inside.parent / "race-whole"
    os.mkfifo(pipe)
    whole.write_bytes(scan.read_bytes())
    os.utime(whole, (time.time() - 10,) * 2)
    spare = inside.parent / "race-spare"
    while not stop.is_set():
        for suffix in (".mrd", ".h5"):
            for target in (whole, pipe, whole, Path("/dev/zero")):
                spare.symlink_to(target)
                spare.replace(inside / f"race{suffix}")


@odd_folder("names that lead elsewhere between looking and opening")
def racing_files(folder: Path, short: bool) -> Iterator[Verdict]:
    """Commands that take one file, while its name leads to something else from moment to moment."""
    scan, config = small_scan(folder)
    inside = folder / "in"
    inside.mkdir()
    stop = threading.Event()
    thread = threading.Thread(target=swap, args=(inside, scan, stop))
    thread.start()
    try:
        for number in range(2 if short else _RACES):
            path = inside / f"race{('.mrd', '.h5')[number % 2]}"
            while not path.is_symlink():
                time.sleep(0.01)
            out = str(folder / f"out{number}")
            yield judged(in_a_fork(["inspect", str(path)]))
            yield judged(in_a_fork(["replay", str(path), "--out", out, "--config", str(config), "-q"]))
    finally:
        stop.set()
        thread.join()


# ---------------------------------------------------------------- folders that are written to


@odd_folder("links, pipes and devices in the folder of images")
def images(folder: Path, short: bool) -> Iterator[Verdict]:
    scan, config = small_scan(folder)
    plain = folder / "plain"
    in_a_fork(replaying(scan, plain, config))
    series = sorted({path.parent.relative_to(plain) for path in plain.rglob("*.dcm")})
    names = [series[0].parent, *series, Path("summary.json"), Path("report"), Path("nifti"), Path(".replay")]
    names += [Path("ledger.sqlite"), Path(".replay.lock"), Path("report/index.html")]
    makers: dict[str, Callable[[Path, Path], object]] = {
        "link to a folder outside": lambda path, outside: path.symlink_to(outside),
        "link to a file outside": lambda path, outside: path.symlink_to(outside / "precious"),
        "dangling link": lambda path, outside: path.symlink_to(outside / "made"),
        "link to itself": lambda path, outside: path.symlink_to(path),
        "pipe": lambda path, outside: os.mkfifo(path),
        "device": lambda path, outside: path.symlink_to("/dev/full"),
        "file": lambda path, outside: path.write_text("in the way"),
    }
    for what, make in makers.items():
        for number, name in enumerate(names):
            root = Path(tempfile.mkdtemp(dir=folder))
            out, outside = root / "out", root / "outside"
            (out / name).parent.mkdir(parents=True)
            outside.mkdir()
            (outside / "precious").write_text("precious")
            make(out / name, outside)
            verdict = judged(in_a_fork([*replaying(scan, out, config), "--report", "--nifti"]))
            kept = (outside / "precious").read_text() == "precious"
            verdict.outside = len(list(outside.iterdir())) - 1 + int(not kept)
            yield verdict
            if short and number == 1:
                break
        if short and what == "dangling link":
            return


def replaying(scan: Path, out: Path, config: Path) -> list[str]:
    return ["replay", str(scan), "--out", str(out), "--config", str(config), "-q"]


@odd_folder("links, pipes and devices in the spool")
def spool(folder: Path, short: bool) -> Iterator[Verdict]:
    """In the place of each folder that a spool has, and among its entries; an export goes through or says why not."""
    make_instance(folder / "one.dcm", 1)
    settings = '[delivery]\nreserve_mb = 0\nspool = "{}"\n'
    config = folder / "plain.toml"
    config.write_text(settings.format(folder / "plain"))
    in_a_fork(["export", str(folder / "one.dcm"), "--to", str(folder / "share"), "--config", str(config)])
    names = [path.relative_to(folder / "plain") for path in sorted((folder / "plain").rglob("*"))]
    for number, name in enumerate(names[: 2 if short else None]):
        for kind in ("folder", "file", "pipe"):
            root = folder / f"{number}-{kind}"
            outside = root / "outside"
            outside.mkdir(parents=True)
            (outside / "precious").write_text("precious")
            (root / "spool" / name).parent.mkdir(parents=True)
            if kind == "pipe":
                os.mkfifo(root / "spool" / name)
            else:
                (root / "spool" / name).symlink_to(outside / ("precious" if kind == "file" else "."))
            config = root / "node.toml"
            config.write_text(settings.format(root / "spool"))
            words = ["export", str(folder / "one.dcm"), "--to", str(root / "share"), "--config", str(config)]
            verdict = judged(in_a_fork(words))
            precious = outside / "precious"
            verdict.outside = int(not precious.is_file() or precious.read_text() != "precious")
            yield verdict
