"""Delivery: a durable spool, a worker that empties it, and destinations that take DICOM instances."""

from recon_node.delivery.destinations import OpenDestination, echo, open_destination, open_listener
from recon_node.delivery.instance import Instance, check_file, read_instance
from recon_node.delivery.outcome import Outcome, PacsBusy, SpoolFull, Unanswered
from recon_node.delivery.peers.acceptor import Admission
from recon_node.delivery.peers.commitment import CommitmentListener, CommitmentReport
from recon_node.delivery.peers.scp import StorageScp
from recon_node.delivery.policy import DestinationStatus, Health, Policy
from recon_node.delivery.queue.entry import Entry
from recon_node.delivery.queue.spool import Spool
from recon_node.delivery.routing import Route, Rule, check_priority, parse_rules, route
from recon_node.delivery.worker import DeliveryWorker

__all__ = [
    "Admission",
    "CommitmentListener",
    "CommitmentReport",
    "DeliveryWorker",
    "DestinationStatus",
    "Entry",
    "Health",
    "Instance",
    "OpenDestination",
    "Outcome",
    "PacsBusy",
    "Policy",
    "Route",
    "Rule",
    "Spool",
    "SpoolFull",
    "StorageScp",
    "Unanswered",
    "check_file",
    "check_priority",
    "echo",
    "open_destination",
    "open_listener",
    "parse_rules",
    "read_instance",
    "route",
]
