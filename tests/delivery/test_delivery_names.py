"""No value from data is ever a path; what is accepted is kept, what cannot be kept is refused aloud."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from delivery_parts import make_instance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_node.core.errors import ConfigError, DicomError, PacsUnreachable
from recon_node.core.names import below, path_component, printable
from recon_node.delivery import Spool, open_destination

Instances = Callable[..., list[Path]]
EVIL = ["../../../x", "/abs", "..", ".", "a/b", "..\\x", "x\ny", "-rf", "con", " ", "é" * 40, "A" * 300]
ODD_UIDS = ["1.2.ABC", "1.2 3", "1.2.3-x_y", "x" * 64, "..", "a/b", "100%", "1..2", "%41"]


@settings(deadline=None, max_examples=300)
@given(value=st.one_of(st.text(), st.sampled_from(EVIL)))
def test_whatever_a_value_holds_its_path_stays_below_the_folder(value: str) -> None:
    name = path_component(value)
    assert name not in ("", ".", "..")
    assert len(name) <= 100
    assert set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.")
    assert below(Path("/some/where"), value, value).is_relative_to("/some/where")


@given(one=st.text(max_size=20), two=st.text(max_size=20))
def test_different_values_stay_different(one: str, two: str) -> None:
    assert (path_component(one) == path_component(two)) == (one == two)


def test_a_uid_stands_for_itself() -> None:
    assert path_component("1.2.840.10008.1") == "1.2.840.10008.1"


@pytest.mark.parametrize("value", EVIL, ids=repr)
def test_a_folder_destination_never_writes_outside_its_folder(tmp_path: Path, value: str) -> None:
    folder = tmp_path / "a" / "b" / "share"
    file = make_instance(tmp_path / "1.dcm", 1)
    data = file.read_bytes()
    for uid in (b"1.2.3.1\0", b"1.2.3.2\0"):
        new = value.encode("latin-1", "replace")[:64].ljust(8, b" ")
        new += b" " * (len(new) % 2)
        head = data.index(uid) - 2
        data = data[:head] + len(new).to_bytes(2, "little") + new + data[head + 2 + len(uid) :]
    file.write_bytes(data)
    open_destination(str(folder)).send([file])
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p != file]
    assert len(written) == 1
    assert written[0].resolve().is_relative_to(folder.resolve())


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path, instances: Instances) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "share" / "1.2.3.1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PacsUnreachable, match="leads out"):
        open_destination(str(tmp_path / "share")).send(instances(1))
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ODD_UIDS)
def test_an_instance_with_an_odd_uid_stays_in_the_spool(tmp_path: Path, uid: str) -> None:
    file = make_instance(tmp_path / "1.dcm", 1, SOPInstanceUID=uid)
    with Spool(tmp_path / "spool") as spool:
        assert [e.uid for e in spool.put([file], ["pacs"])] == [uid]
        spool.reconcile()
        assert [e.uid for e in spool.entries()] == [uid]
        [claimed] = spool.claim("pacs")
        spool.delivered([claimed])
    (tmp_path / "spool" / "index.sqlite3").unlink()
    with Spool(tmp_path / "spool") as again:
        assert [(e.uid, e.state) for e in again.entries()] == [(uid, "delivered")]
        assert all(e.path.resolve().is_relative_to(again.folder.resolve()) for e in again.entries())


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(uid=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64))
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:A value of type")
def test_what_the_spool_takes_it_finds_again(tmp_path: Path, uid: str) -> None:
    file = make_instance(tmp_path / "1.dcm", 1, SOPInstanceUID=uid)
    with Spool(tmp_path / "spool") as spool:
        try:
            entries = spool.put([file], ["pacs"])
        except DicomError:  # several values, divided by a backslash
            assert "\\" in uid
            return
        spool.reconcile()
        assert spool.entries() == entries
        spool.purge(state="waiting")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@pytest.mark.parametrize("uid", ["x" * 65, "x" * 250, "1.2\x01"], ids=["65", "250", "control"])
def test_a_uid_that_cannot_be_kept_is_refused_aloud(tmp_path: Path, uid: str) -> None:
    file = make_instance(tmp_path / "1.dcm", 1, SOPInstanceUID=uid)
    with Spool(tmp_path / "spool") as spool, pytest.raises(DicomError, match="is no UID") as told:
        spool.put([file], ["pacs"])
    assert len(str(told.value)) < 300
    assert "\n" not in str(told.value)


def test_files_of_an_earlier_version_with_odd_uids_are_found(tmp_path: Path, instances: Instances) -> None:
    with Spool(tmp_path / "spool") as spool:
        [entry] = spool.put(instances(1), ["pacs"])
        entry.path.rename(entry.path.with_name(entry.path.name.replace(entry.uid, "AN OLD ONE 1.2")))
        spool.reconcile()
        assert [e.uid for e in spool.entries()] == ["AN OLD ONE 1.2"]


def test_a_name_for_a_person_has_one_line_whatever_its_bytes() -> None:
    name = os.fsdecode(b"a\xffb\nc\x1b[2J.dcm")
    assert printable(Path(name)) == "a\\xffb\\nc\\x1b[2J.dcm"
    printable(Path(name)).encode()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_may_read_what_holds_patient_data(
    tmp_path: Path, instances: Instances, umask: int
) -> None:
    files = instances(2)
    old = os.umask(umask)
    try:
        with Spool(tmp_path / "spool") as spool:
            spool.put(files, ["pacs"])
            spool.dead_letter(spool.claim("pacs", limit=1), "no")
            open_destination(str(tmp_path / "share")).send(files)
    finally:
        os.umask(old)
    for place in ("spool", "share"):
        for path in (tmp_path / place, *(tmp_path / place).rglob("*")):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o007, path


def test_a_dropbox_may_be_opened_to_others_by_its_option(tmp_path: Path, instances: Instances) -> None:
    named = {"box": {"address": str(tmp_path / "box"), "mode": "0644"}}
    old = os.umask(0)
    try:
        open_destination("box", named=named).send(instances(1))
    finally:
        os.umask(old)
    [file] = (tmp_path / "box").rglob("*.dcm")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755
    for wrong in ("0777", "9", "0044", "rw-r--r--"):
        with pytest.raises(ConfigError, match="option mode"):
            open_destination("box", named={"box": {"address": "/x", "mode": wrong}})
