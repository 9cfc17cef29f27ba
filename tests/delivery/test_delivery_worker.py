from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from delivery_hostile import HostileScp
from delivery_parts import make_instance
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.delivery import DeliveryWorker, Policy, Spool, StorageScp, open_destination

Instances = Callable[..., list[Path]]
QUICK = "?connect=1&associate=1&answer=1&network=1"


def make_worker(spool: Spool, address: str, **policy: float) -> DeliveryWorker:
    return DeliveryWorker(
        spool, {"pacs": open_destination(address)}, policy=Policy(jitter=0, **policy), seed=1
    )


def run(worker: DeliveryWorker, clock, rounds: int = 40, step_s: float = 30) -> None:
    """Let the worker take turns while the clock goes on, without threads or real waiting."""
    for _ in range(rounds):
        worker.send_once("pacs")
        worker.confirm_once("pacs")
        clock.advance(step_s)
    worker.stop()


def counts(spool: Spool) -> dict[str, int]:
    return {k: v for k, v in spool.counts().get("pacs", {}).items() if v}


def test_threads_empty_the_spool(spool: Spool, instances: Instances, tmp_path: Path) -> None:
    with StorageScp(tmp_path / "pacs") as scp:
        worker = make_worker(spool, scp.address, poll=0.05, parallel=2)
        with worker:
            spool.put(instances(20), ["pacs"])
            worker.wake()
            assert worker.drain(timeout=30)
        assert len(scp.files()) == 20
    assert counts(spool) == {"delivered": 20}


@pytest.mark.parametrize(
    "fault",
    ["busy", "failing", "abort-before", "abort-after", "hang-up", "hang-up-after", "slow"],
)
def test_passing_trouble_is_waited_out(spool: Spool, instances: Instances, clock, fault: str) -> None:
    with HostileScp(fault, times=4) as scp:
        spool.put(instances(3), ["pacs"])
        run(make_worker(spool, scp.address + QUICK), clock)
        assert counts(spool) == {"delivered": 3}
        assert len(scp.held) == 3
        assert max(scp.answered.values()) == 1


@pytest.mark.parametrize("fault", ["refused", "mismatch", "unsupported"])
def test_a_permanent_failure_is_buried_with_its_reason_and_the_others_go_on(
    spool: Spool, instances: Instances, clock, fault: str
) -> None:
    with HostileScp(fault, times=1) as scp:
        spool.put(instances(3), ["pacs"])
        run(make_worker(spool, scp.address), clock, rounds=3)
    assert counts(spool) == {"dead": 1, "delivered": 2}
    [dead] = spool.entries(state="dead")
    assert "status 0x" in str(dead.reason)


def test_a_day_of_outage_only_fills_the_spool(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp() as scp:
        port = scp.port
    worker = make_worker(spool, f"dicom://HOSTILE@127.0.0.1:{port}" + QUICK)
    for start in range(1, 4):
        spool.put(instances(4, start=start * 10), ["pacs"])
        for _ in range(10):
            worker.send_once("pacs")
            clock.advance(3000)
    assert counts(spool) == {"waiting": 12}
    assert "refused" in str(worker.health()["pacs"].trouble)
    assert all(e.attempts == 0 for e in spool.entries())
    with HostileScp(port=port) as scp:
        run(worker, clock, rounds=3, step_s=901)
        assert len(scp.held) == 12
    assert counts(spool) == {"delivered": 12}


def test_an_unknown_ae_title_waits_for_a_person(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp(reject="calling") as scp:
        spool.put(instances(2), ["pacs"])
        worker = make_worker(spool, scp.address)
        run(worker, clock, rounds=3)
        assert counts(spool) == {"waiting": 2}
        assert "AE title" in str(worker.health()["pacs"].trouble)


def test_an_instance_that_always_breaks_the_connection_does_not_hold_up_the_others(
    spool: Spool, instances: Instances, clock
) -> None:
    class Allergic(HostileScp):
        def _turn(self) -> str:
            return "abort-before" if self.received[poison] and self._last == poison else "none"

        def _store(self, event):
            self._last = str(event.request.AffectedSOPInstanceUID)
            return super()._store(event)

    with Allergic() as scp:
        entries = spool.put(instances(3), ["pacs"])
        poison = entries[0].uid
        run(make_worker(spool, scp.address, give_up_after=4), clock)
        assert len(scp.held) == 2
    assert counts(spool) == {"dead": 1, "delivered": 2}
    assert "given up after 4 attempts" in str(spool.entries(state="dead")[0].reason)


def test_a_pacs_that_accepts_and_forgets_is_sent_again_until_it_commits(
    spool: Spool, instances: Instances, clock
) -> None:
    with HostileScp("forget", times=2) as scp:
        spool.put(instances(3), ["pacs"])
        run(make_worker(spool, scp.address + "?commitment=true"), clock, rounds=10)
        assert len(scp.held) == 3
        assert sorted(scp.received.values()) == [1, 2, 2]
    assert counts(spool) == {"delivered": 3}


def test_without_a_report_nothing_counts_as_delivered(
    spool: Spool, instances: Instances, clock, monkeypatch
) -> None:
    monkeypatch.setattr(HostileScp, "_report", lambda *_: None)
    with HostileScp() as scp:
        spool.put(instances(2), ["pacs"])
        run(make_worker(spool, scp.address + "?commitment=true"), clock, rounds=3)
    assert counts(spool) == {"stored": 2}


def test_grace_time_must_pass_where_there_is_no_commitment(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp() as scp:
        spool.put(instances(2), ["pacs"])
        worker = make_worker(spool, scp.address, grace=600)
        worker.send_once("pacs")
        clock.advance(599)
        worker.confirm_once("pacs")
        assert counts(spool) == {"stored": 2}
        clock.advance(2)
        worker.confirm_once("pacs")
        assert counts(spool) == {"delivered": 2}
        worker.stop()


def test_connections_are_let_go_after_a_quiet_while(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp() as scp:
        worker = make_worker(spool, scp.address)
        spool.put(instances(1), ["pacs"])
        worker.send_once("pacs")
        worker.send_once("pacs")
        assert scp.released == 0
        clock.advance(6)
        worker.send_once("pacs")
        end = time.monotonic() + 30
        while not scp.released and time.monotonic() < end:
            time.sleep(0.01)
        assert scp.released == 1
        spool.put(instances(1, start=9), ["pacs"])
        worker.send_once("pacs")
        worker.stop()
        assert len(scp.held) == 2


def test_stopping_puts_back_what_was_not_sent(spool: Spool, instances: Instances) -> None:
    with HostileScp("slow", times=100, delay_s=0.2) as scp:
        spool.put(instances(12), ["pacs"])
        with make_worker(spool, scp.address, poll=0.05):
            while not scp.held:
                pass
        sent = counts(spool).get("delivered", 0) + counts(spool).get("stored", 0)
        assert 1 <= sent < 12
        assert not any(e.leased for e in spool.entries())


def test_ctrl_c_ends_a_program_that_delivers(tmp_path: Path) -> None:
    """Also with an association open and the peer silent."""
    program = """
import sys, time
from pathlib import Path
from recon_node.delivery import DeliveryWorker, Spool, open_destination
with Spool(Path(sys.argv[1])) as spool:
    worker = DeliveryWorker(spool, {"pacs": open_destination(sys.argv[2])})
    worker.start()
    print("ready", flush=True)
    time.sleep(60)
"""
    with HostileScp("silent", times=100, delay_s=3) as scp, Spool(tmp_path / "spool") as spool:
        spool.put([make_instance(tmp_path / "1.dcm", 1)], ["pacs"])
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(spool.folder), scp.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            end = time.monotonic() + 30
            while not scp.received and time.monotonic() < end:
                time.sleep(0.01)
            child.send_signal(signal.SIGINT)
            assert child.wait(timeout=60) != 0
        assert len(spool.claim("pacs")) == 1


@settings(deadline=None, max_examples=50)
@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_waits_grow_but_stay_below_the_longest(failures: int, seed: int) -> None:
    policy = Policy()
    wait = policy.wait(failures, random.Random(seed))
    assert 0.75 * min(900.0, 2.0 ** min(failures - 1, 30)) <= wait <= 900.0
