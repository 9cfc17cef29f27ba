"""The one place that talks to pynetdicom as a requestor: open an association, or say why not.

pynetdicom keeps results as state (a refused connection, a garbled answer and "no presentation
context" all read as aborted) and logs causes instead of raising them. Here each ends as one error
of `recon_node.core.errors` whose text tells a person what to look at.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from recon_node.core.errors import DeliveryError, PacsMisconfigured, PacsUnreachable, where_it_failed
from recon_node.delivery.outcome import PacsBusy
from recon_node.delivery.peers.late import drop_late_data
from recon_node.delivery.peers.pause import pause_reliably
from recon_node.dicom.uids import IMPLEMENTATION_NAME, IMPLEMENTATION_UID

_LOG = logging.getLogger(__name__)

Handlers = list[tuple[Any, Callable[..., Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Every wait has an end; all in seconds."""

    connect: float = 10.0
    associate: float = 30.0
    """Until the answer to the association request, and to the release."""
    answer: float = 60.0
    """Until the response to one message."""
    network: float = 60.0
    """Silence on a connection that is in use, within a message too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A remote application entity and how to reach it."""

    host: str
    port: int
    called: str
    calling: str = "RECON-NODE"
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    """Name the peer's certificate must be for; None: `host`."""
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __str__(self) -> str:
        return f"{self.called}@{self.host}:{self.port}"


class NoContext(PacsMisconfigured):
    """The peer accepted the association, but none of the presentation contexts."""


class ReadLimits:
    """How much a peer may make us read: into one PDU, into all, and for how long at one of them.

    Parameters
    ----------
    pdu_bytes, total_bytes : int
        Longest PDU, and bytes over the life of the connection.
    seconds : float
        From the first byte of a PDU to its last.
    """

    def __init__(self, *, seconds: float, pdu_bytes: int = 1 << 20, total_bytes: int = 1 << 32) -> None:
        self._pdu_bytes = pdu_bytes
        self._left = total_bytes
        self._seconds = seconds

    def recv(self, sock: Any, count: int) -> bytearray:
        """`count` bytes, or fewer where the peer closes.

        Raises
        ------
        OSError
            More than is allowed, or too slow.
        """
        self._left -= count
        if count > self._pdu_bytes or self._left < 0:
            raise OSError(f"the peer announces {count} bytes at once, more than this connection may")
        end = time.monotonic() + self._seconds
        received = bytearray()
        while len(received) < count:
            part = sock.recv(min(65536, count - len(received)))
            if not part:
                break
            received += part
            if time.monotonic() > end:
                raise TimeoutError(f"{count} bytes took longer than {self._seconds:g} s")
        return received


class _ClosingSocket(AssociationSocket):
    """pynetdicom's socket, closed even if it never was connected (the original leaks those), with limits."""

    limits = ReadLimits(seconds=60.0)

    def recv(self, nr_bytes: int) -> bytearray:
        try:
            return self.limits.recv(self.socket, nr_bytes)
        except OSError:
            self._shutdown_socket()
            raise

    def _shutdown_socket(self) -> None:
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class _DaemonAE(AE):
    """pynetdicom's AE, whose protocol threads never keep the program from ending."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: Any
    ) -> AssociationSocket:
        assoc.dul.daemon = True
        sock = _ClosingSocket(assoc, address=address)
        sock.limits = ReadLimits(seconds=assoc.network_timeout or 60.0)
        sock.tls_args = tls_args
        return sock


def open_association(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    handlers: Handlers | None = None,
) -> Association:
    """An established association.

    Parameters
    ----------
    peer : Peer
        Whom to call.
    contexts : sequence of PresentationContext
        At most 128.
    handlers : list
        pynetdicom event handlers to bind.

    Raises
    ------
    PacsUnreachable
        Unknown host, no route, refused, timed out, or a connection that closes without an answer.
    PacsBusy
        The peer rejected for now (congestion, too many associations).
    PacsMisconfigured
        AE title rejected, TLS failed, or (`NoContext`) nothing proposed was accepted.
    """
    opened: list[bool] = []
    rejections: list[Any] = []

    def on_open(event: Any) -> None:
        opened.append(True)
        _tune(event, peer.timeouts.network)
        drop_late_data(event)

    def on_pdu(event: Any) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu.to_primitive())

    start = time.monotonic()
    association = _associate(
        peer, contexts, [(evt.EVT_CONN_OPEN, on_open), (evt.EVT_PDU_RECV, on_pdu), *(handlers or [])]
    )
    if not association.is_established:
        _close_connection(association)
    if rejections:
        # Taken from the wire: `is_rejected` is lost where the protocol thread has read the answer and
        # closed the connection before the calling thread runs again (a busy machine).
        raise _rejection(peer, rejections[0])
    if not association.is_established:
        waited = time.monotonic() - start
        raise _why_not(peer, association, opened=bool(opened), waited_s=waited)
    pause_reliably(association)
    return association


def _associate(peer: Peer, contexts: Sequence[PresentationContext], handlers: Handlers) -> Association:
    """Pynetdicom's association, established or not."""
    ae = _DaemonAE(ae_title=peer.calling)
    ae.implementation_class_uid = UID(IMPLEMENTATION_UID)
    ae.implementation_version_name = IMPLEMENTATION_NAME
    ae.connection_timeout = peer.timeouts.connect
    ae.acse_timeout = peer.timeouts.associate
    ae.dimse_timeout = peer.timeouts.answer
    ae.network_timeout = peer.timeouts.network
    quick = [(evt.EVT_DATA_SENT, _acknowledge_at_once), (evt.EVT_DATA_RECV, _acknowledge_at_once)]
    try:
        return ae.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.called,
            tls_args=(peer.tls, peer.server_name or peer.host) if peer.tls else None,
            evt_handlers=[*handlers, *quick],
        )
    except OSError as error:
        raise PacsUnreachable(f"{peer}: {_socket_cause(error)}") from error
    except Exception as error:  # what pynetdicom makes of an odd address or answer is the destination's
        raise PacsUnreachable(f"{peer}: no association ({where_it_failed(error)})") from error


def _tune(event: Any, silence_s: float) -> None:
    """No Nagle delay, and an end to every read and write (pynetdicom's reads have none)."""
    sock = event.assoc.dul.socket.socket
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(silence_s)


def _acknowledge_at_once(event: Any) -> None:
    """Switch delayed TCP acknowledgements off, which the kernel switches on again by itself.

    A peer with Nagle's algorithm holds the second segment of its response until the first is
    acknowledged, which costs 40 ms an instance.
    """
    sock = event.assoc.dul.socket.socket
    quick = getattr(socket, "TCP_QUICKACK", None)
    if sock is not None and quick is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, quick, 1)


def release(association: Association) -> None:
    """Release, or abort where that is no longer possible; never hangs, never raises."""
    try:
        if association.is_established:
            association.release()
        if association.is_established or association.dul.is_alive():
            association.abort()
    except Exception as error:  # noqa: BLE001 - what is left of it is closed below
        _LOG.debug("an association did not end as it should (%s)", where_it_failed(error))
    _close_connection(association)


def drop(association: Association) -> None:
    """End an association in whose middle something unforeseen happened, without a further word."""
    with contextlib.suppress(Exception):
        association.abort(block=False)
    if association.dul.socket is not None:
        association.dul.socket.close()
    with contextlib.suppress(Exception):
        association.kill()
    _close_connection(association)


def _close_connection(association: Association) -> None:
    """Close the socket of an association that has ended.

    pynetdicom leaves it open where the peer's close and its own abort cross.
    """
    dul = association.dul
    dul.kill_dul()
    if dul.is_alive():
        dul.join(timeout=1.0)
    if dul.socket is not None:
        dul.socket.close()


def _why_not(peer: Peer, association: Association, *, opened: bool, waited_s: float) -> DeliveryError:
    if association.rejected_contexts and not association.accepted_contexts:
        names = sorted({UID(str(c.abstract_syntax)).name for c in association.rejected_contexts})
        return NoContext(
            f"{peer} accepted the association but no presentation context for {', '.join(names)}"
        )
    cause = find_network_fault(peer)
    if cause is not None:
        return cause
    if opened:
        limit = peer.timeouts.associate
        when = f"within {limit:g} s" if waited_s >= limit else "before the connection ended"
        return PacsUnreachable(
            f"{peer}: connected, but no valid DICOM answer to the association request {when} "
            "(is it a DICOM port, and does it expect TLS?)"
        )
    return PacsUnreachable(f"{peer}: the connection could not be opened")


def _rejection(peer: Peer, answer: Any) -> DeliveryError:
    """Meaning of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    source, reason = answer.result_source, answer.diagnostic
    if answer.result == 2 or source == 3:
        return PacsBusy(f"{peer} rejected the association for now: {answer.reason_str}")
    advice = {
        (1, 3): f"it does not know our AE title {peer.calling!r}: register it there",
        (1, 7): f"it is not called {peer.called!r}: correct the AE title of this destination",
    }.get((source, reason), str(answer.reason_str))
    return PacsMisconfigured(f"{peer} rejected the association: {advice}")


def find_network_fault(peer: Peer) -> DeliveryError | None:
    """Why no connection (TCP, then TLS) to `peer` opens; None where it does open."""
    timeout = peer.timeouts.connect
    try:
        raw = socket.create_connection((peer.host, peer.port), timeout=timeout)
    except OSError as error:
        return PacsUnreachable(f"{peer}: {_socket_cause(error)}")
    with raw:
        return None if peer.tls is None else _tls_fault(peer, peer.tls, raw)


def _tls_fault(peer: Peer, context: ssl.SSLContext, raw: socket.socket) -> DeliveryError | None:
    name = peer.server_name or peer.host
    try:
        with context.wrap_socket(raw, server_hostname=name) as wrapped:
            # In TLS 1.3 a refused client certificate is told after the handshake.
            wrapped.settimeout(min(1.0, peer.timeouts.connect))
            with contextlib.suppress(TimeoutError):
                wrapped.recv(1)
    except ssl.SSLCertVerificationError as error:
        return PacsMisconfigured(f"{peer}: TLS certificate not accepted for {name}: {error.verify_message}")
    except ssl.SSLError as error:
        return PacsMisconfigured(f"{peer}: TLS failed: {error.reason or error}")
    except TimeoutError:
        return PacsMisconfigured(f"{peer}: no answer to the TLS handshake (does this port expect TLS?)")
    except OSError as error:
        return PacsUnreachable(f"{peer}: during the TLS handshake: {_socket_cause(error)}")
    return None


def _socket_cause(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (nothing listens on that port)"
    if isinstance(error, TimeoutError):
        return "no answer to the connection request (wrong address, or a firewall)"
    return str(error.strerror or error).lower()
