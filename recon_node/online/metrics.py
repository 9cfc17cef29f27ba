"""Counters of a node."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from recon_node.core.errors import where_it_failed
from recon_node.core.version import __version__
from recon_node.delivery import DestinationStatus
from recon_node.online.exams import Exams

log = logging.getLogger(__name__)

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """Counters of one node, in a registry of its own (several nodes in a process don't mix)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.exams = Exams(self.registry)
        self.scans = self._counter("scans", "Scans by outcome: ok, error, truncated, crashed", "outcome")
        self.refused = self._counter("connections_refused", "Connections refused", "reason")
        self.readouts = self._counter("readouts", "Acquisitions received")
        self.images = self._counter("images", "Images sent back")
        self.received = self._counter("received_bytes", "Bytes received")
        self.sent = self._counter("sent_bytes", "Bytes sent")
        self.instances = self._counter("instances", "DICOM instances written")
        self.verdicts = self._counter("verdicts", "Series by trust verdict", "verdict")
        self.running = Gauge("recon_node_scans_running", "Scans being reconstructed", registry=self.registry)
        self.scan_seconds = self._histogram("scan_seconds", "Duration of a connection")
        self.latency_seconds = self._histogram(
            "slice_latency_seconds", "Last line of a slice to its DICOM on disk"
        )
        self.frames = self._counter(
            "frames", "Frames for preliminary images by what became of them", "outcome"
        )
        self.frame_seconds = self._histogram(
            "frame_latency_seconds", "Last line of a frame to its preliminary image"
        )
        self.stage_seconds = self._histogram("stage_seconds", "Time in a stage per slice", "stage")
        self.build = Info("recon_node_build", "What runs here", registry=self.registry)
        self.tell_build()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"recon_node_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"recon_node_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

    def tell_build(self, weights: str = "", weights_sha256: str = "") -> None:
        """Say which version runs, with which weights."""
        versions = {"version": __version__, "python": platform.python_version()}
        self.build.info({**versions, "weights": weights, "weights_sha256": weights_sha256[:12]})

    def on_event(self, name: str, event: Mapping[str, str | int | float]) -> None:
        """Hook for the MRD server (`recon_node.mrd.connection.EventHook`)."""
        if name == "refused":
            self.refused.labels(str(event["reason"]).partition(":")[0]).inc()
        elif name == "started":
            self.running.inc()
        elif name == "stopped":
            self.running.dec()
        elif name == "finished":
            self.scans.labels(str(event["outcome"])).inc()
            self.scan_seconds.observe(float(event["seconds"]))
            self.readouts.inc(float(event["readouts"]))
            self.images.inc(float(event["images"]))
            self.received.inc(float(event["bytes_received"]))
            self.sent.inc(float(event["bytes_sent"]))
        elif name == "closed":
            self.exams.on_closed(event)

    def on_slice(
        self, seconds: Mapping[str, float], verdict: str, instances: int, latency_seconds: float | None
    ) -> None:
        """A slice is on disk: time by stage, its verdict, its instances, and how long they took.

        `latency_seconds` counts from the slice's last line; None for a deferred scan.
        """
        for stage, value in seconds.items():
            self.stage_seconds.labels(stage).observe(value)
        self.verdicts.labels(verdict).inc()
        self.instances.inc(instances)
        if latency_seconds is not None:
            self.latency_seconds.observe(latency_seconds)

    def on_frame(self, outcome: str, latency_seconds: float | None) -> None:
        """What became of a frame's preliminary image, and how long after its last line that was sent."""
        self.frames.labels(outcome).inc()
        if latency_seconds is not None:
            self.frame_seconds.observe(latency_seconds)

    def watch_spool(self, counts: Callable[[], Mapping[str, Mapping[str, int]]]) -> None:
        """Show the spool's entries by destination and state (`Spool.counts`)."""
        self.registry.register(
            _Watched(
                "spool_instances",
                "Instances in the spool",
                ("destination", "state"),
                lambda: [((d, s), n) for d, states in counts().items() for s, n in states.items()],
            )
        )

    def watch_delivery(self, status: Callable[[], Mapping[str, DestinationStatus]]) -> None:
        """Show what each destination does (`DeliveryWorker.status`)."""
        self.registry.register(_Destinations(status))

    def watch_deferred(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Show the received scans that are kept, by state (`Captures.counts`)."""
        self.registry.register(
            _Watched(
                "deferred_scans",
                "Received scans that are kept: deferred ones, and all with server.record",
                ("state",),
                lambda: [((state,), n) for state, n in counts().items()],
            )
        )

    def watch_threads(self, failures: Callable[[], Mapping[str, int]]) -> None:
        """Show how often long-lived threads failed and were started again (`Supervisor.failures`)."""
        self.registry.register(
            _Watched(
                "thread_failures",
                "Failures of long-lived threads",
                ("thread",),
                lambda: [((name,), n) for name, n in failures().items()],
            )
        )

    def watch_disks(self, free: Callable[[], Mapping[str, int]]) -> None:
        """Show the room for each of the node's folders, in bytes."""
        self.registry.register(
            _Watched(
                "disk_free_bytes",
                "Bytes free on the disk of a folder",
                ("folder",),
                lambda: [((folder,), n) for folder, n in free().items()],
            )
        )

    def watch_ready(self, ready: Callable[[], str | None]) -> None:
        """Show whether the node takes scans (1) or not (0)."""
        self.registry.register(
            _Watched("ready", "1 while scans are taken, as /readyz", (), lambda: [((), int(ready() is None))])
        )

    def text(self) -> bytes:
        """All values in Prometheus' text format."""
        return generate_latest(self.registry)


class _Watched(Collector):
    """A gauge that is counted when somebody looks."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        values: Callable[[], list[tuple[tuple[str, ...], int]]],
    ) -> None:
        self._name, self._text, self._labels, self._values = name, text, labels, values

    def describe(self) -> Iterable[Metric]:
        """The gauge without values, so that registering counts nothing."""
        return [GaugeMetricFamily(f"recon_node_{self._name}", self._text, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """The gauge with its values."""
        gauge = GaugeMetricFamily(f"recon_node_{self._name}", self._text, labels=self._labels)
        for labels, value in self._counted():
            gauge.add_metric(labels, value)
        return [gauge]

    def _counted(self) -> list[tuple[tuple[str, ...], int]]:
        """The values; none where they cannot be counted, which ends no other gauge."""
        try:
            return self._values()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other counters are shown
            log.warning("%s cannot be counted: %s", self._name, where_it_failed(error))
            return []


class _Destinations(Collector):
    """Delivery by destination, counted when somebody looks."""

    def __init__(self, status: Callable[[], Mapping[str, DestinationStatus]]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """The metrics without values."""
        return list(self._families().values())

    def collect(self) -> Iterable[Metric]:
        """The metrics with their values."""
        families = self._families()
        for name, status in self._status().items():
            for key, family in families.items():
                family.add_metric((name,), float(getattr(status, key)))
        return list(families.values())

    @staticmethod
    def _families() -> dict[str, CounterMetricFamily | GaugeMetricFamily]:
        labels = ("destination",)
        return {
            "delivered": CounterMetricFamily(
                "recon_node_delivered", "Instances delivered since the start", labels=labels
            ),
            "failed": CounterMetricFamily(
                "recon_node_delivery_failed", "Attempts that failed since the start", labels=labels
            ),
            "up": GaugeMetricFamily(
                "recon_node_destination_up", "1 unless the last attempt to reach it failed", labels=labels
            ),
            "oldest_waiting_s": GaugeMetricFamily(
                "recon_node_oldest_waiting_seconds", "Age of the oldest waiting instance", labels=labels
            ),
        }
