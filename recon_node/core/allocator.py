"""Freed memory that is kept for the next step of the same slice.

Dask sets `MALLOC_TRIM_THRESHOLD_` to 64 KiB for its workers. Glibc then hands every large array back to the
system when it is freed, and an iteration that makes and frees arrays spends more time on page faults than on
numbers. Where that variable is set, a process that reconstructs keeps some freed memory instead.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

VARIABLE = "MALLOC_TRIM_THRESHOLD_"
KEPT_BYTES = 1 << 28
"""Freed memory beyond this still goes back to the system."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Do so from now on; nothing without glibc, or where freed memory is kept anyway."""
    if VARIABLE not in os.environ:
        return
    change = getattr(ctypes.CDLL(None), "mallopt", None)  # no other C library has it
    if change is not None:
        change(_TRIM_THRESHOLD, KEPT_BYTES)
        change(_MMAP_THRESHOLD, KEPT_BYTES)
