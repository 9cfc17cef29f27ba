"""Time for the spool: waits and leases by a clock nobody can set, dates by the one on the wall."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What the spool asks of time."""

    def wall(self) -> float:
        """Seconds since 1970; may jump."""

    def steady(self) -> float:
        """Seconds since some moment of this boot; never jumps, the same in every process."""

    def boot(self) -> str:
        """Changes when `steady` starts anew."""


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> float:
        """Seconds since 1970; may jump."""
        return time.time()

    def steady(self) -> float:
        """Seconds since boot, time asleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot(self) -> str:
        """The kernel's identifier of this boot."""
        return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
