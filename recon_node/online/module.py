"""What the Gadgetron module does with a scan, and how what it queued is delivered once its chain has ended.

A PACS that is away keeps no chain waiting: a module that keeps running (``<connect>``) delivers in the
background for as long as it runs; one that lives for a scan (``<execute>``) leaves a process behind that
delivers what it can (`recon_node.online.afterwards`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from recon_node.delivery import Spool
from recon_node.mrd.captures.entitled import Tries
from recon_node.mrd.session import ScanHandler, ScanSession
from recon_node.online import second_try
from recon_node.online.afterwards import deliver_afterwards
from recon_node.online.deferral import Deferral, retrieve
from recon_node.online.node import Node
from recon_node.online.quick import quick_images
from recon_node.online.received import capturing, open_captures
from recon_node.online.serve import configured, echo, popped
from recon_node.pipeline.queue import delivering, has_destinations, open_spool
from recon_node.pipeline.row import Pipeline, row
from recon_node.settings import Settings, load_settings, with_properties

log = logging.getLogger(__name__)

_TRIES = Tries()
"""Of this process."""
_nodes: list[tuple[Settings, Node]] = []
_making = threading.Lock()
_resident: list[Spool] = []
"""The spool that a module that keeps running delivers from."""


def _node(settings: Settings) -> Node:
    """One node for all scans of a module that keeps running, so that networks are loaded once."""
    with _making:
        for known, node in _nodes:
            if known == settings:
                return node
        _nodes[:] = [(settings, Node(settings))]
        return _nodes[0][1]


@contextmanager
def delivering_on(settings: Settings) -> Iterator[None]:
    """Deliver what this process's scans queue, until the block ends.

    Raises
    ------
    ConfigError, DeliveryError
        A destination of the settings is not usable.
    """
    with ExitStack() as stack:
        if has_destinations(settings.delivery):
            spool = stack.enter_context(open_spool(settings.delivery))
            stack.enter_context(delivering(spool, settings.delivery, beside=True))
            _resident.append(spool)
            stack.callback(_resident.clear)
        yield


def make_scan_handler(properties: Mapping[str, str]) -> ScanHandler:
    """The handler of a gadget: node settings from the environment, changed by the chain's properties.

    Instances are queued for the destinations in the settings, and delivered once the chain has ended. A
    deferred scan is only kept here, since Gadgetron may end the process with its scan: a node that serves
    reconstructs it.

    Raises
    ------
    ReconNodeError
        Settings, weights or destinations are not usable.
    """
    base = load_settings()
    asked = dict(properties)
    fetched = popped(asked)
    settings = with_properties(base, asked)
    if settings.server.mode == "echo":
        return echo
    if settings.server.mode == "retrieve":
        scans = open_captures(settings)
        return lambda session: retrieve(scans, _TRIES, session, **fetched)
    node = _node(base.replace("recon", method=settings.recon.method, weights=settings.recon.weights))
    Pipeline(settings)
    if settings.server.mode == "deferred":
        return partial(_defer, node, settings, asked)
    return partial(_reconstruct, node, settings, asked)


def _reconstruct(node: Node, settings: Settings, properties: Mapping[str, str], session: ScanSession) -> None:
    with ExitStack() as stack:
        spool = None
        if settings.delivery.to or settings.delivery.routes:
            spool = stack.enter_context(_delivered_later(settings))
        if settings.server.record is not None:
            session = stack.enter_context(capturing(session, open_captures(settings)))
        second_try.reconstruct(node, session, settings, properties, spool=spool)


@contextmanager
def _delivered_later(settings: Settings) -> Iterator[Spool]:
    """The spool, whose instances are delivered once this scan's chain has ended."""
    if _resident:
        yield _resident[0]
        return
    with open_spool(settings.delivery) as spool:
        try:
            yield spool
        finally:
            deliver_afterwards(spool)


def _defer(node: Node, settings: Settings, properties: Mapping[str, str], session: ScanSession) -> None:
    scans = open_captures(settings)
    Deferral(node, scans).defer(session, settings, properties)
    if scans.idle():
        log.warning("no node works on deferred scans: `recon-node serve` with these settings will")


def rescue(session: ScanSession, why: str) -> None:
    """Quick images for a chain whose scan is refused.

    Raises
    ------
    ReconNodeError
        The settings are not usable, or the fallback cannot reconstruct it either.
    """
    base = load_settings()
    quick_images(
        session,
        why,
        configured=partial(configured, base),
        slices=lambda scan, settings: row(scan, Pipeline(settings)),
    )
