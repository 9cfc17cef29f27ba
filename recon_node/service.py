"""The node at work on scans that arrive: the same handler for the MRD server and the Gadgetron gadget.

What must not be lost is on disk before a reply leaves: DICOM files first (and their place in the
spool, where there are destinations), then the images to the scanner.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from recon_node.core.errors import ConfigError
from recon_node.core.scan import ScanHeader
from recon_node.delivery import Spool, check_priority
from recon_node.dicom import WrittenInstance
from recon_node.observe import HealthServer, Metrics, PatientFilter
from recon_node.outbox import delivering, enqueue, has_destinations, open_spool
from recon_node.pipeline import Pipeline, Reconstruction
from recon_node.scans import Scan
from recon_node.settings import DeliverySettings, DicomSettings, ServerSettings, Settings, load_settings
from recon_node.sources.frames import WireLimits
from recon_node.sources.recording import RecordingFolder
from recon_node.sources.server import MrdServer, ServerLimits, server_tls
from recon_node.sources.session import ScanHandler, ScanSession
from recon_node.writer import SeriesWriter

log = logging.getLogger(__name__)

PROPERTIES = {
    "method": ("recon", "method"),
    "weights": ("recon", "weights"),
    "fallback": ("recon", "fallback"),
    "policy": ("recon", "on_distrust"),
    "device": ("recon", "device"),
    "noise": ("prep", "noise"),
    "orientation": ("prep", "orientation"),
    "dynamic": ("prep", "dynamic"),
    "gating": ("prep", "gating"),
    "phases": ("prep", "phases"),
    "fill": ("prep", "fill"),
    "compression": ("prep", "compression"),
    "virtual_coils": ("prep", "virtual_coils"),
    "maps": ("coils", "maps"),
    "partial_fourier": ("recon", "partial_fourier"),
    "destination": ("delivery", "to"),
    "priority": ("delivery", "priority"),
}
"""Property that a peer may set to the setting it changes."""

_DRAIN_S = 30.0
"""How long a gadget waits for its deliveries; what is left stays in the spool."""

Observer = Callable[[Reconstruction, Sequence[WrittenInstance]], None]


def with_properties(settings: Settings, properties: Mapping[str, str]) -> Settings:
    """Settings changed by what a peer asked for.

    Raises
    ------
    ConfigError
        An unknown property (the message names the known ones), a value that is not allowed, or a
        destination that the settings do not name.
    """
    unknown = sorted(set(properties) - set(PROPERTIES))
    if unknown:
        raise ConfigError(
            f"unknown property {', '.join(map(repr, unknown))}; known are {', '.join(sorted(PROPERTIES))}"
        )
    for name, value in properties.items():
        section, key = PROPERTIES[name]
        if name == "destination" and value not in settings.delivery.destinations:
            known = ", ".join(sorted(settings.delivery.destinations)) or "none"
            raise ConfigError(f"destination {value!r} is not configured on this node; configured: {known}")
        if name == "weights" and Path(value).name != value:
            raise ConfigError("property weights names shipped weights, never a path")
        settings = settings.replace(section, **{key: value})
    check_priority(settings.delivery.priority, "delivery")
    return settings


class Node:
    """Reconstructs scans that arrive, one slice at a time on the device, however many scans are open.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    spool : Spool, optional
        Where instances are queued for the destinations in `settings.delivery`; while its disk is nearly
        full, no scan is taken.
    observer : callable, optional
        Told of each finished slice and its files.
    patients : PatientFilter, optional
        Of the log: keeps the patient data of running scans out of it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        spool: Spool | None = None,
        observer: Observer | None = None,
        patients: PatientFilter | None = None,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.observer = observer
        self.patients = patients
        self._pipelines: list[tuple[Settings, Pipeline]] = []
        self._device = threading.Lock()
        SeriesWriter.from_settings(settings, Path(settings.server.out))
        self._pipeline(settings)

    def _pipeline(self, settings: Settings) -> Pipeline:
        """One pipeline for each way of making images that was asked for, wherever they go then."""
        way = replace(settings, dicom=DicomSettings(), delivery=DeliverySettings(), server=ServerSettings())
        with self._device:
            for known, pipeline in self._pipelines:
                if known == way:
                    return pipeline
            pipeline = Pipeline(way)
            self._pipelines.append((way, pipeline))
            return pipeline

    def handle(self, session: ScanSession, settings: Settings | None = None) -> None:
        """Reconstruct one scan; see `recon_node.sources.session.ScanHandler`."""
        with ExitStack() as stack:
            if self.patients is not None:
                stack.callback(self.patients.protect(session.headers))
            self._reconstruct(session, settings)

    def _reconstruct(self, session: ScanSession, settings: Settings | None) -> None:
        chosen = with_properties(settings or self.settings, session.config.properties)
        if self.spool is not None:
            self.spool.check_room(0)
        pipeline = self._pipeline(chosen)
        writer = SeriesWriter.from_settings(chosen, Path(chosen.server.out), fsync=True)
        scan = Scan(session, chosen.prep)
        total, started = expected_slices(session.headers), time.monotonic()
        for count, kspace in enumerate(scan, 1):
            with self._device:
                result = pipeline.run(kspace, prepared_s=scan.waited_s)
            instances = writer.write(result, scan.source_id)
            self._queue(instances, chosen)
            if self.observer is not None:
                self.observer(result, instances)
            session.reply(result.images, verdict=result.verdict)
            self._say(session, result, count, total, time.monotonic() - started)

    def _queue(self, instances: Sequence[WrittenInstance], settings: Settings) -> None:
        if self.spool is not None:
            enqueue(self.spool, [instance.path for instance in instances], settings.delivery)

    def _say(
        self, session: ScanSession, result: Reconstruction, count: int, total: int | None, seconds: float
    ) -> None:
        log.info(
            "slice reconstructed",
            extra={
                "scan": session.scan_id,
                "slice": result.kspace.index.slice,
                "method": result.images.made_by.method,
                "images": int(result.images.data.shape[0]),
                "seconds": round(sum(result.seconds.values()), 3),
            },
        )
        of = "" if total is None else f" of {total}"
        left = "" if total is None or total <= count else f", {seconds / count * (total - count):.1f} s left"
        session.text(f"slice {count}{of}{left}")
        for reason in (*result.verdict.reasons, *result.kspace.notes):
            session.text(f"WRN slice {result.kspace.index.slice}: {reason}")


def expected_slices(headers: Sequence[ScanHeader]) -> int | None:
    """How many k-spaces the headers announce; None where they do not say."""
    total = 0
    for header in headers:
        if "slice" not in header.limits:
            return None
        count = 1
        for name in ("slice", "contrast", "set", "repetition"):
            count *= header.limits[name].size if name in header.limits else 1
        total += count
    return total


def server_handlers(node: Node) -> dict[str, ScanHandler]:
    """Handlers by configuration name: ``default`` and those that the settings name."""

    def handler(settings: Settings) -> ScanHandler:
        return lambda session: node.handle(session, settings)

    handlers = {"default": handler(node.settings)}
    for name, table in node.settings.server.configurations.items():
        handlers[name] = handler(with_properties(node.settings, {k: str(v) for k, v in table.items()}))
    return handlers


def make_scan_handler(properties: Mapping[str, str]) -> ScanHandler:
    """The handler of a gadget: node settings from the environment, changed by the chain's properties.

    Instances are queued for the destinations in the settings; a node that serves, or
    ``recon-node spool retry``, delivers what this process could not.

    Raises
    ------
    ReconNodeError
        Settings, weights or destinations are not usable.
    """
    settings = with_properties(load_settings(), properties)
    if not (settings.delivery.to or settings.delivery.routes):
        node = Node(settings)
        return lambda session: node.handle(session, settings)

    def handle(session: ScanSession) -> None:
        delivery = settings.delivery
        with open_spool(delivery) as spool, delivering(spool, delivery, hurried=True) as worker:
            Node(settings, spool=spool).handle(session, settings)
            worker.drain(timeout=_DRAIN_S)

    return handle


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A node that serves."""

    server: MrdServer
    node: Node
    health_port: int | None


@contextmanager
def serving(settings: Settings, *, patients: PatientFilter | None = None) -> Iterator[Running]:
    """MRD server, delivery and health port, until the block ends.

    On leaving, no new scan is taken and running ones may end.

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
        spool = None
        if has_destinations(settings.delivery):
            spool = stack.enter_context(open_spool(settings.delivery))
            stack.enter_context(delivering(spool, settings.delivery))
        node = Node(settings, spool=spool, patients=patients)
        recordings = None
        if server.record is not None:
            recordings = RecordingFolder(Path(server.record), max_bytes=server.record_limit_mb << 20)
        mrd = MrdServer(
            server_handlers(node),
            host=server.host,
            port=server.port,
            limits=ServerLimits(scans=server.max_connections, wire=WireLimits(idle_seconds=server.timeout_s)),
            allowed_peers=server.allowed_peers,
            tls=_tls(server),
            recordings=recordings,
            on_event=metrics.on_event,
        )
        stack.enter_context(mrd)
        port = None
        if server.health_port is not None:
            ready = partial(_not_ready, mrd)
            health = stack.enter_context(HealthServer(metrics, ready=ready, port=server.health_port))
            port = health.port
        yield Running(server=mrd, node=node, health_port=port)


def _not_ready(server: MrdServer) -> str | None:
    return None if server.accepting else "not accepting scans"


def _tls(server: ServerSettings) -> ssl.SSLContext | None:
    if server.tls_certificate is None or server.tls_key is None:
        if server.tls_certificate or server.tls_key:
            raise ConfigError("server: tls_certificate and tls_key go together, found only one of them")
        return None
    ca = None if server.tls_client_ca is None else Path(server.tls_client_ca)
    return server_tls(Path(server.tls_certificate), Path(server.tls_key), client_ca=ca)
