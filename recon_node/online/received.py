"""The node's store of received scans: where it is, and what is noted of a scan for those who try it again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recon_node.core.errors import ReconNodeError, one_line
from recon_node.mrd.captures import Capture, Captures
from recon_node.mrd.captures.entitled import Identity
from recon_node.mrd.captures.leftovers import recover, take_over
from recon_node.mrd.session import ScanSession
from recon_node.online.again import Following
from recon_node.schema import make
from recon_node.settings import Settings
from recon_node.settings.tree import keys, sections, top

log = logging.getLogger(__name__)

_DAY_S = 86_400.0
_OF_IMAGES = ("prep", "coils", "recon", "prompts", "dicom")
"""Sections that images and their UIDs depend on."""


def open_captures(settings: Settings) -> Captures:
    """The store that all processes with these settings share.

    With `server.record` every scan is kept in it; else the folder `server.deferred` holds deferred scans
    alone, and their raw data until they are reconstructed.

    Raises
    ------
    ConfigError
        Its folder cannot be used.
    """
    server = settings.server
    if server.record is None:
        folder, limit = server.deferred, server.deferred_limit_mb
    else:
        folder, limit = server.record, server.record_limit_mb
    return Captures(
        Path(folder).expanduser(),
        max_bytes=limit << 20,
        most=None if server.record is None else server.record_scans,
        max_age_s=server.record_days * _DAY_S if server.record is not None and server.record_days else None,
        reserve_bytes=settings.delivery.reserve_mb << 20,
        keep_raw=server.record is not None,
    )


def take_in(captures: Captures, settings: Settings) -> None:
    """What former versions and other settings left goes into the store; the log tells of it."""
    former = Path(settings.server.deferred).expanduser()
    if former == captures.folder or not former.is_dir():
        taken, troubles = take_over(captures)
    else:
        other = Captures(former, max_bytes=0)
        if not other.own():
            log.warning("another node works on the deferred scans in %s: they stay there", former)
            taken, troubles = take_over(captures)
        else:
            recover(other, finish=settings.server.on_vanish == "finish")
            taken, troubles = take_over(captures, former)
            other.release()
    if taken:
        log.info("%d scans that were received before are in the store now", taken)
    for line in (*troubles, *(f"{folder} has no readable description" for folder in captures.damaged())):
        log.warning("received scans: %s", line)


@contextmanager
def capturing(session: ScanSession, captures: Captures) -> Iterator[Following]:
    """Keep a session's data on their way, where its connection does not do that."""
    with captures.start(session.scan_id, peer=session.peer) as arriving:
        session.capture = arriving
        trouble: str | None = "the process was stopped"
        try:
            yield Following(session, arriving.following(session.headers[0].xml, session))
            trouble = None
        except ReconNodeError as error:
            trouble = one_line(str(error))
            raise
        except Exception as error:
            trouble = f"internal error ({type(error).__name__})"
            raise
        finally:
            arriving.settle(trouble, handed=not session.peer_gone)


def described(session: ScanSession, settings: Settings, properties: Mapping[str, str]) -> dict[str, Any]:
    """What is noted of a scan once its header and its configuration are known.

    Parameters
    ----------
    session : ScanSession
    settings : Settings
        Changed by what the peer asked for.
    properties : mapping
        What the peer asked for.

    Returns
    -------
    dict
        Fields of `Capture`.
    """
    return {
        "identity": Identity.of(session.headers, session.peer),
        "configuration": session.config.name,
        "properties": dict(properties),
        "settings": changed(settings),
    }


def changed(settings: Settings) -> dict[str, dict[str, Any]]:
    """What images depend on and is not as by default, by section and key, as JSON has it."""
    tree: dict[str, dict[str, Any]] = {}
    for name in _OF_IMAGES:
        usual = keys(sections()[name]())
        own = keys(getattr(settings, name))
        other = {key: value for key, value in own.items() if value != usual[key]}
        if other:
            tree[name] = json.loads(json.dumps(other, default=_plain))
    return tree


def settings_then(capture: Capture, settings: Settings) -> Settings:
    """Settings with which the images of a received scan were made, the rest as now.

    Raises
    ------
    ConfigError
        This version does not know, or refuses, one of them.
    """
    if capture.kind == "unknown" or (not capture.settings and capture.kind == "deferred"):
        return settings
    then = {name: dict(capture.settings.get(name, {})) for name in _OF_IMAGES}
    return make(Settings, {**top(settings), **then})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise ReconNodeError(f"a setting of type {type(value).__name__} cannot be noted")
