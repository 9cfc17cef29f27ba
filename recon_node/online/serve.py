"""The node as a service: settings, server, delivery and health port wired together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recon_node.core.errors import ConfigError, ReconNodeError
from recon_node.core.folders import depth
from recon_node.core.scan import Readouts
from recon_node.core.supervise import Supervised, Supervisor
from recon_node.delivery import DeliveryWorker
from recon_node.mrd.captures import Captures
from recon_node.mrd.captures.entitled import Tries
from recon_node.mrd.connection import Event, EventHook
from recon_node.mrd.frames import WireLimits
from recon_node.mrd.refusal import Rescue
from recon_node.mrd.request import DEFAULT_NAME
from recon_node.mrd.server import MrdServer, ServerLimits
from recon_node.mrd.session import ScanHandler, ScanSession
from recon_node.online import second_try
from recon_node.online.deferral import Deferral, retrieve
from recon_node.online.deferred_worker import Background
from recon_node.online.log import PatientFilter
from recon_node.online.metrics import Metrics
from recon_node.online.node import Node
from recon_node.online.ports import Ports, Shown, show, tls_of
from recon_node.online.quick import quick_images
from recon_node.online.received import open_captures, take_in
from recon_node.online.retention import ROUND_S, remove_old
from recon_node.online.status import StatusBoard
from recon_node.pipeline.queue import delivering, has_destinations, open_spool
from recon_node.settings import Settings, applied, with_properties

log = logging.getLogger(__name__)


def configured(settings: Settings, name: str, properties: Mapping[str, str]) -> Settings:
    """Settings of a named configuration, changed by what a peer asked for.

    Raises
    ------
    ConfigError
        No such configuration, or see `with_properties`.
    """
    tables = settings.server.configurations
    if name not in tables and name != DEFAULT_NAME:
        raise ConfigError(f"unknown configuration {name!r}; this node knows {', '.join(names(settings))}")
    return with_properties(applied(settings, tables.get(name, {})), properties)


def names(settings: Settings) -> list[str]:
    """Configurations that a client may ask for."""
    return sorted({DEFAULT_NAME, *settings.server.configurations})


def server_handlers(node: Node, deferral: Deferral) -> dict[str, ScanHandler]:
    """Handlers by configuration name: ``default`` and those that the settings name.

    Raises
    ------
    ConfigError
        A configuration of the settings is not usable.
    """
    tries = Tries()

    def handler(name: str) -> ScanHandler:
        configured(node.settings, name, {})

        def handle(session: ScanSession) -> None:
            properties = dict(session.config.properties)
            fetched = popped(properties)
            settings = configured(node.settings, name, properties)
            if settings.server.mode in ("echo", "retrieve"):
                _no_exam(session, node, settings.server.mode)
            if settings.server.mode == "echo":
                echo(session)
            elif settings.server.mode == "retrieve":
                retrieve(deferral.scans, tries, session, **fetched)
            elif settings.server.mode == "deferred":
                deferral.defer(session, settings, properties)
            else:
                second_try.reconstruct(node, session, settings, properties)

        return handle

    return {name: handler(name) for name in names(node.settings)}


def echo(session: ScanSession) -> None:
    """Test a site's transport: images that come go back, readouts are counted, nothing is reconstructed."""
    readouts = waveforms = samples = 0
    for item in session:
        if isinstance(item, Readouts):
            readouts += len(item)
            samples += item.samples.nbytes
        else:
            waveforms += 1
    session.text(
        f"echo: {readouts} readouts of {samples} bytes, {waveforms} waveforms; nothing reconstructed"
    )


def _no_exam(session: ScanSession, node: Node, mode: str) -> None:
    """Nothing of this connection is to be reconstructed, now or later."""
    node.metrics.exams.leave_out(session.scan_id)
    if session.capture is not None:
        session.capture.describe(kind=mode)


def popped(properties: dict[str, str]) -> dict[str, str | None]:
    """What says which deferred scan is fetched, taken out of the properties."""
    return {"scan_id": properties.pop("scan", None), "ticket": properties.pop("ticket", None)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A node that serves."""

    server: MrdServer
    node: Node
    board: StatusBoard
    ports: Ports
    ready: Callable[[], str | None]
    """Why it takes no scans; None while it does."""

    @property
    def health_port(self) -> int | None:
        """Where health is told; None where the settings name no port."""
        return self.ports.health


@contextmanager
def serving(settings: Settings, *, patients: PatientFilter | None = None) -> Iterator[Running]:
    """MRD server, delivery and health port, until the block ends.

    On leaving, no new scan is taken and running ones may end, for as long as the settings say.

    Raises
    ------
    ConfigError
        An address cannot be listened on, or a setting is not usable.
    WeightsError
        The weights cannot be loaded.
    """
    server = settings.server
    metrics = Metrics()
    with ExitStack() as stack:
        spool = worker = None
        if has_destinations(settings.delivery):
            spool = stack.enter_context(open_spool(settings.delivery))
            worker = stack.enter_context(delivering(spool, settings.delivery))
            metrics.watch_spool(spool.counts)
            metrics.watch_delivery(worker.status)
        board = StatusBoard(patients=server.status_patients)
        node = Node(settings, spool=spool, metrics=metrics, watch=board.watch)
        metrics.exams.watch(spool)
        stack.enter_context(metrics.exams)
        scans = open_captures(settings)
        take_in(scans, settings)
        metrics.watch_deferred(scans.counts)
        protect = None if patients is None else patients.protect

        def resolve(name: str, given: Mapping[str, str]) -> Settings:
            return configured(node.settings, name, given)

        background = Background(node, scans, resolve, protect=protect)
        scans.wake = background.wake
        handlers = server_handlers(node, Deferral(node, scans))
        rescue = partial(quick_images, configured=resolve, slices=node.slices)
        told = _both(metrics.on_event, board.on_event)
        mrd = _mrd_server(settings, handlers, told, patients, scans, rescue)
        stack.enter_context(background)
        stack.enter_context(mrd)
        threads = Supervisor()
        threads.watch(mrd.thread, background.thread, metrics.exams.thread)
        if server.out_keep_h is not None:
            within = depth(settings.dicom.folders, stack=settings.dicom.stack)
            threads.watch(stack.enter_context(_keeping(Path(server.out), 3600 * server.out_keep_h, within)))
        supervisors = [threads, *([] if worker is None else [worker.supervisor])]
        metrics.watch_threads(lambda: {k: n for one in supervisors for k, n in one.failures().items()})
        ready = partial(_not_ready, mrd, node, threads, worker, scans)
        shown = Shown(node=node, board=board, worker=worker, deferred=scans.counts, ready=ready)
        ports = show(stack, shown)
        yield Running(server=mrd, node=node, board=board, ports=ports, ready=ready)


def _mrd_server(
    settings: Settings,
    handlers: Mapping[str, ScanHandler],
    on_event: EventHook,
    patients: PatientFilter | None,
    scans: Captures,
    rescue: Rescue,
) -> MrdServer:
    server = settings.server
    return MrdServer(
        handlers,
        host=server.host,
        port=server.port,
        limits=ServerLimits(
            scans=server.max_connections,
            waiting=server.waiting,
            handshake_seconds=server.handshake_s,
            scan_bytes=int(server.scan_limit_gb * 2**30),
            buffer_bytes=server.buffer_mb << 20,
            slowest_reader=1e3 * server.min_rate_kb_s,
            wire=WireLimits(idle_seconds=server.timeout_s, channels=server.max_channels),
        ),
        allowed_peers=server.allowed_peers,
        tls=tls_of(server),
        captures=scans if server.record is not None else None,
        on_event=on_event,
        protect=None if patients is None else patients.protect,
        rescue=rescue,
        drain_seconds=server.drain_s,
    )


@contextmanager
def _keeping(out: Path, keep_s: float, within: int) -> Iterator[Supervised]:
    """Deletes old images in the background, until the block ends."""
    supervisor = Supervisor()

    def work() -> None:
        while not supervisor.stopping.is_set():
            remove_old(out, keep_s, depth=within)
            supervisor.stopping.wait(ROUND_S)

    try:
        yield supervisor.run("retention", work)
    finally:
        supervisor.stop(10.0)


def _both(*hooks: EventHook) -> EventHook:
    def told(name: str, event: Event) -> None:
        for hook in hooks:
            hook(name, event)

    return told


def _not_ready(
    server: MrdServer, node: Node, threads: Supervisor, worker: DeliveryWorker | None, scans: Captures
) -> str | None:
    trouble = threads.trouble() or (None if worker is None else worker.trouble())
    if trouble is not None:
        return trouble
    if not server.accepting:
        return "not accepting scans"
    try:
        node.check_room(node.spool)
        scans.check_room()
    except ReconNodeError as error:
        return str(error)
    return None
