"""Settings to deliveries: routes, reserve, reports of storage commitment, and existing folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delivery_hostile import HostileScp
from pydicom import dcmread

from recon_node.cli import run
from recon_node.core.errors import ConfigError, PacsUnreachable, SourceError
from recon_node.delivery import SpoolFull, StorageScp
from recon_node.offline.export import export
from recon_node.pipeline import queue as outbox
from recon_node.pipeline.queue import delivering, enqueue, open_spool
from recon_node.settings import DeliverySettings

Instances = Callable[..., list[Path]]
KEY = b"0123456789abcdef"


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., DeliverySettings]:
    def make(**values: Any) -> DeliverySettings:
        return DeliverySettings(spool=str(tmp_path / "spool"), **{"reserve_mb": 0, **values})

    return make


def test_a_folder_is_delivered_once_however_often_it_is_exported(
    instances: Instances, settings, tmp_path: Path
) -> None:
    files = instances(40)
    told: list[tuple[int, int]] = []
    with StorageScp(tmp_path / "pacs") as scp:
        first = export(
            [files[0].parent], scp.address, settings(), report=lambda done, total: told.append((done, total))
        )
        again = export([files[0].parent], scp.address, settings())
        assert len(scp.files()) == 40
    assert first.delivered == again.delivered == first.found == 40
    assert told[-1] == (40, 40)


def test_unusable_files_do_not_hold_up_the_others(instances: Instances, settings, tmp_path: Path) -> None:
    files = instances(3)
    (files[0].parent / "notes.txt").write_text("no DICOM, told and left alone")
    torn = files[0].parent / "torn.dcm"
    torn.write_bytes(files[0].read_bytes()[:180])
    same_uid = instances(1, start=2, InstanceNumber=77)[0].rename(files[0].parent / "z.dcm")
    instances(1, start=2)
    result = export([files[0].parent], str(tmp_path / "share"), settings())
    assert (result.found, result.delivered) == (5, 3)
    assert sorted(problem.split(":")[0] for problem in result.unusable) == sorted([str(torn), str(same_uid)])
    assert [problem.partition(": ")[2] for problem in result.left_out] == ["no DICOM file"]


def test_what_a_pacs_refuses_is_told_with_the_reason(instances: Instances, settings) -> None:
    files = instances(3)
    with HostileScp("refused") as scp:
        result = export(files, scp.address, settings())
    assert (result.delivered, len(result.dead)) == (2, 1)
    assert "0xC000" in result.dead[0]


def test_a_pacs_that_is_away_leaves_everything_in_the_spool(instances: Instances, settings) -> None:
    with HostileScp() as scp:
        address = scp.address
    with pytest.raises(PacsUnreachable, match="3 of 3 instances wait in the spool"):
        export(instances(3), address, settings())
    with open_spool(settings()) as spool:
        assert spool.counts()[address]["waiting"] == 3


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_spool_without_room_waits_for_deliveries_and_refuses_only_when_there_are_none(
    instances: Instances, settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, files = outbox.Spool, instances(64)
    room = 40 * files[0].stat().st_size

    def small(folder: Path, **options: Any) -> Any:
        def left(_: Path) -> int:
            held = [*folder.glob("*/*/*.dcm"), *folder.glob("incoming/*.part")]
            return room - sum(map(size_of, held))

        return real(folder, **{**options, "reserve_bytes": 0}, free_bytes=left)

    monkeypatch.setattr(outbox, "Spool", small)
    with StorageScp(tmp_path / "pacs") as scp:
        assert export([files[0].parent], scp.address, settings()).delivered == 64
        assert len(scp.files()) == 64
    with HostileScp() as gone:
        address = gone.address
    with pytest.raises(SpoolFull, match="nothing was taken"):
        export([files[0].parent], address, settings())


def test_what_is_sent_for_research_names_nobody_and_is_the_same_each_time(
    instances: Instances, settings, tmp_path: Path
) -> None:
    files = instances(2, PatientName="Muster^Erika", PatientBirthDate="19700131", StudyDate="20260501")
    for _ in range(2):
        result = export(files, str(tmp_path / "share"), settings(), deidentify=KEY)
        assert result.delivered == 2
    sent = [dcmread(path) for path in (tmp_path / "share").rglob("*.dcm")]
    assert len(sent) == 2
    for ds in sent:
        assert "Muster" not in str(ds)
        assert ds.PatientName == ds.PatientID
        assert ds.PatientIdentityRemoved == "YES"


def test_export_on_the_command_line(
    instances: Instances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECON_NODE__DELIVERY__SPOOL", str(tmp_path / "spool"))
    files = instances(3)
    share = str(tmp_path / "share")
    words = ["export", str(files[0].parent), "--to", share, "--priority", "9", "--json"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["delivered"] == 3
    assert run(["spool", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["entries"]
    assert {(e["state"], e["priority"]) for e in listed} == {("delivered", 9)}
    assert run([*words, "--deidentify", str(tmp_path / "no.key")]) == 2
    assert "head -c 32 /dev/urandom" in capsys.readouterr().err
    (tmp_path / "a.key").write_bytes(KEY)
    assert run([*words, "--deidentify", str(tmp_path / "a.key")]) == 0
    assert run(["export", str(tmp_path / "nothing"), "--to", share]) == 1


def test_series_go_where_the_rules_say(instances: Instances, settings) -> None:
    chosen = settings(
        destinations={name: {"address": f"dicom://A@{name}"} for name in ("archive", "flow-server")},
        to=("archive",),
        routes={"flow": {"to": "flow-server", "priority": 8, "SeriesDescription": "*flow*"}},
    )
    with open_spool(chosen) as spool:
        assert enqueue(spool, instances(2, SeriesDescription="Flow AO"), chosen) == 2
        assert enqueue(spool, instances(2, start=5, SeriesDescription="cine"), chosen) == 1
        assert enqueue(spool, [], chosen) == 0
        found = sorted((e.destination, e.filed.priority) for e in spool.entries())
    assert found == [("archive", 5)] * 2 + [("archive", 8)] * 2 + [("flow-server", 8)] * 2


def test_destinations_that_only_a_rule_names_are_delivered_to(
    instances: Instances, settings, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    chosen = settings(routes={"all": {"to": str(share)}})
    with open_spool(chosen) as spool, delivering(spool, chosen) as worker:
        enqueue(spool, instances(2), chosen)
        worker.wake()
        assert worker.drain(timeout=20)
    assert len(list(share.rglob("*.dcm"))) == 2


@pytest.mark.parametrize(
    "values",
    [{"parallel": 0}, {"priority": 11}, {"grace_s": -1.0}, {"reserve_mb": -1}, {"routes": {"r": {}}}],
)
def test_settings_out_of_their_range_are_refused(settings, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"delivery.*{next(iter(values))}.*(allowed|expected)"):
        settings(**values)


def test_an_address_for_reports_that_is_taken_stops_a_service_but_not_a_command(
    instances: Instances, settings, tmp_path: Path
) -> None:
    with StorageScp(tmp_path / "pacs") as scp:
        listen = f"dicom://RECON-NODE@127.0.0.1:{scp.port}"
        named = {"pacs": {"address": scp.address, "commitment": True}}
        chosen = settings(destinations=named, listen=listen)
        with open_spool(chosen) as spool:
            with pytest.raises(ConfigError, match="cannot listen"), delivering(spool, chosen):
                pass
        assert export(instances(2), "pacs", chosen).delivered == 2


def test_a_command_asks_again_where_the_report_missed_it(
    instances: Instances, settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_ASK_AGAIN_S", 0.1)
    asked = []

    class Late(StorageScp):
        def _on_commitment(self, event: Any) -> tuple[int, None]:
            asked.append(event.request)
            return (0x0000, None) if len(asked) == 1 else super()._on_commitment(event)

    with Late(tmp_path / "pacs") as scp:
        named = {"pacs": {"address": scp.address, "commitment": True}}
        assert export(instances(1), "pacs", settings(destinations=named)).delivered == 1
    assert len(asked) > 1


def test_a_command_does_not_wait_for_ever_for_a_report(
    instances: Instances, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostileScp, "_report", lambda *_: None)
    monkeypatch.setattr(outbox, "_REPORT_WAIT_S", 0.3)
    with HostileScp() as scp:
        named = {"pacs": {"address": scp.address, "commitment": True}}
        with pytest.raises(PacsUnreachable, match="not committed itself"):
            export(instances(2), "pacs", settings(destinations=named))


def test_a_folder_without_dicom_is_one_clear_error(settings, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no DICOM file"):
        export([tmp_path], "x", settings())
