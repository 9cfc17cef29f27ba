from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from recon_node.core.errors import ConfigError, DeliveryError, DicomError
from recon_node.delivery import Spool, SpoolFull

Instances = Callable[..., list[Path]]


def states(spool: Spool) -> list[str]:
    return [e.state for e in spool.entries()]


def test_an_instance_goes_from_waiting_over_stored_to_delivered(spool: Spool, instances: Instances) -> None:
    [entry] = spool.put(instances(1), ["pacs"])
    assert entry.state == "waiting"
    claimed = spool.claim("pacs")
    spool.stored(claimed)
    [stored] = spool.entries(state="stored")
    spool.delivered([stored])
    [delivered] = spool.entries(state="delivered")
    assert delivered.path.is_file()
    assert delivered.path.parent.parent.name == "delivered"
    assert spool.purge() == 1
    assert spool.entries() == []
    assert not delivered.path.exists()


def test_the_state_can_be_read_from_the_folders(spool: Spool, instances: Instances) -> None:
    spool.put(instances(3), ["pacs"])
    spool.dead_letter(spool.claim("pacs", limit=1), "status 0xC000")
    assert len(list((spool.folder / "waiting" / "pacs").iterdir())) == 2
    assert [p.suffix for p in sorted((spool.folder / "dead" / "pacs").iterdir())] == [".dcm", ".txt"]
    [reason] = (spool.folder / "dead" / "pacs").glob("*.txt")
    assert reason.read_text() == "status 0xC000\n"
    assert list((spool.folder / "incoming").iterdir()) == []


def test_one_instance_for_two_destinations_is_one_file_with_two_names(
    spool: Spool, instances: Instances
) -> None:
    one, two = spool.put(instances(1), ["pacs", "dicom://X@host:104"])
    assert one.path.stat().st_ino == two.path.stat().st_ino
    spool.delivered(spool.claim("pacs"))
    assert spool.purge() == 1
    assert two.path.is_file()


def test_the_same_instance_is_not_taken_twice(spool: Spool, instances: Instances) -> None:
    files = instances(2)
    spool.put([*files, files[0]], ["pacs"])
    spool.delivered(spool.claim("pacs", limit=1))
    spool.put(files, ["pacs"])
    assert sorted(states(spool)) == ["delivered", "waiting"]


def test_the_same_uid_with_other_content_is_refused(spool: Spool, instances: Instances) -> None:
    files = instances(1)
    spool.put(files, ["pacs"])
    other = instances(1, InstanceNumber=99)
    with pytest.raises(DeliveryError, match="other content"):
        spool.put(other, ["pacs"])
    assert states(spool) == ["waiting"]


def test_two_contents_under_one_uid_in_one_put_are_refused_whole(spool: Spool, instances: Instances) -> None:
    first = instances(1)[0].read_bytes()
    second = instances(1, InstanceNumber=99)[0].read_bytes()
    with pytest.raises(DeliveryError, match="twice"):
        spool.put([first, second], ["pacs"])
    spool.reconcile()
    assert spool.entries() == []


def test_a_dead_instance_is_revived_by_giving_it_again(spool: Spool, instances: Instances) -> None:
    files = instances(1)
    spool.put(files, ["pacs"])
    spool.dead_letter(spool.claim("pacs"), "no")
    spool.put(files, ["pacs"])
    assert states(spool) == ["waiting"]
    assert list((spool.folder / "dead" / "pacs").iterdir()) == []
    spool.reconcile()
    assert states(spool) == ["waiting"]


def test_urgent_instances_go_first(spool: Spool, instances: Instances) -> None:
    files = instances(4)
    spool.put(files[:2], ["pacs"], priority=1)
    spool.put(files[2:], ["pacs"], priority=9)
    assert [e.filed.priority for e in spool.claim("pacs")] == [9, 9, 1, 1]


def test_a_claimed_entry_is_not_given_to_another(spool: Spool, instances: Instances) -> None:
    spool.put(instances(3), ["pacs"])
    with Spool(spool.folder, clock=spool.clock) as other:
        assert len(spool.claim("pacs", limit=2)) == 2
        assert len(other.claim("pacs")) == 1
        assert other.claim("pacs") == []


def test_claims_of_a_closed_spool_are_free_at_once(spool: Spool, instances: Instances) -> None:
    spool.put(instances(1), ["pacs"])
    with Spool(spool.folder, clock=spool.clock) as other:
        assert len(other.claim("pacs")) == 1
        assert spool.claim("pacs") == []
    assert len(spool.claim("pacs")) == 1


def test_a_lease_ends_by_itself_unless_renewed(spool: Spool, instances: Instances, clock) -> None:
    spool.put(instances(1), ["pacs"])
    entries = spool.claim("pacs")
    clock.advance(400)
    spool.renew(entries)
    clock.advance(400)
    assert spool.claim("pacs") == []
    clock.advance(300)
    assert len(spool.claim("pacs")) == 1


def test_a_postponed_entry_waits_its_time(spool: Spool, instances: Instances, clock) -> None:
    spool.put(instances(1), ["pacs"])
    [entry] = spool.claim("pacs")
    spool.postpone(entry, 30, "aborted")
    assert spool.claim("pacs") == []
    clock.advance(31)
    [entry] = spool.claim("pacs")
    assert (entry.attempts, entry.reason) == (1, "aborted")


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_jump_of_the_wall_clock_neither_frees_leases_nor_delays(
    spool: Spool, instances: Instances, clock, jump_s: float
) -> None:
    spool.put(instances(2), ["pacs"])
    spool.claim("pacs", limit=1)
    clock.date += jump_s
    assert len(spool.claim("pacs")) == 1
    assert spool.claim("pacs") == []


def test_leases_and_waits_of_an_earlier_boot_are_void(spool: Spool, instances: Instances, clock) -> None:
    spool.put(instances(2), ["pacs"])
    entry, _ = spool.claim("pacs")
    spool.postpone(entry, 1e6, "aborted")
    clock.restart()
    with Spool(spool.folder, clock=clock) as again:
        assert len(again.claim("pacs")) == 2


@pytest.mark.parametrize("damage", ["removed", "garbage", "empty", "truncated"])
def test_a_lost_or_corrupt_index_is_rebuilt_from_the_files(
    spool: Spool, instances: Instances, damage: str
) -> None:
    spool.put(instances(6), ["pacs", "b/c.d"], priority=7)
    spool.dead_letter(spool.claim("pacs", limit=1), "bad")
    spool.stored(spool.claim("pacs", limit=2))
    spool.delivered(spool.claim("pacs", limit=1))
    before = {(e.key, e.state, e.filed.priority) for e in spool.entries()}
    spool.close()
    index = spool.folder / "index.sqlite3"
    for side in ("-journal", "-wal"):
        index.with_name(index.name + side).unlink(missing_ok=True)
    contents = {"garbage": b"x" * 50_000, "empty": b"", "truncated": index.read_bytes()[:5000]}
    index.unlink()
    if damage != "removed":
        index.write_bytes(contents[damage])
    with Spool(spool.folder) as again:
        assert {(e.key, e.state, e.filed.priority) for e in again.entries()} == before
        assert again.entries(state="dead")[0].reason == "bad"


def test_an_index_removed_while_in_use_is_noticed(spool: Spool, instances: Instances) -> None:
    spool.put(instances(2), ["pacs"])
    for name in ("index.sqlite3",):
        (spool.folder / name).unlink()
    assert len(spool.claim("pacs")) == 2


def test_an_index_overwritten_while_in_use_is_rebuilt(spool: Spool, instances: Instances) -> None:
    spool.put(instances(2), ["pacs"])
    for name in ("index.sqlite3", "index.sqlite3-journal"):
        (spool.folder / name).write_bytes(os.urandom(40_000))
    for _ in range(3):
        try:
            claimed = spool.claim("pacs")
            break
        except DeliveryError:
            continue
    assert len(claimed) == 2


@pytest.mark.parametrize("keep", [0, 100])
@pytest.mark.parametrize("index_lost", [False, True])
def test_a_torn_file_is_never_sent_but_told_of(
    spool: Spool, instances: Instances, keep: int, index_lost: bool
) -> None:
    files = instances(2)
    torn, _ = spool.put(files, ["pacs"])
    os.truncate(torn.path, keep)
    if index_lost:
        spool.close()
        (spool.folder / "index.sqlite3").unlink()
    with Spool(spool.folder) as again:
        assert [e.uid for e in again.claim("pacs")] != [torn.uid]
        [dead] = again.entries(state="dead")
        assert dead.uid == torn.uid
        assert "damaged" in str(dead.reason)
        again.put(files, ["pacs"])
        assert len(again.claim("pacs")) == 1


def test_a_file_removed_by_hand_is_forgotten(spool: Spool, instances: Instances) -> None:
    gone, kept = spool.put(instances(2), ["pacs"])
    gone.path.unlink()
    assert [e.uid for e in spool.claim("pacs")] == [kept.uid]
    assert [e.uid for e in spool.entries()] == [kept.uid]


def test_a_file_found_in_two_states_counts_as_the_more_advanced(spool: Spool, instances: Instances) -> None:
    [entry] = spool.put(instances(1), ["pacs"])
    target = spool.folder / "delivered" / "pacs" / entry.path.name
    target.parent.mkdir()
    os.link(entry.path, target)
    spool.reconcile()
    assert states(spool) == ["delivered"]
    assert not entry.path.exists()


def test_leftovers_of_a_killed_writer_are_swept(spool: Spool) -> None:
    left = spool.folder / "incoming" / "0123.part"
    left.write_bytes(b"half")
    Spool(spool.folder).close()
    assert not left.exists()


def test_a_nearly_full_disk_refuses_politely_and_cleans_only_what_is_delivered(
    tmp_path: Path, instances: Instances
) -> None:
    free = [10_000]
    with Spool(tmp_path / "s", reserve_bytes=8_000, free_bytes=lambda _: free[0]) as spool:
        files = instances(4)
        spool.put(files[:3], ["pacs"])
        spool.delivered(spool.claim("pacs", limit=1))
        spool.stored(spool.claim("pacs", limit=1))
        free[0] = 8_000
        with pytest.raises(SpoolFull, match="nothing was taken"):
            spool.put(files[3:], ["pacs"])
        assert sorted(states(spool)) == ["stored", "waiting"]
        free[0] = 10_000
        spool.put(files[3:], ["pacs"])


def test_a_write_error_takes_nothing(spool: Spool, instances: Instances, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SpoolFull, match="No space left"):
        spool.put(instances(1), ["pacs"])
    monkeypatch.undo()
    assert spool.entries() == []
    assert list((spool.folder / "incoming").iterdir()) == []


def test_a_full_index_takes_nothing(spool: Spool, instances: Instances, monkeypatch) -> None:
    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("recon_node.delivery.queue.ledger.Ledger.insert", full)
        with pytest.raises(SpoolFull):
            spool.put(instances(1), ["pacs"])
    assert list((spool.folder / "waiting" / "pacs").iterdir()) == []
    spool.put(instances(1), ["pacs"])
    assert states(spool) == ["waiting"]


def test_retry_revives_the_dead_and_hurries_the_waiting(spool: Spool, instances: Instances) -> None:
    spool.put(instances(2), ["pacs"])
    one, two = spool.claim("pacs")
    spool.dead_letter([one], "no")
    spool.postpone(two, 1e6, "later")
    assert spool.retry() == 2
    assert len(spool.claim("pacs")) == 2


def test_purge_leaves_what_is_not_delivered_or_too_young(spool: Spool, instances: Instances) -> None:
    spool.put(instances(2), ["pacs"])
    spool.delivered(spool.claim("pacs", limit=1))
    spool.clock.date = spool.entries(state="delivered")[0].path.stat().st_mtime + 10
    assert spool.purge(older_than_s=3600) == 0
    assert spool.purge(older_than_s=5) == 1
    assert states(spool) == ["waiting"]
    assert spool.purge(state="waiting") == 1


def test_bad_requests_are_refused(spool: Spool, instances: Instances, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 to 9"):
        spool.put(instances(1), ["pacs"], priority=10)
    with pytest.raises(ConfigError):
        spool.put(instances(1), [""])
    with pytest.raises(DicomError, match="no DICOM file"):
        spool.put([b"no dicom"], ["pacs"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="spool folder"):
        Spool(tmp_path / "file")
    assert spool.entries() == []


def test_destination_names_become_one_folder_each(spool: Spool, instances: Instances) -> None:
    names = ["..", "a/b", "https://host/dicom-web", ".hidden"]
    spool.put(instances(1), names)
    spool.close()
    (spool.folder / "index.sqlite3").unlink()
    with Spool(spool.folder) as again:
        assert sorted(again.counts()) == sorted(names)


@pytest.mark.parametrize("name", ["owners", "incoming", "waiting", "owners/1", "waiting/pacs"])
def test_a_link_in_the_spool_is_told_and_nothing_behind_it_touched(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    place = tmp_path / "spool" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    with pytest.raises(ConfigError, match=f"{place.name} in it is a link"):
        Spool(tmp_path / "spool")
    assert (outside / "precious").read_text() == "precious"
