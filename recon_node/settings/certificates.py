"""Certificates that the settings name, and for how long they are valid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from recon_node.core.tls import authority_days, certificate_days
from recon_node.settings.tree import Settings

Days = Callable[[], float | None]
"""Asked for, it says how many days a certificate is valid yet; raises as `certificate_days`."""


def certificates(settings: Settings) -> Iterator[tuple[str, Days]]:
    """What each certificate is for, and how to ask for its days."""
    server, delivery = settings.server, settings.delivery
    named = {"ca": server.tls_client_ca, "certificate": server.tls_certificate, "key": server.tls_key}
    yield from _of("server", named)
    for name, table in delivery.destinations.items():
        yield from _of(f"destination {name}", {**_query(str(table.get("address", ""))), **table})
    if delivery.listen is not None:
        yield from _of("listener", _query(delivery.listen))


def _query(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query)) if "://" in address else {}


def _of(whose: str, named: Mapping[str, Any]) -> Iterator[tuple[str, Days]]:
    certificate, key, ca = (named.get(name) for name in ("certificate", "key", "ca"))
    if certificate:
        yield f"certificate of {whose}", lambda: certificate_days(certificate, key)
    if ca:
        yield f"authority for {whose}", lambda: authority_days(ca)
