"""Memory that a stream is read into, used again once nobody looks at it."""

from __future__ import annotations

import sys

_MOST = 3
"""One being filled, one that the last run of readouts looks at, one that the node has just let go."""
_NOBODY = 3
"""References to a buffer that nobody else has: the list's, the loop's and the count's own."""


class Buffers:
    """Buffers that were read from: fresh memory costs more than the copy of what is read into it."""

    def __init__(self) -> None:
        self._kept: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """A buffer of so many bytes, whatever stands in it; arrays still look at none that is taken again."""
        for buffer in self._kept:
            if len(buffer) == size and sys.getrefcount(buffer) == _NOBODY:
                self._kept = [one for one in self._kept if one is not buffer]
                return buffer
        return bytearray(size)

    def keep(self, buffer: bytearray) -> None:
        """Take it again when arrays, and whoever else, have let go of it."""
        self._kept = [buffer, *self._kept[: _MOST - 1]]
