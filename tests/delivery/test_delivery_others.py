"""What went wrong in other systems, by the threads their users wrote (project and number in each test)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delivery_hostile import HostileScp
from delivery_web import DICOM_JSON, Web

from recon_node.core.errors import PacsUnreachable
from recon_node.delivery import (
    DeliveryWorker,
    Policy,
    Spool,
    StorageScp,
    open_destination,
    read_instance,
)
from recon_node.offline.export import export
from recon_node.pipeline.queue import retry
from recon_node.settings import DeliverySettings

Instances = Callable[..., list[Path]]
QUICK = "?connect=1&associate=1&answer=1&network=1"
EAGER = Policy(first_wait=0.01, longest_wait=0.05, poll=0.02, jitter=0, looks=(0.01, 0.01), give_up_after=4)


class Fragile(HostileScp):
    """A second store of an instance that is there deletes it."""

    def _store(self, event: Any) -> Any:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in self.held:
            del self.held[uid]
            return 0x0000
        return super()._store(event)


def settled(spool: Spool, seconds: float = 30.0) -> dict[str, dict[str, int]]:
    """Counts by destination once nothing waits or is unconfirmed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        counts = spool.counts()
        if not any(states[s] for states in counts.values() for s in ("waiting", "stored")):
            return {d: {k: v for k, v in states.items() if v} for d, states in counts.items()}
        time.sleep(0.02)
    raise AssertionError(f"not settled: {spool.counts()}")


@pytest.mark.parametrize("fault", ["hang-up-after", "abort-after"])
def test_dcm4chee_4754_and_4969_no_second_store_of_what_is_there(
    tmp_path: Path, instances: Instances, fault: str
) -> None:
    with Fragile(fault, times=2, finds=True) as scp, Spool(tmp_path / "spool") as spool:
        spool.put(instances(4), ["pacs"])
        with DeliveryWorker(spool, {"pacs": open_destination(scp.address + QUICK)}, policy=EAGER):
            assert settled(spool) == {"pacs": {"delivered": 4}}
        assert len(scp.held) == 4


def test_dcm4chee_1920_and_2360_a_task_is_complete_only_with_every_copy_and_then_it_ends(
    tmp_path: Path, instances: Instances
) -> None:
    with HostileScp("refused", times=1) as one, HostileScp() as two, Spool(tmp_path / "spool") as spool:
        spool.put(instances(3), ["one", "two"])
        both = {"one": open_destination(one.address), "two": open_destination(two.address)}
        with DeliveryWorker(spool, both, policy=EAGER):
            assert settled(spool) == {"one": {"delivered": 2, "dead": 1}, "two": {"delivered": 3}}
        assert sum(one.received.values()) == 3


def test_dcm4chee_32_and_4355_nothing_is_scheduled_for_ever(tmp_path: Path, instances: Instances) -> None:
    with HostileScp("failing", times=10**6) as scp, Spool(tmp_path / "spool") as spool:
        spool.put(instances(2), ["pacs"])
        with DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER):
            assert settled(spool) == {"pacs": {"dead": 2}}
        assert set(scp.received.values()) == {4}


@pytest.mark.parametrize(("fault", "status"), [("busy", "0xA700"), ("mismatch", "0xA900")])
def test_nextgen_connect_3858_and_weasis_4_a_failure_status_is_no_success(
    tmp_path: Path, instances: Instances, fault: str, status: str
) -> None:
    with HostileScp(fault, times=10**6) as scp, Spool(tmp_path / "spool") as spool:
        spool.put(instances(1), ["pacs"])
        worker = DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER)
        worker.send_once("pacs")
        worker.stop()
        assert "delivered" not in {e.state for e in spool.entries()}
        told = [str(worker.status()["pacs"].trouble), *(str(e.reason) for e in spool.entries())]
    assert any(status in text for text in told)


def test_dicomweb_client_42_and_dicoogle_750_a_success_with_nothing_stored_is_none(
    tmp_path: Path, instances: Instances
) -> None:
    with Web(lambda path, uid: (200, DICOM_JSON, b"{}")) as web, Spool(tmp_path / "spool") as spool:
        spool.put(instances(1), ["web"])
        with DeliveryWorker(spool, {"web": open_destination(web.url)}, policy=EAGER):
            assert settled(spool) == {"web": {"dead": 1}}
        assert "does not confirm" in str(spool.entries()[0].reason)


def test_fo_dicom_1464_and_horos_871_as_many_arrive_as_were_sent(
    tmp_path: Path, instances: Instances
) -> None:
    files = instances(180)
    with HostileScp("forget", times=53, finds=True) as scp:
        with Spool(tmp_path / "spool") as spool:
            spool.put(files, ["pacs"])
            worker = DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER)
            with worker:
                assert settled(spool) == {"pacs": {"delivered": 180}}
        assert len(scp.held) == 180


def test_dicom_rst_56_no_accepted_context_ends_with_a_reason(tmp_path: Path, instances: Instances) -> None:
    with HostileScp(reject="context") as scp, Spool(tmp_path / "spool") as spool:
        spool.put(instances(3), ["pacs"])
        with DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER):
            assert settled(spool) == {"pacs": {"dead": 3}}
        assert {"MR Image Storage" in str(e.reason) for e in spool.entries()} == {True}
        assert scp.associations < 6


def test_dicomweb_adapter_141_retry_with_two_destinations_reaches_both(
    tmp_path: Path, instances: Instances
) -> None:
    files = instances(3)
    with HostileScp() as gone:
        address = gone.address
    with StorageScp(tmp_path / "well") as well:
        settings = DeliverySettings(spool=str(tmp_path / "spool"), reserve_mb=0)
        with pytest.raises(PacsUnreachable):
            export(files, address, settings)
        export(files, well.address, settings)
        delivered, troubles = retry(settings)
        assert (delivered, len(troubles)) == (0, 1)
        with HostileScp(port=gone.port) as back:
            delivered, troubles = retry(settings)
            assert (delivered, troubles) == (3, [])
            assert len(back.held) == 3
        assert len(well.files()) == 3


def test_gadgetron_1007_a_crash_in_delivery_is_noticed_and_mended(
    tmp_path: Path, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recon_node.delivery.sending import Sending

    crashes = iter([True, True])
    real = Sending.once

    def once(self: Sending) -> int:
        if next(crashes, False):
            raise SystemError("unforeseen")
        return real(self)

    monkeypatch.setattr(Sending, "once", once)
    with StorageScp(tmp_path / "kept") as scp, Spool(tmp_path / "spool") as spool:
        spool.put(instances(2), ["pacs"])
        with DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER) as worker:
            end = time.monotonic() + 10
            while worker.trouble() is None and time.monotonic() < end:
                time.sleep(0.01)
            assert "deliver-0-pacs" in str(worker.trouble())
            assert settled(spool) == {"pacs": {"delivered": 2}}
            assert worker.supervisor.failures()["deliver-0-pacs"] == 2


def test_mercure_70_88_and_45_each_failure_and_the_end_of_a_series_are_told(
    tmp_path: Path, instances: Instances, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="recon_node"), HostileScp("busy", times=1, finds=True) as scp:
        with Spool(tmp_path / "spool") as spool:
            spool.put(instances(5), ["pacs"])
            with DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER):
                settled(spool)
    told = [(getattr(r, "outcome", ""), r.getMessage()) for r in caplog.records]
    assert any(outcome == "waits" for outcome, _ in told)
    assert sum(outcome == "delivered" for outcome, _ in told) == 5
    assert sum("counted there" in text for _, text in told) >= 1


def test_the_same_file_for_two_destinations_of_which_one_is_dead_reaches_the_other_at_once(
    tmp_path: Path, instances: Instances
) -> None:
    with StorageScp(tmp_path / "kept") as scp, Spool(tmp_path / "spool") as spool:
        dead = open_destination("dicom://X@127.0.0.1:1" + QUICK)
        files = instances(6)
        spool.put(files, ["dead", "well"])
        well = open_destination(scp.address)
        with DeliveryWorker(spool, {"dead": dead, "well": well}, policy=EAGER):
            end = time.monotonic() + 20
            while len(scp.files()) < 6 and time.monotonic() < end:
                time.sleep(0.02)
        assert {read_instance(f).uid for f in scp.files()} == {read_instance(f).uid for f in files}
        assert spool.counts()["dead"]["waiting"] == 6
