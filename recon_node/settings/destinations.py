"""Destinations, and the routes to them, as delivery itself reads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from recon_node.core.errors import ConfigError
from recon_node.schema import Refused
from recon_node.schema.complaints import closest

T = TypeVar("T")
Tables = Mapping[str, Mapping[str, Any]]


def check_delivery(destinations: Tables, to: Sequence[str], routes: Tables, listen: str | None) -> None:
    """Open what the settings name, without contacting anybody.

    Raises
    ------
    Refused
        Names the key: an address that is none, an option that a destination does not know, a certificate
        that is not there, a rule that does nothing, or a name that is not configured.
    """
    from recon_node.delivery import open_destination, open_listener, parse_rules

    for name in destinations:
        key = ("destinations", name)
        _tried(key, lambda name=name: open_destination(name, named=destinations).close())  # type: ignore[misc]
    for name in to:
        _check_name(("to",), name, destinations)
    for rule, table in routes.items():
        key = ("routes", rule)
        (parsed,) = _tried(key, lambda rule=rule, table=table: parse_rules({rule: table}))  # type: ignore[misc]
        for name in parsed.to:
            _check_name((*key, "to"), name, destinations)
    if listen is not None:
        _tried(("listen",), lambda: open_listener(listen, lambda report: None))


def _check_name(key: tuple[str, ...], name: str, destinations: Tables) -> None:
    """See that `name` is configured, or an address or folder."""
    from recon_node.delivery import open_destination

    if name in destinations:
        return
    if "://" not in name and os.sep not in name and not (name and Path(name).is_dir()):
        known = ", ".join(sorted(destinations)) or "none"
        wanted = f"a name in delivery.destinations ({known}), an address or a folder"
        raise Refused(wanted + closest(name, destinations), key=key, found=name)
    _tried(key, lambda: open_destination(name).close())


def _tried(key: tuple[str, ...], check: Callable[[], T]) -> T:
    try:
        return check()
    except ConfigError as error:
        raise Refused(key=key, told=str(error)) from error
