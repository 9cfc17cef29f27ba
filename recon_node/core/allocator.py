"""Freed memory that is kept for the next step of the same slice.

Glibc hands large arrays back to the system when they are freed, all of them where Dask has set
`MALLOC_TRIM_THRESHOLD_` to 64 KiB, and otherwise those at the end of its heap. An iteration that makes and
frees arrays then spends a tenth of its time, or most of it, on page faults. A process that reconstructs keeps
some freed memory instead.
"""

from __future__ import annotations

import ctypes
from functools import cache

VARIABLE = "MALLOC_TRIM_THRESHOLD_"
KEPT_BYTES = 1 << 28
"""Freed memory beyond this still goes back to the system."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Do so from now on; nothing without glibc."""
    change = getattr(ctypes.CDLL(None), "mallopt", None)  # no other C library has it
    if change is not None:
        change(_TRIM_THRESHOLD, KEPT_BYTES)
        change(_MMAP_THRESHOLD, KEPT_BYTES)
