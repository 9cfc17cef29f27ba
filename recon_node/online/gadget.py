"""The module that Gadgetron runs: ``python -m gadgetron PORT recon_node.gadget acquisitions``.

Functions `acquisitions`, `buckets` and `recon_data` are the targets of an ``<execute>``; for a chain
with ``<connect>`` run ``python -m recon_node.gadget PORT TARGET``, which listens on loopback and serves
one scan after another, also side by side. Chains: ``gadget_configs/``.

A failure is reported as Gadgetron understands it: an ERROR message, then the rest of the input is read,
then CLOSE. (A module that only raises leaves a client with exit status 0, no image and no word why.)
"""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from recon_node.core.errors import (
    ConfigError,
    ProtocolError,
    ReconNodeError,
    SourceError,
    TruncatedStream,
    where_it_failed,
)
from recon_node.mrd.frames import FrameReader, WireLimits
from recon_node.mrd.gadget_properties import MODES, PROPERTIES, TARGETS
from recon_node.mrd.gadget_session import GadgetSession
from recon_node.mrd.header import parse_header
from recon_node.mrd.messages import ConfigText, HeaderXml, close_bytes, error_bytes
from recon_node.mrd.replies import Outbox
from recon_node.mrd.request import ScanConfig, check_properties, properties_from_xml
from recon_node.mrd.session import ScanHandler, ScanSession
from recon_node.mrd.transport import SocketTransport
from recon_node.mrd.wire import decode
from recon_node.online.log import PatientFilter, setup_logging

log = logging.getLogger(__name__)

MakeHandler = Callable[[Mapping[str, str]], ScanHandler]
"""Gives the scan handler for a chain's properties, without `series`, and with `mode` as in the settings."""

_LIMITS = WireLimits(idle_seconds=12 * 3600.0, message_seconds=600.0)
_OUTBOX_BYTES = 256 << 20
_DRAIN_SECONDS = 30.0
_MAX_SERIES = 60_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What comes before the data."""

    config: bytes
    header: bytes


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


def node_handler(properties: Mapping[str, str]) -> ScanHandler:
    """The node's own reconstruction, with its settings overridden by `properties`."""
    from recon_node.online.serve import make_scan_handler  # networks are loaded only where they are used

    return make_scan_handler(properties)


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
    transport = SocketTransport(connection.socket.socket)
    reader = FrameReader(transport, limits=_LIMITS)
    _serve(transport, reader, lambda: Opening(config=raw.config, header=raw.header), target, make_handler)
    transport.release()


def listen(
    port: int,
    target: str,
    make_handler: MakeHandler = node_handler,
    *,
    host: str = "127.0.0.1",
    stopping: threading.Event | None = None,
    on_port: Callable[[int], None] | None = None,
) -> None:
    """Serve chains that use ``<connect>``, each connection in a thread of its own, until `stopping`.

    Scans that run then may end.

    Raises
    ------
    ConfigError
        The target is unknown, or the address cannot be listened on.
    """
    if target not in TARGETS:
        raise ConfigError(f"unknown target {target!r}; known are {', '.join(TARGETS)}")
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
    stopping = stopping or threading.Event()
    threads: list[threading.Thread] = []
    with listener:
        listener.settimeout(0.2)
        if on_port is not None:
            on_port(listener.getsockname()[1])
        while not stopping.is_set():
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                continue
            threads = [thread for thread in threads if thread.is_alive()]
            threads.append(
                threading.Thread(target=_serve_socket, args=(sock, target, make_handler), daemon=True)
            )
            threads[-1].start()
    for thread in threads:
        thread.join()


def _serve_socket(sock: socket.socket, target: str, make_handler: MakeHandler) -> None:
    transport = SocketTransport(sock)
    reader = FrameReader(transport, limits=_LIMITS)
    _serve(transport, reader, lambda: _opening(reader), target, make_handler)
    try:
        transport.send(close_bytes())
    except SourceError:
        log.info("Gadgetron was gone before the end of the scan")
    transport.finish_sending()
    transport.drain(_DRAIN_SECONDS)
    transport.close()


def _opening(reader: FrameReader) -> Opening:
    documents = []
    for kind in (ConfigText, HeaderXml):
        frame = reader.next_frame()
        message = None if frame is None else decode(frame)
        if not isinstance(message, kind):
            raise ProtocolError(f"{type(message).__name__} came first, expected CONFIG_TEXT, then HEADER")
        documents.append(message)
    config, header = documents
    assert isinstance(config, ConfigText)  # noqa: S101 - for the type checker
    assert isinstance(header, HeaderXml)  # noqa: S101 - for the type checker
    return Opening(config=config.text.encode(), header=header.xml)


def _serve(
    transport: SocketTransport,
    reader: FrameReader,
    opening: Callable[[], Opening],
    target: str,
    make_handler: MakeHandler,
) -> None:
    """Run the scan; afterwards everything is answered (but for CLOSE) and everything is read."""
    outbox = Outbox(transport, max_bytes=_OUTBOX_BYTES)
    trouble = _trouble(reader, outbox, opening, target, make_handler)
    if trouble is not None:
        outbox.put(error_bytes(f"recon-node: {trouble}"))
    if outbox.finish():
        _read_to_the_end(reader, transport)


def _trouble(
    reader: FrameReader,
    outbox: Outbox,
    opening: Callable[[], Opening],
    target: str,
    make_handler: MakeHandler,
) -> str | None:
    """Reconstruct; what to report, None where all went well."""
    with ExitStack() as guard:
        return _guarded(guard, reader, outbox, opening, target, make_handler)


def _guarded(
    guard: ExitStack,
    reader: FrameReader,
    outbox: Outbox,
    opening: Callable[[], Opening],
    target: str,
    make_handler: MakeHandler,
) -> str | None:
    scan_id = secrets.token_hex(6)
    try:
        session, handler = _session(scan_id, reader, outbox, opening(), target, make_handler, guard)
        handler(session)
        _pass_through(session)
    except TruncatedStream as error:
        log.warning("%s", error, extra={"scan": scan_id})
        return str(error)
    except ReconNodeError as error:
        log.warning("%s: %s", type(error).__name__, error, extra={"scan": scan_id})
        return str(error)
    except Exception as error:  # noqa: BLE001 - Gadgetron must hear of every failure
        log.log(logging.ERROR, "scan failed: %s", where_it_failed(error), extra={"scan": scan_id})
        return f"internal error ({type(error).__name__}); the module's log names scan {scan_id}"
    log.info("scan ended", extra={"scan": scan_id, "readouts": session.readouts, "images": session.images})
    return None


def _session(
    scan_id: str,
    reader: FrameReader,
    outbox: Outbox,
    opening: Opening,
    target: str,
    make_handler: MakeHandler,
    guard: ExitStack,
) -> tuple[GadgetSession, ScanHandler]:
    headers = parse_header(opening.header)
    guard.callback(_PATIENTS.protect(headers))
    config = opening.config.strip()
    properties = {} if not config or config.endswith(b"?>") else properties_from_xml(config)
    check_properties(properties, PROPERTIES, where="the chain's <configuration>")
    mode = properties.get("mode")
    if mode not in (None, *MODES):
        raise ConfigError(f"the chain's <configuration>: mode is {mode!r}, expected {', '.join(MODES)}")
    if mode in ("reconstruct", "both"):
        properties["mode"] = "direct"
    series = _series(properties.pop("series", "1"))
    handler = _pass_through if mode == "pass-through" else make_handler(properties)
    session = GadgetSession(
        scan_id,
        reader,
        outbox.put,
        headers=headers,
        config=ScanConfig(properties=properties),
        expects=TARGETS[target],
        forward=mode in ("both", "pass-through"),
        first_series=series,
    )
    return session, handler


def _series(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= _MAX_SERIES:
        raise ConfigError(f"the chain's <configuration>: series is {value!r}, expected 1 to {_MAX_SERIES}")
    return int(value)


def _pass_through(session: ScanSession) -> None:
    for _ in session:
        pass


def _read_to_the_end(reader: FrameReader, transport: SocketTransport) -> None:
    """Read until Gadgetron's CLOSE: closing with unread input resets the connection and loses the error."""
    try:
        for _ in reader:
            pass
    except SourceError:
        transport.drain(_DRAIN_SECONDS)


def main(arguments: list[str] | None = None) -> int:
    """Command line of ``python -m recon_node.gadget``."""
    parser = argparse.ArgumentParser(prog="python -m recon_node.gadget", description=__doc__)
    parser.add_argument("port", type=int, help="where Gadgetron's <connect> finds the module")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    options = parser.parse_args(arguments)
    _quiet_log()
    try:
        with _stopped_by_signals() as stopping:
            listen(options.port, options.target, host=options.host, stopping=stopping)
    except ReconNodeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Set by the first SIGTERM or Ctrl-C; the second ends the program at once."""
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
