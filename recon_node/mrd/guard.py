"""The one ladder of failures: whatever a scan raises becomes an ending with a word for its peer.

The server, the gadget, deferred scans and quick images all end their work here. What is logged holds no
text that came with the data: a header's error quotes what it found, and that may be a patient's name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from recon_node.core.errors import ConfigError, ReconNodeError, TruncatedStream, where_it_failed

log = logging.getLogger(__name__)

Outcome = Literal["ok", "error", "truncated", "crashed"]
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_LONGEST = 300
"""Characters of an error that are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a piece of work ended."""

    outcome: Outcome = "ok"
    trouble: str | None = None
    """What to tell the peer, on one line; None where all went well."""
    retryable: bool = False
    """Whether the same may succeed later (a full disk, a lost device)."""
    reason: str = ""
    """Name of the error; empty where all went well."""


def guarded(
    work: Callable[[], object], *, scan_id: str, let_through: tuple[type[Exception], ...] = ()
) -> Ending:
    """Do `work`; log how it ended. Raises nothing but `let_through`."""
    try:
        work()
    except let_through:
        raise
    except ReconNodeError as error:
        log.warning("%s: %s", type(error).__name__, for_the_log(error), extra={"scan": scan_id})
        outcome: Outcome = "truncated" if isinstance(error, TruncatedStream) else "error"
        kind = type(error).__name__
        return Ending(outcome=outcome, trouble=one_line(str(error)), retryable=error.retryable, reason=kind)
    except MemoryError as error:
        log.error("out of memory: %s", where_it_failed(error), extra={"scan": scan_id})  # noqa: TRY400
        told = "this node is out of memory: try later"
        return Ending(outcome="error", trouble=told, retryable=True, reason="MemoryError")
    except Exception as error:  # noqa: BLE001 - a fault in one scan must not touch another
        log.error("scan failed: %s", where_it_failed(error), extra={"scan": scan_id})  # noqa: TRY400
        kind = type(error).__name__
        return Ending(
            outcome="crashed",
            trouble=f"internal error ({kind}); the node's log names scan {scan_id}",
            reason=kind,
        )
    return Ending()


def one_line(text: str) -> str:
    """`text` without line ends, cut where it gets too long to be read."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."


def for_the_log(error: ReconNodeError) -> str:
    """An error without what it quotes, unless that comes from settings and names of the protocol."""
    text = str(error)
    return one_line(text if isinstance(error, ConfigError) else _QUOTED.sub("'...'", text))
