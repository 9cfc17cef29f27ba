"""One thread a process, unless somebody asked for more.

A slice's matrices are too small to be shared between threads, and several workers whose threads wait for each
other are slower than one. Libraries read these variables when they are loaded, so they are set when
`recon_node` is imported; values that are there already stay.

The last bits of a matrix product depend on how many threads share it. Images must not: the same data give
the same bytes under the same UIDs. So while k-space and images are made, matrix products are one thread's
business whatever the environment says, also where a library was loaded before `recon_node`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import OpenBLASController, ThreadpoolController

DEFAULTS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""``passive``: threads that wait for work sleep, where more than one was asked for."""


def one_thread_by_default() -> None:
    """Set what the environment does not say."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


class _Limit:
    """How many are at work, and what gives the libraries their threads back after the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: Any = None
        self._modules = 0
        self._libraries: Any = None

    def enter(self) -> None:
        with self._lock:
            limiter = self._limited()  # each time: libraries may have been loaded since, some count by thread
            if self._users == 0:
                self._before = limiter
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                OpenBLASController.clear_controlling_thread(force=True)
                self._before.restore_original_limits()

    def _limited(self) -> Any:
        """Matrix products get one thread from now on, whichever thread has set their number before.

        Libraries are looked for again where a module was imported since: reading the map of the process takes
        longer than a small product.
        """
        OpenBLASController.clear_controlling_thread(force=True)
        if len(sys.modules) != self._modules:
            self._libraries = ThreadpoolController().select(user_api="blas")
            self._modules = len(sys.modules)
        return self._libraries.limit(limits=1)


_limit = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Matrix products of numpy and scipy by one thread; may be nested, and entered by several threads.

    The limit is the process's, not the thread's: it is lifted when the last one leaves. Also a decorator.
    """
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()
