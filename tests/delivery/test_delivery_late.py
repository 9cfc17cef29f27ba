"""Answers and releases that cross on a busy machine: nothing hangs, and no thread ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from recon_node.delivery import StorageScp
from recon_node.delivery.peers.association import Peer, open_association, release
from recon_node.delivery.peers.commitment import request_commitment

MR = "1.2.840.10008.5.1.4.1.1.4"


def test_data_after_a_release_was_asked_for_is_dropped(tmp_path: Path) -> None:
    with StorageScp(tmp_path, ae_title="PACS") as pacs:
        peer = Peer(host="127.0.0.1", port=pacs.port, called="PACS", calling="NODE")
        association = open_association(peer, [build_context(Verification)])
        machine = association.dul.state_machine
        state, machine.current_state = machine.current_state, "Sta7"
        machine.do_action("Evt9")
        machine.current_state = state
        assert association.send_c_echo().Status == 0
        release(association)
        assert association.is_released


def test_a_release_does_not_overtake_the_answer_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The PACS would wait for the answer, and hold every other report meanwhile."""
    send, told = DIMSEServiceProvider.send_msg, Association.send_n_event_report
    answers: list[Dataset] = []

    def late(self: DIMSEServiceProvider, primitive: Any, context: int) -> None:
        if isinstance(primitive, N_EVENT_REPORT) and primitive.is_valid_response:
            time.sleep(0.3)
        send(self, primitive, context)

    def heard(self: Association, *args: Any) -> tuple[Dataset, Dataset | None]:
        answers.append((answer := told(self, *args))[0])
        return answer

    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", late)
    monkeypatch.setattr(Association, "send_n_event_report", heard)
    with StorageScp(tmp_path, ae_title="PACS") as pacs:
        peer = Peer(host="127.0.0.1", port=pacs.port, called="PACS", calling="NODE")
        report = request_commitment(peer, [(MR, "1.2.3")], "1.2.4", wait_s=5.0)
    assert report is not None
    assert "1.2.3" in report.failed
    assert [answer.Status for answer in answers] == [0]


def test_a_report_served_while_the_association_is_paused_does_not_hold_its_release(tmp_path: Path) -> None:
    """pynetdicom's thread for reports says "not paused" when it ends, whatever the association does."""
    with StorageScp(tmp_path, ae_title="PACS") as pacs:
        peer = Peer(host="127.0.0.1", port=pacs.port, called="PACS", calling="NODE")
        association = open_association(peer, [build_context(Verification)])
        association._reactor_checkpoint.clear()
        association._is_paused = False
        releasing = threading.Thread(target=release, args=(association,), daemon=True)
        releasing.start()
        releasing.join(10.0)
        assert association.is_released
