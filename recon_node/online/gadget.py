"""The module that Gadgetron runs: ``python -m gadgetron PORT recon_node.gadget acquisitions``.

Functions `acquisitions`, `buckets` and `recon_data` are the targets of an ``<execute>``; for a chain
with ``<connect>`` run ``python -m recon_node.gadget PORT TARGET``, which listens on loopback and serves
one scan after another, also side by side. Chains: ``gadget_configs/``.

A failure is reported as Gadgetron understands it: an ERROR message, then the rest of the input is read,
then CLOSE. (A module that only raises leaves a client with exit status 0, no image and no word why.)
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from recon_node.core.budget import Budget
from recon_node.core.errors import ConfigError, ReconNodeError
from recon_node.mrd.acceptor import Acceptor
from recon_node.mrd.gadget_connection import LIMITS, GadgetConnection, MakeHandler, Module, Opening
from recon_node.mrd.gadget_properties import TARGETS
from recon_node.mrd.limits import ServerLimits
from recon_node.mrd.session import ScanHandler, ScanSession
from recon_node.online.log import PatientFilter, setup_logging
from recon_node.online.properties import PROPERTIES
from recon_node.online.signals import Stop, stopped_by_signals
from recon_node.settings import ServerSettings, load_settings

log = logging.getLogger(__name__)

_DRAIN_SECONDS = 30.0


class Connection(Protocol):
    """What is used of the gadgetron package's Connection."""

    @property
    def raw_bytes(self) -> RawBytes:
        """CONFIG and HEADER as they were received."""

    @property
    def socket(self) -> SocketHolder:
        """Wrapper around the socket."""


class RawBytes(Protocol):
    """The two documents that the package has read already."""

    config: bytes
    header: bytes


class SocketHolder(Protocol):
    """The package's wrapper; its own read loop spins for ever at the end of the stream, so it isn't used."""

    socket: socket.socket


_PATIENTS = PatientFilter()
"""Of this process's log."""


def _quiet_log() -> None:
    """Log as the server does: on the standard error stream, which Gadgetron keeps, without patient data."""
    setup_logging(patients=_PATIENTS)


def acquisitions(connection: Connection) -> None:
    """Target for chains that send single acquisitions."""
    _quiet_log()
    run(connection, "acquisitions", node_handler)


def buckets(connection: Connection) -> None:
    """Target for chains with AcquisitionAccumulateTrigger before the module."""
    _quiet_log()
    run(connection, "buckets", node_handler)


def recon_data(connection: Connection) -> None:
    """Target for chains with BucketToBuffer before the module."""
    _quiet_log()
    run(connection, "recon_data", node_handler)


def no_such_target(name: str, connection: Connection) -> None:
    """Target of chains whose ``target`` is none of this module's: says so, and passes everything on."""
    _quiet_log()
    known = ", ".join(TARGETS)

    def make_handler(properties: Mapping[str, str]) -> ScanHandler:
        raise ConfigError(f"the chain's <execute>: target is {name[:60]!r}, expected one of {known}")

    run(connection, "acquisitions", make_handler)


def node_handler(properties: Mapping[str, str]) -> ScanHandler:
    """The node's own reconstruction, with its settings overridden by `properties`."""
    from recon_node.online.module import make_scan_handler  # networks are loaded only where they are used

    return make_scan_handler(properties)


def _rescue(session: ScanSession, why: str) -> None:
    from recon_node.online.module import rescue

    rescue(session, why)


def run(connection: Connection, target: str, make_handler: MakeHandler) -> None:
    """Serve one scan on a connection of the gadgetron package; never raises.

    Parameters
    ----------
    connection : gadgetron.external.Connection
        CONFIG and HEADER already read.
    target : str
        One of `TARGETS`.
    make_handler : callable
        Called with the chain's properties.
    """
    raw = connection.raw_bytes
    opening = Opening(config=raw.config, header=raw.header)
    module = _module(target, make_handler)
    GadgetConnection(connection.socket.socket, "", module, opening=opening).run()


def listen(
    port: int,
    target: str,
    make_handler: MakeHandler = node_handler,
    *,
    host: str = "127.0.0.1",
    stopping: threading.Event | Stop | None = None,
    on_port: Callable[[int], None] | None = None,
    limits: ServerLimits = LIMITS,
    drain_seconds: float = _DRAIN_SECONDS,
) -> None:
    """Serve chains that use ``<connect>``, each connection in a thread of its own, until `stopping`.

    Scans that run then may end, for at most `drain_seconds`.

    Raises
    ------
    ConfigError
        The target is unknown, or the address cannot be listened on.
    """
    if target not in TARGETS:
        raise ConfigError(f"unknown target {target!r}; known are {', '.join(TARGETS)}")
    module = _module(target, make_handler, limits)
    acceptor = Acceptor(
        lambda sock, peer: GadgetConnection(sock, peer, module),
        host=host,
        port=port,
        places=limits.scans + limits.waiting + limits.arriving,
        name="gadget",
    )
    if on_port is not None:
        on_port(acceptor.port)
    with acceptor.running(drain_seconds=drain_seconds, cut_seconds=limits.linger_seconds):
        (stopping or threading.Event()).wait()


def _module(target: str, make_handler: MakeHandler, limits: ServerLimits = LIMITS) -> Module:
    return Module(
        target=target,
        make_handler=make_handler,
        properties=PROPERTIES,
        protect=_PATIENTS.protect,
        limits=limits,
        budget=Budget(limits.buffer_bytes, "server.buffer_mb"),
        rescue=_rescue,
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line of ``python -m recon_node.gadget``."""
    parser = argparse.ArgumentParser(prog="python -m recon_node.gadget", description=__doc__)
    parser.add_argument("port", type=int, help="where Gadgetron's <connect> finds the module")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    options = parser.parse_args(arguments)
    _quiet_log()
    try:
        from recon_node.online.module import delivering_on

        settings = load_settings()
        server = settings.server
        with stopped_by_signals() as stopping, delivering_on(settings):
            listen(
                options.port,
                options.target,
                host=options.host,
                stopping=stopping,
                limits=_limits(server),
                drain_seconds=server.drain_s,
            )
    except ReconNodeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return stopping.exit_code


def _limits(server: ServerSettings) -> ServerLimits:
    return dataclasses.replace(
        LIMITS,
        scans=server.max_connections,
        waiting=server.waiting,
        handshake_seconds=server.handshake_s,
        wire=dataclasses.replace(LIMITS.wire, channels=server.max_channels),
    )
