"""The module that Gadgetron runs: ``python -m gadgetron PORT recon_node.gadget acquisitions``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from recon_node.online.gadget import (
    Connection,
    acquisitions,
    buckets,
    listen,
    main,
    no_such_target,
    recon_data,
)
from recon_node.online.signals import leave

__all__ = ["acquisitions", "buckets", "listen", "main", "recon_data"]


def __getattr__(name: str) -> Callable[[Connection], None]:
    """A target that a chain misspelt tells so; Gadgetron's own package would end without a word."""
    started = getattr(sys.modules["__main__"].__spec__, "name", "")
    if started == "gadgetron.__main__" and not name.startswith("_"):
        return partial(no_such_target, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    leave(main())
