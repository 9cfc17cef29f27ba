"""An answer that comes too late, while the association is being released, ends no thread."""

from __future__ import annotations

from pathlib import Path

from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from recon_node.delivery import StorageScp
from recon_node.delivery.peers.association import Peer, open_association, release


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
