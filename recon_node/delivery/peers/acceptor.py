"""The one place that talks to pynetdicom as an acceptor: listen while a ``with`` block lasts."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Self

from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from recon_node.core.errors import ConfigError
from recon_node.delivery.peers.association import Handlers

_SILENCE_S = 60.0


class Acceptor:
    """Answers C-ECHO, takes storage commitment in both roles, and whatever a subclass adds.

    Parameters
    ----------
    ae_title : str
        Own title; any calling title is welcome.
    host, port : str, int
        Where to listen; port 0 takes a free one (see `port`).
    tls : ssl.SSLContext, optional
        Server-side context.
    """

    def __init__(self, *, ae_title: str, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self._tls = tls
        self._server: Any = None

    def add_contexts(self, ae: AE) -> None:
        """Further presentation contexts."""

    def handlers(self) -> Handlers:
        """What happens on a request."""
        return []

    def __enter__(self) -> Self:
        """Listen.

        Raises
        ------
        ConfigError
            The address cannot be listened on.
        """
        ae = AE(ae_title=self.ae_title)
        ae.network_timeout = _SILENCE_S
        ae.add_supported_context(Verification)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self.add_contexts(ae)
        try:
            self._server = ae.start_server(
                (self.host, self.port),
                block=False,
                ssl_context=self._tls,
                evt_handlers=[(evt.EVT_CONN_OPEN, _end_reads), *self.handlers()],
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror or error}"
            ) from error
        self.port = int(self._server.server_address[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()


def _end_reads(event: Any) -> None:
    """Reads end even if the peer stops in the middle of a message (pynetdicom's have no end)."""
    event.assoc.dul.socket.socket.settimeout(_SILENCE_S)
