"""Files that are odd, cut or hostile, through export and into folders."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from delivery_parts import make_instance

from benchmarks.fault_parts import EAGER, KINDS, Ledger, Verdict, finish, kind, make_files
from recon_node.cli import run
from recon_node.core.errors import DicomError, ReconNodeError
from recon_node.delivery import DeliveryWorker, Spool
from recon_node.offline.export import export
from recon_node.settings import DeliverySettings

EVIL = ["../../../x", "/abs", "..", "a/b/c", "..\\..", "x" * 64, " ", "\x01", "~", "%2e%2e"]


@kind("study and series UIDs that are paths")
def escapes(folder: Path, short: bool) -> Iterator[Verdict]:
    """The names are put into the bytes: no writer would."""
    for number, evil in enumerate(EVIL[: 2 if short else None]):
        root = folder / str(number) / "deep" / "er"
        root.mkdir(parents=True)
        file = make_instance(root / "1.dcm", number)
        for uid in (b"1.2.3.1\0", b"1.2.3.2\0"):
            value = evil.encode()[:64]
            value += b" " * (len(value) % 2)
            data = file.read_bytes()
            at = data.index(uid) - 2
            file.write_bytes(data[:at] + len(value).to_bytes(2, "little") + value + data[at + 2 + len(uid) :])
        settings = DeliverySettings(spool=str(root / "spool"), reserve_mb=0)
        result = export([file], str(root / "share"), settings)
        kept = [p for p in (root / "share").rglob("*.dcm") if p.is_file()]
        written = [p for p in (folder / str(number)).rglob("*.dcm") if p.is_file() and p != file]
        outside = sum(not p.is_relative_to(root / "share") and "spool" not in p.parts for p in written)
        yield Verdict(lost=result.found - len(kept), outside=outside, stuck=result.waiting + len(result.dead))


@kind("odd SOP instance UIDs while the PACS is away")
def odd_uids(folder: Path, short: bool) -> Iterator[Verdict]:
    odd = ["1.2.ABC", "1.2 3", "x" * 64, "a/b", "..", "100%", "x" * 65, "y" * 250, "1.2\x01"]
    for number, uid in enumerate(odd[: 3 if short else None]):
        root = folder / str(number)
        root.mkdir()
        with mock.patch("warnings.warn"):
            file = make_instance(root / "1.dcm", number, SOPInstanceUID=uid)
        with Spool(root / "spool") as spool:
            try:
                spool.put([file], ["pacs"])
            except DicomError:
                yield Verdict(stuck=int(len(uid) <= 64 and uid.isprintable()))
                continue
            spool.reconcile()
            yield finish(spool, Ledger(root / "ledger"), [file])


def torn(name: str, harm: Callable[[bytes], bytes]) -> None:
    """A damaged file among whole ones: told, and only the whole ones arrive."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        for number in range(1 if short else 8):
            root = folder / str(number)
            files = make_files(root / "in", 4)
            files[number % 4].write_bytes(harm(files[number % 4].read_bytes()))
            result = export(
                [root / "in"], str(root / "share"), DeliverySettings(spool=str(root / "spool"), reserve_mb=0)
            )
            kept = len(list((root / "share").rglob("*.dcm")))
            told = len(result.unusable) + len(result.left_out)
            yield Verdict(lost=max(0, 3 - kept), twice=max(0, kept - 3), stuck=abs(told - 1))

    KINDS.append((f"file: {name}", experiments))


torn("pixels cut off", lambda d: d[:-100])
torn("one byte short", lambda d: d[:-1])
torn("cut off in the middle", lambda d: d[: len(d) // 2])
torn("cut off in the header", lambda d: d[:200])
torn("without preamble", lambda d: d[132:])
torn("empty", lambda d: b"")
torn("text", lambda d: b"a report\n")
torn("sequences without end", lambda d: d + b"\x08\x00\x99\x11SQ\0\0\xff\xff\xff\xff" * 2000)
torn(
    "more frames than pixels",
    lambda d: d.replace(b"\x28\x00\x10\x00US\x02\x00\x10\x00", b"\x28\x00\x10\x00US\x02\x00\xff\xff"),
)


@kind("mutated DICOM through the export command")
def mutated(folder: Path, short: bool) -> Iterator[Verdict]:
    """One line each for those that are no use, no traceback, and the whole ones arrive."""
    rng = random.Random(7)
    for batch in range(1 if short else 30):
        root = folder / str(batch)
        (root / "in").mkdir(parents=True)
        for number in range(20 if short else 100):
            data = bytearray(make_instance(root / "seed.dcm", batch * 100 + number).read_bytes())
            for _ in range(rng.choice((1, 1, 2, 5, 50))):
                action, at = rng.randrange(4), rng.randrange(len(data))
                if action == 0:
                    data[at] = rng.randrange(256)
                elif action == 1:
                    del data[at : at + rng.randrange(1, 40)]
                elif action == 2:
                    data[at:at] = rng.randbytes(rng.randrange(1, 40))
                else:
                    data[at : at + 4] = b"\xff\xff\xff\xff"
            (root / "in" / f"{number}.dcm").write_bytes(bytes(data))
        yield exported(root)


def exported(root: Path) -> Verdict:
    errors, output = io.StringIO(), io.StringIO()
    environment = {
        "RECON_NODE__DELIVERY__SPOOL": str(root / "spool"),
        "RECON_NODE__DELIVERY__RESERVE_MB": "0",
    }
    uncaught = 0
    with mock.patch.dict(os.environ, environment), mock.patch("warnings.warn"):
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            try:
                run(["export", str(root / "in"), "--to", str(root / "share")])
            except Exception:
                uncaught = 1
    lines = errors.getvalue().splitlines()
    odd = sum(not line.startswith("recon-node: ") or len(line) > 300 + len(str(root)) for line in lines)
    count = len(list((root / "in").iterdir()))
    with Spool(root / "spool") as spool:
        states = {s: len(spool.entries(state=s)) for s in ("waiting", "stored", "dead", "delivered")}
    refused = sum("not sent:" in line for line in lines)
    return Verdict(
        faults=count,
        lost=max(0, count - refused - sum(states.values())),
        stuck=states["waiting"] + states["stored"] + states["dead"] + odd,
        dead=uncaught,
    )


@kind("spool made immutable while in use")
def immutable(folder: Path, short: bool) -> Iterator[Verdict]:
    files = make_files(folder / "instances")
    for number in range(1 if short else 4):
        root = folder / str(number)
        root.mkdir()
        with Spool(root / "spool") as spool:
            spool.put(files, ["pacs"])
            index = root / "spool" / "index.sqlite3"
            if subprocess.run(["chattr", "+i", str(index)], check=False, capture_output=True).returncode:
                return
            worker = DeliveryWorker(spool, {"pacs": Ledger(root / "ledger")}, policy=EAGER)
            try:
                with contextlib.suppress(ReconNodeError):
                    worker.send_once("pacs")
            finally:
                subprocess.run(["chattr", "-i", str(index)], check=True)
            yield finish(spool, Ledger(root / "ledger"), files)


@kind("spool read-only after the PACS answered")
def read_only(folder: Path, short: bool) -> Iterator[Verdict]:
    """The success cannot be written down at first; it must not be sent again."""
    files = make_files(folder / "instances")
    for number in range(1 if short else 6):
        with Spool(folder / str(number)) as spool:
            ledger = Ledger(folder / f"ledger{number}")
            worker = DeliveryWorker(spool, {"pacs": ledger}, policy=EAGER)
            spool.put(files, ["pacs"])

            def refuse(*_: object) -> None:
                raise OSError(30, "Read-only file system")

            with mock.patch.object(Path, "rename", refuse):
                for _ in range(number + 1):
                    with contextlib.suppress(ReconNodeError):
                        worker.send_once("pacs")
            for _ in range(20):
                time.sleep(0.06)
                with contextlib.suppress(ReconNodeError):
                    worker.send_once("pacs")
            got = ledger.received()
            left = sum(len(spool.entries(state=s)) for s in ("waiting", "stored", "dead"))
            yield Verdict(lost=len(files) - len(got), twice=sum(got.values()) - len(got), stuck=left)
