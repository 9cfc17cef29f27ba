"""One thread a process, unless somebody asked for more.

A slice's matrices are too small to be shared between threads, and several workers whose threads wait for each
other are slower than one. Libraries read these variables when they are loaded, so they are set when
`recon_node` is imported; values that are there already stay.
"""

from __future__ import annotations

import os

DEFAULTS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""``passive``: threads that wait for work sleep, where more than one was asked for."""


def one_thread_by_default() -> None:
    """Set what the environment does not say."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
