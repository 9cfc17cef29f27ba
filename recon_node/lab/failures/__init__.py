"""A public benchmark of failure detection: what goes wrong with scans, and whether anybody notices."""

from recon_node.lab.failures.kinds import CLEAN, KINDS, Kind, chosen_kinds
from recon_node.lab.failures.run import FailureStudy, run

__all__ = ["CLEAN", "KINDS", "FailureStudy", "Kind", "chosen_kinds", "run"]
