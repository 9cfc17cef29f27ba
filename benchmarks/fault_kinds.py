"""Every kind of fault that `benchmarks.faults` injects."""

from benchmarks import (
    fault_cines,
    fault_disks,
    fault_files,
    fault_folders,
    fault_hostile,
    fault_kills,
    fault_module,
    fault_mutants,
    fault_peers,
    fault_plugins,
    fault_server,
    fault_status,
    fault_strangers,
    fault_web,
    fault_wire,
)
from benchmarks.fault_parts import KINDS, Experiments, Verdict

__all__ = [
    "KINDS",
    "Experiments",
    "Verdict",
    "fault_cines",
    "fault_disks",
    "fault_files",
    "fault_folders",
    "fault_hostile",
    "fault_kills",
    "fault_module",
    "fault_mutants",
    "fault_peers",
    "fault_plugins",
    "fault_server",
    "fault_status",
    "fault_strangers",
    "fault_web",
    "fault_wire",
]
