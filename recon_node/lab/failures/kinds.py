"""The table of faults: what can go wrong with a scan, a kind a row, each at three strengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recon_node.core.errors import ConfigError
from recon_node.lab.failures import coil_faults as coils
from recon_node.lab.failures import motion_faults as motion
from recon_node.lab.failures.raw import Raw

CLEAN = "clean"
LEVELS = (1, 2, 3)
"""Faint, plain and strong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way for a scan to go wrong."""

    name: str
    strengths: tuple[float, float, float]
    apply: Callable[[Raw, float], None]
    network: bool = False
    """Whether it is about the network, so that methods without one cannot have it."""

    @property
    def says(self) -> str:
        """In a sentence."""
        return " ".join((self.apply.__doc__ or "").split())


_KINDS = (
    Kind(name="coils-swapped", strengths=(1, 2, 4), apply=coils.swap_coils),
    Kind(name="dead-coil", strengths=(1, 2, 3), apply=coils.dead_coil),
    Kind(name="stale-calibration", strengths=(4, 8, 16), apply=coils.coils_moved),
    Kind(name="wrong-calibration", strengths=(0.25, 0.5, 1), apply=coils.other_coils),
    Kind(name="calibration-motion", strengths=(2, 5, 10), apply=coils.calibration_motion),
    Kind(name="calibration-view", strengths=(0.1, 0.25, 0.5), apply=coils.calibration_view),
    Kind(name="noise-scan", strengths=(0.5, 1, 2), apply=coils.noise_scan),
    Kind(name="spikes", strengths=(0.05, 0.2, 1), apply=coils.spikes),
    Kind(name="lost-lines", strengths=(0.05, 0.15, 0.4), apply=coils.lost_lines),
    Kind(name="gain-jump", strengths=(1.2, 1.6, 3), apply=coils.gain_jump),
    Kind(name="low-signal", strengths=(2, 4, 8), apply=coils.low_signal),
    Kind(name="motion-between", strengths=(2, 4, 8), apply=motion.motion_between),
    Kind(name="motion-within", strengths=(1, 3, 6), apply=motion.motion_within),
    Kind(name="wrong-triggers", strengths=(0.1, 0.3, 1), apply=motion.wrong_triggers),
    Kind(name="phase-order", strengths=(0.25, 0.5, 1), apply=motion.phase_order),
    Kind(name="off-resonance", strengths=(0.1, 0.25, 0.5), apply=motion.off_resonance),
    Kind(name="implant", strengths=(3, 6, 10), apply=motion.implant),
    Kind(name="too-fast", strengths=(24, 32, 48), apply=motion.too_fast),
    Kind(name="folding", strengths=(0.85, 0.7, 0.5), apply=motion.folding),
    Kind(name="wrong-words", strengths=(1, 2, 3), apply=motion.wrong_words),
    Kind(name="young-network", strengths=(1, 1, 1), apply=motion.young_network, network=True),
    Kind(name="damaged-network", strengths=(0.1, 0.3, 1), apply=motion.damaged_network, network=True),
    Kind(name="inventing-network", strengths=(0.2, 0.5, 1), apply=motion.inventing_network),
    Kind(name="phase-counter", strengths=(0.25, 0.5, 1), apply=motion.phase_counter),
)
KINDS = {kind.name: kind for kind in _KINDS}


def chosen_kinds(names: Sequence[str], *, learned: bool) -> tuple[Kind, ...]:
    """The kinds of these names, all where there are none.

    Parameters
    ----------
    names : sequence of str
        Of the table.
    learned : bool
        Whether the method has a network.

    Raises
    ------
    ConfigError
        There is no such kind.
    """
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ConfigError(f"kinds: found {', '.join(unknown)}, expected some of {', '.join(KINDS)}")
    return tuple(
        kind for kind in _KINDS if (not names or kind.name in names) and (learned or not kind.network)
    )
