"""The process that workers of this machine are forks of: it imports what they need, once.

That takes seconds, and so do this process's own imports: begun early, one is done while the other is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context

from recon_node.core.allocator import KEPT_BYTES, VARIABLE
from recon_node.core.threads import DEFAULTS

ENVIRONMENT = {
    **DEFAULTS,
    VARIABLE: str(KEPT_BYTES),
    "DASK_LOGGING__DISTRIBUTED": "critical",  # what happens to slices, the replay tells itself
}
"""Of workers; libraries look at it once, when they are imported."""
_IMPORTED = ["distributed", "recon_node.offline.spread"]


def begin() -> None:
    """Start the process, unless it is there; it goes on by itself, and ends with this one."""
    get_context("forkserver").set_forkserver_preload(_IMPORTED)
    os.environ.update(ENVIRONMENT)  # as Dask does
    with interrupts_held():
        forkserver.ensure_running()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes started within never see Ctrl-C, which a terminal sends to all: this one ends them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
