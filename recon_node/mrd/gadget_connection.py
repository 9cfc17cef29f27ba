"""One scan inside a Gadgetron chain: what opens it, and how its failures are told.

A failure is reported as Gadgetron understands it: an ERROR message, then the rest of the input is read,
then CLOSE. (A module that only raises leaves a client with exit status 0, no image and no word why.)
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from recon_node.core.budget import Budget
from recon_node.core.errors import ConfigError, LimitReached, ProtocolError, SourceError
from recon_node.mrd.connection import Protect, ScanConnection
from recon_node.mrd.frames import FrameReader, WireLimits
from recon_node.mrd.gadget_properties import MODES, TARGETS
from recon_node.mrd.gadget_session import GadgetSession
from recon_node.mrd.guard import for_the_log
from recon_node.mrd.header import parse_header
from recon_node.mrd.limits import ServerLimits
from recon_node.mrd.messages import ConfigText, HeaderXml, MessageId, close_bytes, error_bytes
from recon_node.mrd.refusal import Rescue, answered
from recon_node.mrd.replies import Outbox
from recon_node.mrd.request import ScanConfig, check_properties, properties_from_xml
from recon_node.mrd.session import ScanHandler, WireSession
from recon_node.mrd.transport import SocketTransport
from recon_node.mrd.wire import decode

log = logging.getLogger(__name__)

MakeHandler = Callable[[Mapping[str, str]], ScanHandler]
"""Gives the scan handler for a chain's properties, without `series`, and with `mode` as in the settings."""

LIMITS = ServerLimits(
    scan_seconds=12 * 3600.0,
    slowest_reader=0.0,
    send_seconds=600.0,
    linger_seconds=30.0,
    buffer_bytes=8 << 30,
    wire=WireLimits(idle_seconds=12 * 3600.0, message_seconds=600.0),
)
"""Of a module: the chain before it may pause for as long as the scanner does."""
_IDLE_S = 600.0
"""Between two messages of a scan that has failed."""
_MAX_SERIES = 60_000
_PASSING = ("both", "pass-through")
_NO_DATA = {MessageId.CLOSE, MessageId.CONFIG_FILE, MessageId.CONFIG_TEXT, MessageId.HEADER, MessageId.TEXT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What comes before the data."""

    config: bytes
    header: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """What all connections of one module have in common."""

    target: str
    """One of `TARGETS`."""
    make_handler: MakeHandler
    properties: Mapping[str, str]
    """What a chain's ``<configuration>`` may hold: name to one line of description."""
    protect: Protect
    limits: ServerLimits = LIMITS
    budget: Budget | None = None
    """Of messages that have not arrived whole."""
    rescue: Rescue | None = None


class GadgetConnection(ScanConnection):
    """A connection with Gadgetron.

    Parameters
    ----------
    sock : socket.socket
    peer : str
    module : Module
    opening : Opening, optional
        What somebody else has read already; the socket is then his, and given back without a CLOSE.
    """

    def __init__(
        self, sock: socket.socket, peer: str, module: Module, *, opening: Opening | None = None
    ) -> None:
        super().__init__(sock, module.limits, peer=peer, budget=module.budget)
        self._module = module
        self._opening = opening
        self._transport: SocketTransport | None = None
        self._forward = False

    def _scan(
        self,
        transport: SocketTransport,
        reader: FrameReader,
        outbox: Outbox,
        guard: ExitStack,
        on_session: Callable[[WireSession], None],
    ) -> None:
        opening = self._opening or _opening(reader)
        self._begun(reader)
        properties = _properties(opening)
        mode = properties.get("mode")
        self._forward = mode in _PASSING
        headers = parse_header(opening.header)
        guard.callback(self._module.protect(headers))
        series = properties.pop("series", "1")
        session = GadgetSession(
            self.scan_id,
            reader,
            outbox.put,
            peer=self.peer,
            headers=headers,
            config=ScanConfig(properties=properties),
            expects=TARGETS[self._module.target],
            forward=self._forward,
            offer=outbox.offer,
        )
        on_session(session)
        answered(session, lambda: self._work(session, properties, series), self._module.rescue)

    def _work(self, session: GadgetSession, properties: dict[str, str], series: str) -> None:
        _check(properties, self._module.properties)
        session.first_series = _series(series)
        mode = properties.get("mode")
        if mode in ("reconstruct", "both"):
            properties["mode"] = "direct"
        if mode != "pass-through":
            self._module.make_handler(properties)(session)
        session.pass_on()

    def _refuse(self, transport: SocketTransport, outbox: Outbox, reason: str) -> None:
        until = time.monotonic() + self._limits.linger_seconds
        self._close(transport, outbox, FrameReader(transport, limits=self._limits.wire, until=until), reason)

    def _close(
        self, transport: SocketTransport, outbox: Outbox, reader: FrameReader, trouble: str | None
    ) -> None:
        self._transport = transport
        reader.vet = None
        if trouble is not None:
            reader.limits = replace(reader.limits, idle_seconds=min(_IDLE_S, reader.limits.idle_seconds))
            if self._forward:
                _forward_rest(reader, outbox)
            outbox.put(error_bytes(f"recon-node: {trouble}"))
        if outbox.finish():
            self._read_to_the_end(reader, transport)
        if self._opening is not None:
            return
        try:
            transport.send(close_bytes())
        except SourceError:
            log.info("Gadgetron was gone before the end of the scan")
            return
        transport.finish_sending()
        self._linger(transport)

    def _read_to_the_end(self, reader: FrameReader, transport: SocketTransport) -> None:
        """Closing with unread input resets the connection and loses the error."""
        try:
            for _ in reader:
                pass
        except (SourceError, LimitReached):
            self._linger(transport)

    def _release(self) -> None:
        if self._opening is None:
            super()._release()
        elif self._transport is not None:
            self._transport.release()


def _forward_rest(reader: FrameReader, outbox: Outbox) -> None:
    """Whatever became of this module's images, the chain gets its data: the site's own gadgets are behind."""
    try:
        for frame in reader:
            if frame.message_id not in _NO_DATA and not outbox.put(bytes(frame.raw)):
                return
    except (SourceError, LimitReached) as error:
        log.warning("the rest of the scan could not be passed on: %s", for_the_log(error))


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


def _properties(opening: Opening) -> dict[str, str]:
    config = opening.config.strip()
    return {} if not config or config.endswith(b"?>") else properties_from_xml(config)


def _check(properties: Mapping[str, str], known: Mapping[str, str]) -> None:
    check_properties(properties, known, where="the chain's <configuration>")
    mode = properties.get("mode")
    if mode not in (None, *MODES):
        raise ConfigError(f"the chain's <configuration>: mode is {mode!r}, expected {', '.join(MODES)}")


def _series(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= _MAX_SERIES:
        raise ConfigError(f"the chain's <configuration>: series is {value!r}, expected 1 to {_MAX_SERIES}")
    return int(value)
