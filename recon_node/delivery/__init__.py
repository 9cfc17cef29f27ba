"""Delivery: a durable spool, a worker that empties it, and destinations that take DICOM instances."""

from recon_node.delivery.commitment import CommitmentListener, CommitmentReport
from recon_node.delivery.destinations import OpenDestination, echo, open_destination
from recon_node.delivery.entry import Entry
from recon_node.delivery.outcome import Outcome, PacsBusy, SpoolFull
from recon_node.delivery.scp import StorageScp
from recon_node.delivery.spool import Spool
from recon_node.delivery.worker import DeliveryWorker, Health, Policy

__all__ = [
    "CommitmentListener",
    "CommitmentReport",
    "DeliveryWorker",
    "Entry",
    "Health",
    "OpenDestination",
    "Outcome",
    "PacsBusy",
    "Policy",
    "Spool",
    "SpoolFull",
    "StorageScp",
    "echo",
    "open_destination",
]
