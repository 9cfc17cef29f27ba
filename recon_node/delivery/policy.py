"""How patient delivery is, and how a destination does."""

from __future__ import annotations

import random
from dataclasses import dataclass

from recon_node.core.errors import ReconNodeError
from recon_node.delivery.outcome import PacsBusy

_LONGEST_ASKED_S = 86400.0
"""No destination can silence delivery for longer than a day at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient to be; all times in seconds."""

    batch: int = 16
    """Entries claimed, and acknowledged to the disk, at a time."""
    parallel: int = 1
    """Connections to each destination."""
    first_wait: float = 1.0
    longest_wait: float = 900.0
    """Waits double from the first to the longest."""
    jitter: float = 0.25
    """Fraction by which a wait is shortened at random, so that nodes do not come back all at once."""
    give_up_after: int = 20
    """Attempts on one instance whose failure might pass while its destination is otherwise well."""
    grace: float = 0.0
    """Without storage commitment: how long after its success an entry counts as delivered."""
    commitment_patience: float = 3600.0
    """Without a report for so long, commitment is asked for again."""
    looks: tuple[float, ...] = (2.0, 10.0, 60.0)
    """Waits before a destination is asked again for instances it answered success for, but does not show."""
    series_wait: float = 60.0
    """A series is counted at its destination when the queue is empty, or has had so long."""
    retention: float = 86400.0
    """How long delivered files are kept."""
    probe: float = 0.0
    """How often a destination to which nothing goes is asked whether it is there; 0: never."""
    poll: float = 1.0
    """Longest sleep while there is nothing to do."""

    def wait(self, failures: int, rng: random.Random) -> float:
        """Back-off after `failures` in a row (at least 1), with jitter."""
        wait = min(self.longest_wait, self.first_wait * 2.0 ** min(failures - 1, 30))
        return wait * (1.0 - self.jitter * rng.random())

    def wait_after(self, error: ReconNodeError, failures: int, rng: random.Random) -> float:
        """Back-off, and at least as long as a busy destination asked for."""
        asked = error.wait_s if isinstance(error, PacsBusy) else 0.0
        return max(self.wait(failures, rng), min(asked, _LONGEST_ASKED_S))


@dataclass(slots=True)
class Health:
    """How a destination does."""

    failures: int = 0
    """In a row."""
    resume: float = 0.0
    """Steady clock: not before."""
    trouble: str | None = None
    """The last failure; None while all is well."""


@dataclass(slots=True)
class Tally:
    """What came of the attempts since the start."""

    delivered: int = 0
    """Instances the destination answered success for, or was found to have."""
    failed: int = 0
    """Attempts that failed, of one instance or of the whole destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    """One destination in numbers."""

    up: bool
    """The last attempt to talk to it, or probe of it, worked, or there was none yet."""
    trouble: str | None
    """Why it is not."""
    delivered: int
    failed: int
    """As `Tally`."""
    waiting: int
    stored: int
    dead: int
    """Entries of the spool by state."""
    oldest_waiting_s: float
    """How long the oldest waiting entry has been in the spool; 0 where none waits."""
