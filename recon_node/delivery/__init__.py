"""Delivery: a durable spool, and destinations that take DICOM instances."""

from recon_node.delivery.destinations import OpenDestination, echo, open_destination
from recon_node.delivery.outcome import Outcome, PacsBusy, SpoolFull
from recon_node.delivery.scp import StorageScp

__all__ = [
    "OpenDestination",
    "Outcome",
    "PacsBusy",
    "SpoolFull",
    "StorageScp",
    "echo",
    "open_destination",
]
