from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import delivery_hostile as hostile
import pytest
from delivery_hostile import HostileScp, RawServer
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from pynetdicom import build_context, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from recon_node.core.errors import (
    ConfigError,
    DeliveryError,
    PacsMisconfigured,
    PacsRejected,
    PacsUnreachable,
)
from recon_node.delivery import PacsBusy, StorageScp, echo, open_destination
from recon_node.delivery.peers.association import Peer, open_association
from recon_node.delivery.peers.pause import Pause

Instances = Callable[..., list[Path]]
QUICK = "?connect=1&associate=1&answer=1&network=1"


def test_what_is_sent_arrives_with_its_pixels(instances: Instances, tmp_path: Path) -> None:
    files = instances(3)
    with StorageScp(tmp_path / "pacs") as scp:
        assert echo(scp.address) > 0
        destination = open_destination(scp.address)
        destination.send(files)
        destination.close()
        stored = {dcmread(f).SOPInstanceUID: dcmread(f).pixel_array for f in scp.files()}
    for file in files:
        sent = dcmread(file)
        assert (stored[sent.SOPInstanceUID] == sent.pixel_array).all()


def test_sending_twice_stores_once(instances: Instances, tmp_path: Path) -> None:
    files = instances(2)
    with StorageScp(tmp_path / "pacs") as scp:
        destination = open_destination(scp.address)
        destination.send(files)
        destination.send(files)
        destination.close()
        assert len(scp.files()) == 2


def test_an_association_is_used_again(instances: Instances) -> None:
    files = instances(3)
    with HostileScp() as scp:
        destination = open_destination(scp.address)
        for file in files:
            destination.send([file])
        destination.close()
        assert scp.associations == 1


def test_several_threads_may_send_at_once(instances: Instances) -> None:
    files = instances(8)
    with HostileScp() as scp:
        destination = open_destination(scp.address)
        threads = [threading.Thread(target=destination.send, args=(files[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        destination.close()
        assert len(scp.held) == 8


def test_each_answer_is_heard_however_busy_the_machine_is(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom's thread is held up just where, without a reliable pause, it takes the answer for itself."""
    real = Pause.wait

    def late(self: Pause, timeout: float | None = None) -> bool:
        passed = real(self, timeout)
        time.sleep(0.01)
        return passed

    monkeypatch.setattr(Pause, "wait", late)
    with HostileScp() as scp:
        destination = open_destination(scp.address + QUICK)
        destination.send(instances(60))
        destination.close()
        assert len(scp.held) == 60


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("busy", PacsBusy, "out of resources"),
        ("failing", PacsUnreachable, "0x0110"),
        ("refused", PacsRejected, "0xC000"),
        ("mismatch", PacsRejected, "0xA900"),
        ("unsupported", PacsRejected, "0x0122"),
        ("abort-before", PacsUnreachable, "closed the association"),
        ("hang-up", PacsUnreachable, "closed the association"),
    ],
)
def test_each_failure_has_its_error(
    instances: Instances, fault: str, error: type[DeliveryError], text: str
) -> None:
    with HostileScp(fault) as scp:
        destination = open_destination(scp.address + QUICK)
        with pytest.raises(error, match=text):
            destination.send(instances(1))
        destination.send(instances(1))
        destination.close()
        assert len(scp.held) == 1


def test_a_missing_answer_ends_in_time(instances: Instances) -> None:
    with HostileScp("silent", delay_s=3) as scp:
        destination = open_destination(scp.address + QUICK)
        with pytest.raises(PacsUnreachable, match="no valid answer"):
            destination.send(instances(1))
        destination.close()


def test_a_warning_is_a_success_with_a_note(instances: Instances) -> None:
    with HostileScp("warning") as scp:
        destination = open_destination(scp.address)
        [outcome] = destination.deliver(instances(1))
        destination.close()
    assert outcome.error is None
    assert "0xB000" in str(outcome.note)


def test_one_bad_file_does_not_stop_the_others(instances: Instances, tmp_path: Path) -> None:
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"no dicom")
    with StorageScp(tmp_path / "pacs") as scp:
        destination = open_destination(scp.address)
        outcomes = list(destination.deliver([bad, *instances(2)]))
        destination.close()
    assert sorted(o.error is None for o in outcomes) == [False, True, True]


@pytest.mark.parametrize(
    ("reject", "error", "text"),
    [
        ("calling", PacsMisconfigured, "does not know our AE title 'RECON-NODE'"),
        ("called", PacsMisconfigured, "is not called 'WRONG'"),
    ],
)
def test_a_rejected_association_says_what_to_change(
    reject: str, error: type[DeliveryError], text: str
) -> None:
    with HostileScp(reject=reject) as scp, pytest.raises(error, match=text):
        echo(f"dicom://WRONG@127.0.0.1:{scp.port}")


def test_a_rejection_is_told_even_when_the_connection_closed_before_it_was_looked_at() -> None:
    busy_machine = [(evt.EVT_REQUESTED, lambda event: time.sleep(0.3))]
    with HostileScp(reject="called") as scp:
        peer = Peer(host="127.0.0.1", port=scp.port, called="WRONG")
        with pytest.raises(PacsMisconfigured, match="not called 'WRONG'"):
            open_association(peer, [build_context(Verification)], handlers=busy_machine)


def test_too_many_associations_is_a_reason_to_wait(instances: Instances) -> None:
    with HostileScp(reject="congestion") as scp:
        destination = open_destination(scp.address)
        destination.send(instances(1))
        with pytest.raises(PacsBusy, match="for now"):
            echo(scp.address)
        destination.close()


def test_no_presentation_context_concerns_the_file_not_the_destination(instances: Instances) -> None:
    with HostileScp(reject="context") as scp:
        destination = open_destination(scp.address)
        outcomes = list(destination.deliver(instances(2)))
        destination.close()
    assert all(isinstance(o.error, PacsMisconfigured) for o in outcomes)
    assert all("MR Image Storage" in str(o.error) for o in outcomes)


def test_a_transfer_syntax_the_peer_lacks_is_converted(instances: Instances, tmp_path: Path) -> None:
    plain, packed = instances(2)
    compressed = dcmread(packed)
    original = compressed.pixel_array
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(packed)
    with HostileScp(syntaxes=[str(ImplicitVRLittleEndian)]) as scp:
        destination = open_destination(scp.address)
        destination.send([plain, packed])
        destination.close()
        assert len(scp.held) == 2
    with StorageScp(tmp_path / "pacs") as scp:
        destination = open_destination(scp.address)
        destination.send([packed])
        destination.close()
        [kept] = scp.files()
        assert dcmread(kept).file_meta.TransferSyntaxUID == RLELossless
        assert (dcmread(kept).pixel_array == original).all()


@pytest.mark.parametrize(
    "talk",
    [
        hostile.hang_up,
        hostile.say_garbage,
        hostile.say_half_a_pdu,
        hostile.announce_a_huge_pdu,
        hostile.speak_http,
        hostile.say_nothing,
    ],
)
def test_nonsense_from_the_peer_is_an_error_in_time(talk: Callable[..., None]) -> None:
    with RawServer(talk) as server, pytest.raises(PacsUnreachable, match="no valid DICOM answer"):
        echo(server.address + QUICK)


@pytest.mark.parametrize("talk", [hostile.hang_up, hostile.say_garbage])
def test_a_connection_that_ends_in_nonsense_leaves_no_socket_open(talk: Callable[..., None]) -> None:
    with RawServer(talk) as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(100):  # the leak was a race
            with pytest.raises(PacsUnreachable):
                echo(server.address + QUICK)
        gc.collect()
    assert [str(w.message) for w in told] == []


def test_unreachable_peers_are_told_apart() -> None:
    with RawServer(hostile.hang_up) as server:
        port = server.port
    with pytest.raises(PacsUnreachable, match="refused"):
        echo(f"dicom://X@127.0.0.1:{port}")
    with pytest.raises(PacsUnreachable, match="host name is not known"):
        echo("dicom://X@no-such-host.invalid:104")


@pytest.mark.parametrize(
    ("dest", "text"),
    [
        ("dicom://host:104", "AE title"),
        ("dicom://AN-AE-TITLE-TOO-LONG@host:104", "AE title"),
        ("dicom://X@host:port", "expected dicom://AET@host:port"),
        ("dicom://X@host:104?colour=red", "unknown option colour"),
        ("dicom://X@host:104?ca=x.pem", "need dicoms://"),
        ("dicoms://X@host:104?ca=missing.pem", "missing.pem"),
        ("dicom://X@host?answer=soon", "no number of seconds"),
        ("dicom://X@host?commitment=perhaps", "true or false"),
        ("ftp://host", "unknown scheme"),
        ("", "empty folder name"),
        ("orthank", "not configured"),
    ],
)
def test_a_wrong_address_says_what_was_expected(dest: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        open_destination(dest)


def test_named_destinations_take_their_options() -> None:
    named = {"pacs": {"address": "dicom://X@host:104", "calling": "NODE", "answer": 5, "commitment": True}}
    destination = open_destination("pacs", named=named)
    assert (destination.name, destination.commits) == ("pacs", True)
    with pytest.raises(ConfigError, match="no address"):
        open_destination("pacs", named={"pacs": {}})
    with pytest.raises(ConfigError, match="unknown option"):
        open_destination("web", named={"web": {"address": "https://host", "colour": "red"}})


def test_a_folder_destination_keeps_whole_files(instances: Instances, tmp_path: Path) -> None:
    files = instances(2)
    destination = open_destination(str(tmp_path / "out"))
    destination.echo()
    destination.send(files)
    destination.send(files)
    written = sorted((tmp_path / "out").rglob("*"))
    assert [p.suffix for p in written if p.is_file()] == [".dcm", ".dcm"]
    assert {p.read_bytes() for p in written if p.is_file()} == {f.read_bytes() for f in files}


def test_a_folder_that_cannot_be_written_is_an_error(instances: Instances, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    destination = open_destination(str(tmp_path / "file"))
    with pytest.raises(PacsMisconfigured):
        destination.echo()
    with pytest.raises(PacsUnreachable):
        destination.send(instances(1))
