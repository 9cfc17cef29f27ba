"""Deferred images go to whoever sent the scan, and a stranger's tries change nothing."""

from __future__ import annotations

import json
import logging
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from recon_node.core.errors import DataError, LimitReached
from recon_node.core.scan import PatientInfo, ScanHeader, StudyInfo
from recon_node.files.open import open_source
from recon_node.mrd.captures import Captures
from recon_node.mrd.captures.entitled import Identity, Tries, matches, new_ticket
from recon_node.mrd.messages import Close, HeaderXml, ImageMessage, message_bytes
from recon_node.mrd.meta import parse_meta
from recon_node.offline.send import SendSummary, send_scan
from recon_node.online.deferral import retrieve
from recon_node.online.serve import Running, serving
from recon_node.settings import Settings

_STUDY = re.compile(rb"<(studyInstanceUID|measurementID)>[^<]*</\1>")


def settings_in(folder: Path, **server: object) -> Settings:
    settings = Settings().replace("recon", method="view-sharing", fallback="zero-filled")
    folders = {"out": str(folder / "dicom"), "deferred": str(folder / "deferred")}
    modes = {"later": {"mode": "deferred"}, "fetch": {"mode": "retrieve"}}
    return settings.replace("server", port=0, configurations=modes, **folders, **server)


def ask(
    running: Running, raw: Path, config: str, **properties: str
) -> tuple[SendSummary, list[ImageMessage]]:
    images: list[ImageMessage] = []
    summary = send_scan(
        raw, port=running.server.port, config=config, on_image=images.append, properties=properties or None
    )
    return summary, images


@pytest.fixture
def deferred(heart: tuple[Path, Path], tmp_path: Path, eventually) -> Iterator[tuple[Running, str, Path]]:
    """A node with one finished deferred scan, the ticket of it, and its folder."""
    with serving(settings_in(tmp_path, health_port=0)) as running:
        sent, quick = ask(running, heart[0], "later")
        assert sent.ok
        tickets = {parse_meta(image.attributes)["DeferredTicket"][0] for image in quick}
        (ticket,) = tickets
        assert any(ticket in text for text in sent.texts)
        scans = Captures(tmp_path / "deferred", max_bytes=1 << 40)
        assert eventually(lambda: [job.state for job in scans.all()] == ["done"])
        yield running, ticket, scans.all()[0].folder


@pytest.fixture
def guess(heart: tuple[Path, Path], tmp_path: Path) -> Path:
    """A header with the right patient, and nothing else that the sender's had."""
    with open_source(heart[0]) as source:
        xml = bytes(source.headers[0].xml)
    target = tmp_path / "guess.mrd"
    target.write_bytes(
        bytes(message_bytes(HeaderXml(xml=_STUDY.sub(b"", xml)))) + bytes(message_bytes(Close()))
    )
    return target


def test_a_guessed_patient_gets_nothing_and_the_sender_gets_everything_afterwards(
    deferred: tuple[Running, str, Path], heart: tuple[Path, Path], guess: Path, caplog
) -> None:
    running, _, folder = deferred
    before = sorted(path.name for path in folder.iterdir())
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            tried, images = ask(running, guess, "fetch")
            assert images == []
            assert "no deferred scan of this patient" in tried.errors[0]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert len([r for r in caplog.records if r.name == "recon_node.audit"]) == 3
    fetched, images = ask(running, heart[0], "fetch")
    assert fetched.ok
    assert len(images) == 16


def test_the_ticket_fetches_from_a_header_without_study(
    deferred: tuple[Running, str, Path], guess: Path, caplog
) -> None:
    running, ticket, _ = deferred
    assert ask(running, guess, "fetch", ticket=new_ticket())[1] == []
    caplog.clear()
    with caplog.at_level(logging.INFO):
        fetched, images = ask(running, guess, "fetch", ticket=ticket)
    assert fetched.ok
    assert len(images) == 16
    (line,) = [r for r in caplog.records if r.name == "recon_node.audit"]
    assert (line.getMessage(), line.peer) == ("deferred scan fetched", "127.0.0.1")
    assert ticket not in caplog.text


def test_the_ticket_is_kept_as_a_hash_only(deferred: tuple[Running, str, Path]) -> None:
    _, ticket, folder = deferred
    assert ticket not in (folder / "capture.json").read_text()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"number": "one"}',
        json.dumps({"identity": {"patient": 5}, "number": 1, "properties": {}, "whole": True}).encode(),
        json.dumps({"identity": {}, "number": {}, "properties": [], "whole": True}).encode(),
    ],
)
def test_a_damaged_job_ends_neither_the_counters_nor_the_worker(
    deferred: tuple[Running, str, Path], heart: tuple[Path, Path], damage: bytes, eventually
) -> None:
    running, _, folder = deferred
    (folder / "capture.json").write_bytes(damage)
    url = f"http://127.0.0.1:{running.health_port}/metrics"
    with urllib.request.urlopen(url, timeout=20) as page:
        assert b"recon_node_deferred_scans" in page.read()
    assert ask(running, heart[0], "later")[0].ok
    scans = Captures(folder.parent, max_bytes=1 << 40)
    assert eventually(lambda: [job.state for job in scans.all()] == ["done"]), "the next one is worked on"


class Asking:
    """A session whose header asks, from an address."""

    def __init__(self, header: ScanHeader, peer: str) -> None:
        self.headers, self.peer, self.scan_id = (header,), peer, "asking"

    def __iter__(self):
        return iter(())

    def text(self, line: str) -> bool:
        return True


def header(patient: str = "4711", study: str | None = "1.2.3", measurement: str | None = "m1") -> ScanHeader:
    return ScanHeader(
        encoded_matrix=(8, 8, 1),
        encoded_fov_mm=(1.0, 1.0, 1.0),
        recon_matrix=(8, 8, 1),
        recon_fov_mm=(1.0, 1.0, 1.0),
        patient=PatientInfo(patient_id=patient),
        study=StudyInfo(study_instance_uid=study, measurement_id=measurement),
    )


@pytest.mark.parametrize(
    ("asking", "peer", "proves"),
    [
        (header(), "10.0.0.7", True),
        (header(measurement="m2"), "10.0.0.7", True),
        (header(), "::ffff:10.0.0.7", True),
        (header(), "10.0.0.8", False),
        (header(study=None), "10.0.0.7", True),
        (header(study=None, measurement=None), "10.0.0.7", False),
        (header(study=None, measurement="m2"), "10.0.0.7", False),
    ],
)
def test_identity_is_the_senders_address_and_the_study_or_measurement(
    asking: ScanHeader, peer: str, proves: bool
) -> None:
    scan = Identity.of([header()], "10.0.0.7")
    assert Identity.of([asking], peer).proves(scan) is proves


def test_tries_are_counted_by_address_and_forgiven_after_a_while(tmp_path: Path) -> None:
    now = [0.0]
    tries = Tries(3, clock=lambda: now[0])
    scans = Captures(tmp_path, max_bytes=1 << 20)
    for number in range(3):
        with pytest.raises(DataError, match="no deferred scan"):
            retrieve(scans, tries, Asking(header(str(number)), "10.0.0.9"))
    with pytest.raises(LimitReached, match="3 tries"):
        retrieve(scans, tries, Asking(header("4"), "10.0.0.9"))
    with pytest.raises(DataError, match="no deferred scan"):
        retrieve(scans, tries, Asking(header("4"), "10.0.0.10"))
    now[0] = 601.0
    with pytest.raises(DataError, match="no deferred scan"):
        retrieve(scans, tries, Asking(header("5"), "10.0.0.9"))


def test_no_ticket_matches_a_scan_that_has_none() -> None:
    assert not matches("", "")
    assert not matches(None, "")
    assert not matches("x", "")
