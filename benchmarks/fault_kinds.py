"""Every kind of fault that `benchmarks.faults` injects."""

from benchmarks import (
    fault_disks,
    fault_files,
    fault_hostile,
    fault_kills,
    fault_module,
    fault_mutants,
    fault_peers,
    fault_server,
    fault_status,
    fault_strangers,
    fault_web,
)
from benchmarks.fault_parts import KINDS, Experiments, Verdict

__all__ = [
    "KINDS",
    "Experiments",
    "Verdict",
    "fault_disks",
    "fault_files",
    "fault_hostile",
    "fault_kills",
    "fault_module",
    "fault_mutants",
    "fault_peers",
    "fault_server",
    "fault_status",
    "fault_strangers",
    "fault_web",
]
