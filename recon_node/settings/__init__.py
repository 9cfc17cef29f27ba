"""One tree of settings: defaults < node.toml < environment < flags, all checked when they are made.

A setting is one field, in `stages` or `service`: its type, bounds, unit, meaning, and the name by which a
peer may set it. Command line, gadget, OpenRecon label, documentation and JSON schema are made from there.
"""

from recon_node.settings.load import CONFIG_VARIABLE, Loaded, load_settings, read_settings
from recon_node.settings.peers import applied, peer_help, peer_settings, with_properties
from recon_node.settings.service import DeliverySettings, LogSettings, ServerSettings
from recon_node.settings.stages import (
    CoilSettings,
    DicomSettings,
    PrepSettings,
    PromptSettings,
    ReconSettings,
)
from recon_node.settings.tree import Settings, every_setting, keys, sections

__all__ = [
    "CONFIG_VARIABLE",
    "CoilSettings",
    "DeliverySettings",
    "DicomSettings",
    "Loaded",
    "LogSettings",
    "PrepSettings",
    "PromptSettings",
    "ReconSettings",
    "ServerSettings",
    "Settings",
    "applied",
    "every_setting",
    "keys",
    "load_settings",
    "peer_help",
    "peer_settings",
    "read_settings",
    "sections",
    "with_properties",
]
