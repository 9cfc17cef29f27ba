"""The node's spool and the worker that empties it, as the settings want them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from recon_node.core.errors import ConfigError, DeliveryError, PacsUnreachable
from recon_node.delivery import (
    DeliveryWorker,
    OpenDestination,
    Policy,
    Spool,
    open_destination,
    open_listener,
    parse_rules,
    read_instance,
    route,
)
from recon_node.settings import DeliverySettings

POLL_S = 0.05
_TRIES = 3
"""Failures in a row after which a command gives up waiting; the spool keeps the files."""
_REPORT_WAIT_S = 30.0
"""How long a command waits for a report of storage commitment that does not come."""
_ASK_AGAIN_S = 15.0
"""A command has no listener, so a report that misses its association is asked for once more."""


def spool_folder(settings: DeliverySettings) -> Path:
    """The folder of the spool, ``~`` expanded."""
    return Path(settings.spool).expanduser()


def open_spool(settings: DeliverySettings) -> Spool:
    """The node's spool, which leaves the disk space that the settings reserve.

    Raises
    ------
    ConfigError
        The folder cannot be used.
    """
    return Spool(spool_folder(settings), reserve_bytes=settings.reserve_mb << 20)


def open_destinations(settings: DeliverySettings, names: Sequence[str]) -> dict[str, OpenDestination]:
    """Destinations by name or address, with the node's own AE title.

    Raises
    ------
    ConfigError
        A name that is not configured, or an address that is none.
    """
    return {name: open_destination(name, named=_with_title(settings)) for name in names}


def _with_title(settings: DeliverySettings) -> dict[str, Mapping[str, Any]]:
    title = {"calling": settings.calling_ae_title}
    return {
        name: {**(title if str(table.get("address", "")).startswith("dicom") else {}), **table}
        for name, table in settings.destinations.items()
    }


def has_destinations(settings: DeliverySettings) -> bool:
    """Whether anything can ever be delivered."""
    return bool(settings.to or settings.destinations or settings.routes)


def enqueue(spool: Spool, series: Sequence[Path], settings: DeliverySettings) -> int:
    """Queue the instances of one series where the settings and their rules send it; for how many places.

    Raises
    ------
    SpoolFull
        No room.
    DeliveryError
        The same SOP Instance UID with another content is already on its way.
    """
    if not series:
        return 0
    rules = parse_rules(settings.routes)
    way = route(read_instance(series[0]).properties, rules, to=settings.to, priority=settings.priority)
    if way.destinations:
        spool.put(series, way.destinations, priority=way.priority)
    return len(way.destinations)


@contextmanager
def delivering(
    spool: Spool,
    settings: DeliverySettings,
    *,
    only: str | None = None,
    hurried: bool = False,
    beside: bool = False,
) -> Iterator[DeliveryWorker]:
    """A worker for every destination of the settings, or `only` one, in the background.

    Parameters
    ----------
    spool : Spool
        What it empties.
    settings : DeliverySettings
        Destinations, patience, and where storage commitment is reported to.
    only : str, optional
        Name or address of the one destination.
    hurried : bool
        Somebody waits: try again soon, and leave reports of storage commitment to a node that
        already listens for them.
    beside : bool
        The same of reports, but with the usual patience.

    Raises
    ------
    ConfigError, DeliveryError
        A destination of the settings is not usable, or the address for reports is taken.
    """
    routed = (name for rule in parse_rules(settings.routes) for name in rule.to)
    names = (only,) if only else tuple(dict.fromkeys((*settings.destinations, *settings.to, *routed)))
    destinations = open_destinations(settings, names)
    policy = Policy(
        parallel=settings.parallel,
        grace=settings.grace_s,
        retention=3600 * settings.retention_h,
        probe=0.0 if hurried or beside else settings.probe_s,
    )
    if hurried:
        policy = replace(
            policy, first_wait=0.2, longest_wait=2.0, poll=POLL_S, commitment_patience=_ASK_AGAIN_S
        )
    worker = DeliveryWorker(spool, destinations, policy=policy)
    reporting = [_address(settings, name) for name, one in destinations.items() if one.commits]
    listen = settings.listen if reporting else None
    with _listening(worker, listen, reporting, optional=hurried or beside), worker:
        yield worker


def _address(settings: DeliverySettings, name: str) -> str:
    return str(settings.destinations.get(name, {}).get("address", name))


@contextmanager
def _listening(
    worker: DeliveryWorker, address: str | None, reporting: Sequence[str], *, optional: bool
) -> Iterator[None]:
    listener = None if address is None else open_listener(address, worker.on_report, expected=reporting)
    try:
        if listener is not None:
            listener.__enter__()
    except ConfigError:
        if not optional:
            raise
        listener = None
    try:
        yield
    finally:
        if listener is not None:
            listener.__exit__(None, None, None)


def follow(worker: DeliveryWorker, name: str, report: Callable[[int], None]) -> str | None:
    """Wait until nothing for `name` is on its way any more; the trouble, if it gives up on us.

    Parameters
    ----------
    worker : DeliveryWorker
        At work on the spool.
    name : str
        The destination.
    report : callable
        Told now and then how many instances still wait to be sent.
    """
    last, since = (-1, -1), time.monotonic()
    while True:
        counts = worker.spool.counts().get(name, {})
        now = counts.get("waiting", 0), counts.get("stored", 0)
        if now != last:
            last, since = now, time.monotonic()
        report(now[0])
        if not any(now):
            return None
        if not now[0] and time.monotonic() - since > _REPORT_WAIT_S:
            return f"{name} took {now[1]} instances, but has not committed itself to keep, or shown, them yet"
        if trouble := gave_up(worker, name):
            return trouble
        time.sleep(POLL_S)


def gave_up(worker: DeliveryWorker, name: str) -> str | None:
    """The trouble with a destination that failed several times in a row."""
    health = worker.health()[name]
    return health.trouble if health.failures >= _TRIES else None


def retry(settings: DeliverySettings, *, destination: str | None = None) -> tuple[int, list[DeliveryError]]:
    """Try dead letters and all that wait once more.

    Returns
    -------
    (int, list)
        Instances delivered, and what went wrong by destination.
    """
    troubles: list[DeliveryError] = []
    with open_spool(settings) as spool:
        spool.retry(destination=destination)
        before = _delivered(spool)
        for name in [name for name in spool.counts() if destination in (None, name)]:
            with delivering(spool, settings, only=name, hurried=True) as worker:
                trouble = follow(worker, name, lambda open_: None)
            if trouble is not None:
                troubles.append(PacsUnreachable(trouble))
        return _delivered(spool) - before, troubles


def _delivered(spool: Spool) -> int:
    return sum(states.get("delivered", 0) for states in spool.counts().values())
