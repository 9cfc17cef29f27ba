"""Destinations that other packages add: one function `send`, held to what the worker relies on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from recon_node.core.errors import (
    ConfigError,
    DeliveryError,
    PacsMisconfigured,
    PacsUnreachable,
    ReconNodeError,
    where_it_failed,
)
from recon_node.core.plugins import FAILURES, imported, told
from recon_node.core.protocols import Destination
from recon_node.delivery.instance import Instance
from recon_node.delivery.outcome import Outcome
from recon_node.delivery.peers.sender import OneByOne

log = logging.getLogger(__name__)

GROUP = "recon_node.destinations"
"""Entry point group: the name is the scheme of addresses, what it names opens one."""


class ForeignDestination(OneByOne):
    """A `Destination` of another package, one file at a time so that each has an outcome of its own.

    An error that is none of this package's counts as `PacsUnreachable`: the instance stays in the spool and
    is tried again, since a lost image is worse than a late one.
    """

    def __init__(self, inner: Destination, name: str) -> None:
        self._inner = inner
        self._name = name

    @property
    def name(self) -> str:
        """Name from the settings, or the address."""
        return self._name

    def deliver_one(self, file: Path) -> Outcome:
        """Send `file`.

        Raises
        ------
        PacsUnreachable, PacsMisconfigured
            About the destination, not about this file.
        """
        try:
            self._inner.send([file])
        except (PacsUnreachable, PacsMisconfigured):
            raise
        except DeliveryError as error:
            return Outcome(file, error)
        except ReconNodeError as error:
            raise PacsUnreachable(f"{self._name}: {error}") from error
        except FAILURES as error:
            raise PacsUnreachable(f"{self._name} failed: {told(error)}") from error
        return Outcome(file)

    def holds(self, instances: Sequence[Instance]) -> Mapping[str, bool] | None:
        """What the package says is there, where it has a `holds`; see `recon_node.delivery.asking`."""
        holds = getattr(self._inner, "holds", None)
        try:
            found: Mapping[str, bool] | None = None if holds is None else holds(instances)
        except ReconNodeError:
            raise
        except FAILURES as error:
            raise PacsUnreachable(f"{self._name} failed: {told(error)}") from error
        return found

    def echo(self) -> float:
        """Try the way there; the seconds it took.

        Raises
        ------
        ConfigError
            The package offers no way to try.
        DeliveryError
            It does not answer.
        """
        echo = getattr(self._inner, "echo", None)
        if echo is None:
            raise ConfigError(f"destination {self._name} cannot be tried without sending: it has no echo()")
        try:
            return float(echo())
        except ReconNodeError:
            raise
        except FAILURES as error:
            raise PacsUnreachable(f"{self._name} failed: {told(error)}") from error

    def close(self) -> None:
        """Let go of what the package keeps open, where it has a `close`."""
        try:
            getattr(self._inner, "close", lambda: None)()
        except FAILURES as error:
            log.warning("a destination of another package cannot be closed: %s", where_it_failed(error))


def open_foreign(
    entry: EntryPoint, address: str, name: str, options: Mapping[str, Any]
) -> ForeignDestination:
    """What an installed package makes of an address, called with ``(address, **options)``.

    Raises
    ------
    ConfigError
        It cannot be imported, refuses the address or an option, or makes nothing that can send.
    """
    who = f"destination {entry.name}://"
    target = imported(who, entry.value)
    try:
        inner = target(address, **options)
    except ReconNodeError:
        raise
    except FAILURES as error:
        raise ConfigError(f"{who} cannot be opened: {told(error)}") from error
    if not callable(getattr(inner, "send", None)):
        raise ConfigError(f"{who}: {type(inner).__name__} has no method send(files): see docs/plugins.md")
    return ForeignDestination(inner, name)
