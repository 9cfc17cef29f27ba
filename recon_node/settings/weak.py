"""Settings that are allowed, but let more people in than a site may want."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from recon_node.core.tls import certificate_trouble
from recon_node.settings.kinds import is_loopback
from recon_node.settings.tree import Settings


def weaknesses(settings: Settings) -> tuple[str, ...]:
    """What a site should know about who can reach it, and about dates of its certificate, a line each.

    Raises
    ------
    ConfigError
        The server's certificate or key cannot be used.
    """
    return tuple(_weak(settings))


def _weak(settings: Settings) -> Iterator[str]:
    server, listen = settings.server, settings.delivery.listen
    if not is_loopback(server.host):
        if not server.allowed_peers and server.tls_client_ca is None:
            yield (
                f"[server] host: whoever reaches {server.host} may send scans: set allowed_peers, or "
                "tls_certificate, tls_key and tls_client_ca"
            )
        if server.tls_certificate is None:
            yield f"[server] host: scans come to {server.host} unencrypted: set tls_certificate and tls_key"
    if server.tls_certificate is not None:
        trouble = certificate_trouble(server.tls_certificate, server.tls_key)
        if trouble is not None:
            yield f"[server] tls_certificate: {trouble}"
    yield from _weak_status(settings)
    if listen is not None:
        parts = urlsplit(listen)
        if not is_loopback(parts.hostname or "") and "ca" not in dict(parse_qsl(parts.query)):
            yield (
                f"[delivery] listen: whoever reaches {parts.hostname} may report that instances are stored: "
                "use dicoms:// with ca="
            )


def _weak_status(settings: Settings) -> Iterator[str]:
    server = settings.server
    if server.status_port is None or is_loopback(server.status_host):
        return
    if server.tls_certificate is None:
        yield (
            f"[server] status_host: the status page and its token go to {server.status_host} unencrypted: "
            "set tls_certificate and tls_key"
        )
