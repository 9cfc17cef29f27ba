"""Memory that a peer may make this node use: charged before it is allocated.

A header of a few bytes can announce gigabytes. What a scan announces is held against two limits: what may be
held for one scan at all, and how much larger k-space may be than what has really arrived (k-space that was
never sent is never paid for).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from recon_node.core.errors import LimitReached, NodeBusy

MIB = 1 << 20


class Budget:
    """Bytes that many users share.

    Parameters
    ----------
    limit : int
        Bytes in use at a time.
    setting : str
        Its name in the settings, for the refusal.
    """

    def __init__(self, limit: int, setting: str) -> None:
        self.limit = limit
        self._setting = setting
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes in use."""
        with self._lock:
            return self._used

    def charge(self, size: int, what: str) -> None:
        """Take `size` bytes (or give them back, where it is negative).

        Raises
        ------
        NodeBusy
            They are not there at this moment.
        LimitReached
            They never will be.
        """
        with self._lock:
            if size > 0 and self._used + size > self.limit:
                kind = LimitReached if size > self.limit else NodeBusy
                raise kind(
                    f"{what} of {size / MIB:.0f} MiB: {self._used / MIB:.0f} of {self.limit / MIB:.0f} MiB "
                    f"for all connections are in use ({self._setting})"
                )
            self._used += size


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """What one scan may hold in memory."""

    held_bytes: int = 8192 * MIB
    """K-space of slices that are not complete yet, and readouts kept for gating."""
    unproven_bytes: int = 128 * MIB
    """K-space or images of one slice that need no proof."""
    ratio: int = 64
    """Above that: how many times larger than all that arrived."""
    setting: str = "prep.memory_mb"


def kspace_bytes(*shape: int) -> int:
    """Of complex64 samples."""
    return 8 * math.prod(shape)


class ScanMemory:
    """What one scan holds, and what has arrived of it."""

    def __init__(self, limits: ScanLimits | None = None) -> None:
        self._limits = limits or ScanLimits()
        self._received = 0
        self._held = 0

    def arrived(self, size: int) -> None:
        """So many bytes of samples came."""
        self._received += size

    def hold(self, size: int, what: str) -> None:
        """Take memory (or give it back, where `size` is negative).

        Raises
        ------
        LimitReached
            More than one scan may hold.
        """
        limits = self._limits
        if size > 0 and self._held + size > limits.held_bytes:
            raise LimitReached(
                f"{what} of {size / MIB:.0f} MiB, with {self._held / MIB:.0f} MiB held: a scan may hold "
                f"{limits.held_bytes / MIB:.0f} MiB at a time ({limits.setting})"
            )
        self._held = max(0, self._held + size)

    def prove(self, size: int, what: str) -> None:
        """See that what was announced is not out of all proportion to what arrived.

        Raises
        ------
        LimitReached
            It is.
        """
        limits = self._limits
        if size > max(limits.unproven_bytes, limits.ratio * self._received):
            raise LimitReached(
                f"{what} of {size / MIB:.0f} MiB was announced and {self._received / MIB:.3g} MiB came: "
                f"expected at least 1/{limits.ratio} of it"
            )
