"""What nobody foresaw belongs to one instance or one destination; the rest goes on."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest
from delivery_hostile import HostileScp, RawServer, say_garbage
from delivery_parts import make_instance
from pydicom import dcmread

from recon_node.core.errors import DicomError
from recon_node.delivery import (
    DeliveryWorker,
    Outcome,
    Policy,
    Spool,
    SpoolFull,
    StorageScp,
    open_destination,
    read_instance,
)

Instances = Callable[..., list[Path]]
QUICK = "?connect=1&associate=1&answer=1&network=1"
EAGER = Policy(first_wait=0.01, longest_wait=0.05, poll=0.02, jitter=0, give_up_after=3)
GE_PRIVATE = "1.2.840.113619.5.2"


class Scripted:
    """A destination of somebody else's code, which raises what `act` raises for a file."""

    name = "pacs"
    commits = False

    def __init__(self, act: Callable[[Path], None]) -> None:
        self.act = act
        self.got: list[str] = []
        self.closed = 0

    def deliver(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        for file in files:
            self.act(file)
            self.got.append(read_instance(file).uid)
            yield Outcome(file)

    def send(self, files: Sequence[Path]) -> None:
        list(self.deliver(files))

    def ask_commitment(self, instances: object, transaction: str) -> None:
        return None

    def echo(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed += 1


def counts(spool: Spool) -> dict[str, int]:
    return {k: v for k, v in spool.counts().get("pacs", {}).items() if v}


def until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("x"),
        MemoryError(),
        RuntimeError("can't start new thread"),
        RecursionError(),
        KeyError(1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_poison_instance_becomes_a_dead_letter_and_the_others_are_delivered(
    tmp_path: Path, instances: Instances, error: Exception
) -> None:
    files = instances(5)
    poison = read_instance(files[0]).uid

    def act(file: Path) -> None:
        if read_instance(file).uid == poison:
            raise error

    with Spool(tmp_path / "spool") as spool:
        spool.put(files, ["pacs"])
        destination = Scripted(act)
        with DeliveryWorker(spool, {"pacs": destination}, policy=EAGER) as worker:
            assert until(lambda: counts(spool) == {"dead": 1, "delivered": 4})
            assert worker.trouble() is None
        [dead] = spool.entries(state="dead")
        assert dead.uid == poison
        assert type(error).__name__ in str(dead.reason)


def test_a_destination_that_always_raises_does_not_end_delivery_to_another(
    tmp_path: Path, instances: Instances
) -> None:
    def act(file: Path) -> None:
        raise ZeroDivisionError

    with Spool(tmp_path / "spool") as spool, StorageScp(tmp_path / "kept") as scp:
        spool.put(instances(6), ["broken", "well"])
        both = {"broken": Scripted(act), "well": open_destination(scp.address)}
        with DeliveryWorker(spool, both, policy=EAGER) as worker:
            assert until(lambda: len(scp.files()) == 6)
            assert worker.trouble() is None


@pytest.mark.parametrize("size", [6, 7, 12])
def test_a_peer_with_an_absurd_pdu_length_costs_nothing_but_its_own_instances(
    tmp_path: Path, instances: Instances, size: int
) -> None:
    with Spool(tmp_path / "spool") as spool, HostileScp(pdu_bytes=size) as scp:
        with StorageScp(tmp_path / "kept") as well:
            spool.put(instances(2), ["pacs", "well"])
            both = {"pacs": open_destination(scp.address + QUICK), "well": open_destination(well.address)}
            with DeliveryWorker(spool, both, policy=EAGER) as worker:
                assert until(lambda: len(well.files()) == 2)
                assert until(lambda: worker.status()["pacs"].failed > 0 or not spool.claim("pacs"))
                assert worker.trouble() is None


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_a_private_transfer_syntax_is_sent_as_it_is_where_the_peer_takes_it(
    tmp_path: Path, instances: Instances
) -> None:
    [file] = instances(1)
    data = bytearray(file.read_bytes())
    meta = dcmread(file)
    meta.file_meta.TransferSyntaxUID = GE_PRIVATE
    meta.save_as(file, implicit_vr=True, little_endian=True)
    assert data != file.read_bytes()
    with HostileScp(syntaxes=[GE_PRIVATE]) as scp:
        destination = open_destination(scp.address + QUICK)
        [outcome] = destination.deliver([file])
        destination.close()
        assert outcome.error is None
        assert len(scp.held) == 1


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_a_private_transfer_syntax_nobody_takes_is_a_dead_letter_and_the_others_go_on(
    tmp_path: Path, instances: Instances
) -> None:
    first, *others = instances(3)
    odd = dcmread(first)
    odd.file_meta.TransferSyntaxUID = GE_PRIVATE
    odd.save_as(first, implicit_vr=True, little_endian=True)
    with Spool(tmp_path / "spool") as spool, HostileScp() as scp:
        spool.put([first, *others], ["pacs"], priority=9)
        with DeliveryWorker(spool, {"pacs": open_destination(scp.address + QUICK)}, policy=EAGER) as worker:
            assert until(lambda: counts(spool) == {"dead": 1, "delivered": 2})
            assert worker.trouble() is None
        assert "private transfer syntax" in str(spool.entries(state="dead")[0].reason)


def test_a_nul_in_a_uid_is_refused_aloud(tmp_path: Path, instances: Instances, spool: Spool) -> None:
    [file] = instances(1)
    uid = dcmread(file).SOPInstanceUID
    file.write_bytes(file.read_bytes().replace(uid.encode(), uid[:5].encode() + b"\0" + uid[6:].encode()))
    with pytest.raises(DicomError, match="is no UID"):
        spool.put([file], ["pacs"])
    assert spool.entries() == []


def test_an_instance_that_brings_the_whole_destination_down_does_not_hold_up_the_others(
    tmp_path: Path, instances: Instances
) -> None:
    from recon_node.core.errors import PacsUnreachable

    files = instances(20)
    poison = read_instance(files[0]).uid

    def act(file: Path) -> None:
        if read_instance(file).uid == poison:
            raise PacsUnreachable("the connection broke while this one was proposed")

    with Spool(tmp_path / "spool") as spool:
        spool.put(files, ["pacs"])
        destination = Scripted(act)
        with DeliveryWorker(spool, {"pacs": destination}, policy=EAGER):
            assert until(lambda: counts(spool).get("delivered") == 19)


def test_nothing_counts_against_instances_while_the_destination_is_away(
    tmp_path: Path, instances: Instances, clock
) -> None:
    with Spool(tmp_path / "spool", clock=clock) as spool:
        with RawServer(say_garbage) as server:
            worker = DeliveryWorker(spool, {"pacs": open_destination(server.address + QUICK)}, policy=EAGER)
            spool.put(instances(3), ["pacs"])
            for _ in range(8):
                worker.send_once("pacs")
                clock.advance(10)
        worker.stop()
        assert counts(spool) == {"waiting": 3}
        assert [e.attempts for e in spool.entries()] == [0, 0, 0]


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/chattr").exists(), reason="needs chattr")
def test_an_unwritable_spool_is_told_and_delivery_goes_on_when_it_is_back(
    tmp_path: Path, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    with Spool(tmp_path / "spool") as spool:
        spool.put(instances(4), ["pacs"])
        destination = Scripted(lambda file: sent.append(read_instance(file).uid))
        worker = DeliveryWorker(spool, {"pacs": destination}, policy=EAGER)
        real_rename, real_open = Path.rename, os.open

        def refuse(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            with worker:
                assert until(lambda: len(sent) == 4)
                time.sleep(0.3)
                patch.setattr(
                    os,
                    "open",
                    lambda path, flags, *a: refuse() if flags & os.O_CREAT else real_open(path, flags, *a),
                )
                assert "Read-only" in str(worker.trouble())
                patch.setattr(os, "open", real_open)
                patch.setattr(Path, "rename", real_rename)
                assert until(lambda: counts(spool) == {"delivered": 4})
                assert worker.trouble() is None
    assert len(sent) == 4


@pytest.mark.parametrize("damage", ["readonly", "gone"])
def test_a_spool_that_cannot_be_written_refuses_aloud(
    tmp_path: Path, instances: Instances, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    with Spool(tmp_path / "spool") as spool:
        number = 30 if damage == "readonly" else 116

        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            with pytest.raises(SpoolFull, match="cannot write to the spool"):
                spool.put(instances(1), ["pacs"])
            with pytest.raises(SpoolFull):
                spool.check_writable()
        spool.put(instances(1), ["pacs"])


def test_the_index_is_not_mapped_into_memory(spool: Spool, instances: Instances) -> None:
    spool.put(instances(3), ["pacs"])
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(spool.folder) in line]
    assert mapped == []
    assert not list(spool.folder.glob("*-shm"))


def test_each_delivery_and_each_failure_is_a_log_line_with_its_destination(
    tmp_path: Path, instances: Instances, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="recon_node"), HostileScp("refused") as scp:
        with Spool(tmp_path / "spool") as spool:
            spool.put(instances(3, PatientName="Muster^Erika"), ["pacs"])
            worker = DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER)
            worker.send_once("pacs")
            worker.stop()
    lines = [r for r in caplog.records if getattr(r, "outcome", None) in ("delivered", "failed")]
    assert sorted(r.outcome for r in lines) == ["delivered", "delivered", "failed"]
    assert {r.destination for r in lines} == {"pacs"}
    [failure] = [r for r in lines if r.outcome == "failed"]
    assert "0xC000" in failure.reason
    assert "Muster" not in caplog.text


def test_the_status_tells_what_each_destination_does(tmp_path: Path, instances: Instances, clock) -> None:
    with Spool(tmp_path / "spool", clock=clock) as spool, HostileScp("refused") as scp:
        away = f"dicom://X@127.0.0.1:1{QUICK}"
        spool.put(instances(3), ["well", "away"])
        clock.advance(7)
        both = {"well": open_destination(scp.address), "away": open_destination(away)}
        worker = DeliveryWorker(spool, both, policy=EAGER)
        worker.send_once("well")
        worker.send_once("away")
        worker.stop()
        status = worker.status()
    assert (status["well"].delivered, status["well"].failed, status["well"].dead) == (2, 1, 1)
    assert status["well"].up
    assert status["well"].oldest_waiting_s == 0
    assert not status["away"].up
    assert "refused" in str(status["away"].trouble)
    assert status["away"].oldest_waiting_s == pytest.approx(7)


def test_a_thread_that_is_down_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError

    with Spool(tmp_path / "spool") as spool:
        worker = DeliveryWorker(spool, {"pacs": Scripted(lambda _: None)}, policy=EAGER)
        monkeypatch.setattr(type(worker._confirming["pacs"]), "once", fail)
        with worker:
            assert until(lambda: worker.trouble() is not None)
            assert "confirm-pacs" in str(worker.trouble())


def test_odd_instances_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    good = make_instance(tmp_path / "good.dcm", 1)
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(good.read_bytes()[:-10])
    with pytest.raises(DicomError, match=r"bad\.dcm is cut off"), Spool(tmp_path / "spool") as spool:
        spool.put([good, bad], ["pacs"])
