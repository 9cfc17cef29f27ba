"""TLS for every port of the node and every connection it makes: the one place that makes contexts."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from recon_node.core.errors import ConfigError

_DAY_S = 86400.0
_SOON_DAYS = 14.0


def server_tls(
    certificate: Path | str, key: Path | str | None = None, *, client_ca: Path | str | None = None
) -> ssl.SSLContext:
    """TLS 1.2 or newer for a server; with `client_ca`, only clients with a certificate of it are served.

    Parameters
    ----------
    certificate : Path or str
        PEM, with the chain where there is one.
    key : Path or str, optional
        PEM; by default in the certificate's file.
    client_ca : Path or str, optional

    Raises
    ------
    ConfigError
        A file is missing or holds no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, certificate, key, client_ca)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(
    ca: Path | str | None = None,
    *,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
) -> ssl.SSLContext:
    """TLS 1.2 or newer for a client: the server must be signed by `ca`, and for the name that was called.

    Parameters
    ----------
    ca : Path or str, optional
        PEM; by default the authorities that this machine trusts.
    certificate, key : Path or str, optional
        Shown to a server that asks.

    Raises
    ------
    ConfigError
        A file is missing or holds no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, certificate, key, ca)
    if ca is None:
        context.load_default_certs()
    return context


def certificate_trouble(certificate: Path | str, key: Path | str | None = None) -> str | None:
    """Why clients that check dates will refuse a server's certificate; None where they won't.

    Found by a handshake in memory with a client that trusts this very certificate.

    Raises
    ------
    ConfigError
        As `server_tls`.
    """
    try:
        left = certificate_days(certificate, key)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    return None if left is None or left > _SOON_DAYS else f"it expires in {left:.0f} days"


def certificate_days(certificate: Path | str, key: Path | str | None = None) -> float | None:
    """How many days a certificate is valid yet; None where it does not say.

    Raises
    ------
    ConfigError
        As `server_tls`.
    ssl.SSLCertVerificationError
        It is not valid today.
    """
    trusting = client_tls(certificate)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_tls(certificate, key).wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    _shake_hands(client, server)
    until = (client.getpeercert() or {}).get("notAfter")
    return _days_until(until) if isinstance(until, str) else None


def authority_days(ca: Path | str) -> float | None:
    """How many days the authorities in a file are valid yet, the first to end; None where it names none.

    Raises
    ------
    ConfigError
        The file is missing or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, None, None, ca)
    ends = [one["notAfter"] for one in context.get_ca_certs() if isinstance(one.get("notAfter"), str)]
    return min((_days_until(str(end)) for end in ends), default=None)


def _days_until(date: str) -> float:
    return (ssl.cert_time_to_seconds(date) - time.time()) / _DAY_S


def _shake_hands(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def _load(
    context: ssl.SSLContext,
    certificate: Path | str | None,
    key: Path | str | None,
    ca: Path | str | None,
) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        if ca is not None:
            context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        names = ", ".join(str(name) for name in (certificate, key, ca) if name is not None)
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"TLS certificate, key or CA cannot be used: {names} ({reason})") from error
