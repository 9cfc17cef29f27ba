"""Where the outcome of a store is open, the destination is asked; a success is counted once a series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from delivery_hostile import HostileScp
from delivery_web import Answer, Web

from recon_node.delivery import DeliveryWorker, Policy, Spool, open_destination, read_instance
from recon_node.delivery.peers.query import find_instances

Instances = Callable[..., list[Path]]
QUICK = "?connect=1&associate=1&answer=1&network=1"


def deliver(spool: Spool, address: str, clock, *, rounds: int = 25, **policy: object) -> dict[str, int]:
    """Send and confirm while the clock goes on; what became of the entries."""
    chosen = Policy(jitter=0, **policy)  # type: ignore[arg-type]
    worker = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=chosen, seed=1)
    for _ in range(rounds):
        worker.send_once("pacs")
        worker.confirm_once("pacs")
        clock.advance(30)
    worker.stop()
    return {k: v for k, v in spool.counts().get("pacs", {}).items() if v}


@pytest.mark.parametrize("fault", ["hang-up-after", "abort-after"])
def test_what_was_stored_before_the_connection_broke_is_not_sent_again(
    spool: Spool, instances: Instances, clock, fault: str
) -> None:
    with HostileScp(fault, times=3, finds=True) as scp:
        spool.put(instances(4), ["pacs"])
        assert deliver(spool, scp.address + QUICK, clock) == {"delivered": 4}
        assert set(scp.received.values()) == {1}
        assert len(scp.held) == 4


@pytest.mark.parametrize("fault", ["hang-up", "abort-before"])
def test_what_was_not_stored_before_the_connection_broke_is_sent_again(
    spool: Spool, instances: Instances, clock, fault: str
) -> None:
    with HostileScp(fault, times=3, finds=True) as scp:
        spool.put(instances(4), ["pacs"])
        assert deliver(spool, scp.address + QUICK, clock) == {"delivered": 4}
        assert len(scp.held) == 4


def test_a_pacs_that_commits_itself_is_asked_by_commitment(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp("hang-up-after", times=2) as scp:
        spool.put(instances(3), ["pacs"])
        assert deliver(spool, scp.address + QUICK + "&commitment=true", clock) == {"delivered": 3}
        assert set(scp.received.values()) == {1}


def test_what_the_pacs_does_not_commit_itself_to_is_sent_again(
    spool: Spool, instances: Instances, clock
) -> None:
    with HostileScp("hang-up", times=2) as scp:
        spool.put(instances(3), ["pacs"])
        assert deliver(spool, scp.address + QUICK + "&commitment=true", clock) == {"delivered": 3}
        assert len(scp.held) == 3


def test_after_a_kill_it_asks_before_it_sends(tmp_path: Path, instances: Instances, clock) -> None:
    files = instances(5)
    with HostileScp(finds=True) as scp:
        for file in files[:3]:
            scp.held[read_instance(file).uid] = "stored by the process that was killed"
        with Spool(tmp_path / "spool", clock=clock) as killed:
            killed.put(files, ["pacs"])
            killed.claim("pacs")
        with Spool(tmp_path / "spool", clock=clock) as spool:
            assert deliver(spool, scp.address + QUICK, clock) == {"delivered": 5}
        assert sorted(scp.received) == sorted(read_instance(file).uid for file in files[3:])


def test_a_lost_index_makes_everything_doubtful(tmp_path: Path, instances: Instances, clock) -> None:
    with Spool(tmp_path / "spool", clock=clock) as spool:
        spool.put(instances(3), ["pacs"])
        assert not any(e.in_doubt for e in spool.entries())
    (tmp_path / "spool" / "index.sqlite3").unlink()
    with Spool(tmp_path / "spool", clock=clock) as spool:
        assert all(e.in_doubt for e in spool.entries())


def test_an_index_of_an_earlier_version_is_used_further(tmp_path: Path, instances: Instances) -> None:
    import sqlite3

    with Spool(tmp_path / "spool") as spool:
        spool.put(instances(2), ["pacs"])
    with sqlite3.connect(tmp_path / "spool" / "index.sqlite3") as db:
        db.execute("ALTER TABLE entries DROP COLUMN doubt")
    db.close()
    with Spool(tmp_path / "spool") as spool:
        assert [e.in_doubt for e in spool.entries()] == [False, False]
        assert len(spool.claim("pacs")) == 2


def test_a_success_without_anything_stored_is_found_out_and_sent_again(
    spool: Spool, instances: Instances, clock
) -> None:
    with HostileScp("forget", times=2, finds=True) as scp:
        spool.put(instances(4), ["pacs"])
        assert deliver(spool, scp.address + QUICK, clock) == {"delivered": 4}
        assert len(scp.held) == 4
        assert sorted(scp.received.values()) == [1, 1, 2, 2]


def test_an_instance_that_is_never_kept_becomes_a_dead_letter(
    spool: Spool, instances: Instances, clock
) -> None:
    with HostileScp("forget", times=100, finds=True) as scp:
        spool.put(instances(1), ["pacs"])
        assert deliver(spool, scp.address + QUICK, clock) == {"dead": 1}
        assert list(scp.received.values()) == [2]
        assert "twice" in str(spool.entries(state="dead")[0].reason)


def test_a_pacs_that_shows_late_is_not_sent_to_twice(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp(finds=True, hides=2) as scp:
        spool.put(instances(3), ["pacs"])
        assert deliver(spool, scp.address + QUICK, clock) == {"delivered": 3}
        assert set(scp.received.values()) == {1}


def test_a_series_is_counted_when_it_is_sent(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp(finds=True) as scp:
        spool.put(instances(60), ["pacs"])
        assert deliver(spool, scp.address + QUICK, clock, series_wait=1e6) == {"delivered": 60}
        assert scp.questions == 2  # after the first batch, whether it can be asked; then at the end


def test_a_router_that_shows_nothing_may_be_believed(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp(finds=True, hides=1000) as scp:
        spool.put(instances(2), ["pacs"])
        assert deliver(spool, scp.address + QUICK + "&verify=false", clock) == {"delivered": 2}
        assert scp.questions == 0


def test_a_pacs_that_cannot_be_asked_is_believed(spool: Spool, instances: Instances, clock) -> None:
    with HostileScp() as scp:
        spool.put(instances(2), ["pacs"])
        assert deliver(spool, scp.address + QUICK, clock) == {"delivered": 2}


def test_what_a_pacs_has_is_found_by_uid_and_by_series(instances: Instances) -> None:
    known = [read_instance(file) for file in instances(70)]
    with HostileScp(finds=True) as scp:
        scp.held.update({i.uid: "" for i in known[::2]})
        destination = open_destination(scp.address + QUICK)
        peer = destination.peer  # type: ignore[attr-defined]
        expected = {i.uid: n % 2 == 0 for n, i in enumerate(known)}
        assert find_instances(peer, known) == expected
        few = find_instances(peer, known[:5])
        assert few == {i.uid: expected[i.uid] for i in known[:5]}
    with HostileScp() as scp:
        destination = open_destination(scp.address + QUICK)
        assert find_instances(destination.peer, known[:1]) is None  # type: ignore[attr-defined]


def test_a_web_server_that_hung_up_after_storing_is_asked_first(
    spool: Spool, instances: Instances, clock
) -> None:
    web = Web()

    def store_and_hang_up(path: str, uid: str) -> Answer:
        web.held[uid] = b"stored"
        return 0, {}, b""

    web.answer = store_and_hang_up
    with web:
        spool.put(instances(3), ["pacs"])
        assert deliver(spool, web.url, clock) == {"delivered": 3}
    assert set(web.received.values()) == {1}


def test_a_web_server_that_says_success_and_stores_nothing_is_found_out(
    spool: Spool, instances: Instances, clock
) -> None:
    from delivery_web import DICOM_JSON, report

    with Web(lambda path, uid: (200, DICOM_JSON, report(uid))) as web:
        spool.put(instances(1), ["pacs"])
        assert deliver(spool, web.url, clock) == {"dead": 1}
        assert list(web.received.values()) == [2]
