"""Properties that a chain's ``<configuration>`` may hold: what peers may set, and what belongs to chains."""

from __future__ import annotations

from recon_node.mrd.gadget_properties import CHAIN_PROPERTIES
from recon_node.settings import peer_help, peer_settings

PROPERTIES: dict[str, str] = {
    **{name: peer_help(setting) for name, setting in peer_settings().items()},
    **CHAIN_PROPERTIES,
}
"""Name to one line of description."""
