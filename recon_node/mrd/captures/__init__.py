"""Received scans on disk: one store for what is recorded, deferred, tried again and handed over."""

from recon_node.mrd.captures.arriving import Arriving
from recon_node.mrd.captures.capture import Capture, Kind, State
from recon_node.mrd.captures.store import Captures

__all__ = ["Arriving", "Capture", "Captures", "Kind", "State"]
