"""What the node tells about itself: logs without patient data, counters, and a health port.

Logs name scans by random ids and UIDs by a hash. `PatientFilter` is the last line of defence: it sits
on the handler, so that nothing reaches a log file around it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from recon_node.core.errors import ConfigError
from recon_node.core.scan import PatientInfo, ScanHeader

FIELDS = (
    "scan",
    "config",
    "outcome",
    "reason",
    "method",
    "slice",
    "readouts",
    "images",
    "instances",
    "destination",
    "seconds",
    "stage",
)
"""Fields of ``extra=`` that a log line may show; all others are left out."""

_UID = re.compile(r"\b[0-2](?:\.(?:0|[1-9]\d*)){5,}\b")
_REDACTED = "[redacted]"
_SHORTEST_SECRET = 3
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


def hashed(uid: str) -> str:
    """A short name for a UID, the same each time, that does not tell the UID."""
    return "uid:" + hashlib.sha256(uid.encode()).hexdigest()[:10]


class PatientFilter(logging.Filter):
    """Takes patient data out of log records.

    Known values (`protect`) are replaced wherever they occur, in any case; UIDs become hashes;
    exceptions keep their type and places, not their text; ``extra`` fields not in `FIELDS` vanish.
    """

    def __init__(self) -> None:
        super().__init__()
        self._secrets: dict[str, int] = {}
        self._lock = threading.Lock()

    def protect(self, headers: Iterable[ScanHeader]) -> Callable[[], None]:
        """Keep the patient's values of these headers out of all logs; call what it returns to forget them."""
        values = [value for header in headers for value in _patient_values(header)]
        with self._lock:
            for value in values:
                self._secrets[value] = self._secrets.get(value, 0) + 1

        def forget() -> None:
            with self._lock:
                for value in values:
                    self._secrets[value] -= 1
                    if not self._secrets[value]:
                        del self._secrets[value]

        return forget

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record in place; it always passes."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            message += " | " + _where(record.exc_info[0], record.exc_info[2])
        record.msg, record.args = self.clean(message), None
        record.exc_info = record.exc_text = record.stack_info = None
        for name in FIELDS:
            value = getattr(record, name, None)
            if isinstance(value, str):
                setattr(record, name, self.clean(value))
        return True

    def clean(self, text: str) -> str:
        """`text` on one line, without protected values and UIDs."""
        with self._lock:
            secrets = sorted(self._secrets, key=len, reverse=True)
        for secret in secrets:
            text = re.sub(re.escape(secret), _REDACTED, text, flags=re.IGNORECASE)
        return " ".join(_UID.sub(lambda match: hashed(match[0]), text).split())


def _patient_values(header: ScanHeader) -> list[str]:
    patient: PatientInfo = header.patient
    study = header.study
    values = [patient.name, patient.patient_id, patient.birth_date, study.accession_number]
    values += [study.referring_physician, study.study_description]
    if patient.name is not None:
        values += re.split(r"[\^=, ]+", patient.name)
    return [value for value in values if value is not None and len(value) >= _SHORTEST_SECRET]


def _where(kind: type[BaseException], trace: TracebackType | None) -> str:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{kind.__name__} at {' < '.join(reversed(places))}"


class LineFormatter(logging.Formatter):
    """One line per record: ``key=value`` pairs, or a JSON object."""

    def __init__(self, style: Literal["text", "json"]) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        pairs: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        pairs.update({name: getattr(record, name) for name in FIELDS if hasattr(record, name)})
        if self._json:
            return json.dumps(pairs, default=str)
        return " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items())


def _quoted(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if re.fullmatch(r"[\w.:/+-]+", text) else json.dumps(text)


def setup_logging(
    level: str = "info", *, style: Literal["text", "json"] = "text", stream: TextIO | None = None
) -> PatientFilter:
    """Log to `stream` (stderr by default); replaces what was set up before.

    Other packages are heard from WARNING on only: some log whole data sets below that.

    Returns
    -------
    PatientFilter
        To `protect` the headers of running scans.

    Raises
    ------
    ConfigError
        An unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"log level is {level!r}, expected debug, info, warning or error")
    patients = PatientFilter()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(style))
    handler.addFilter(patients)
    root = logging.getLogger()
    for old in [*root.handlers]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("recon_node").setLevel(number)
    logging.getLogger("pynetdicom").setLevel(logging.NOTSET)  # commands without a log silence it
    return patients


class Metrics:
    """Counters of one node, in a registry of its own (several nodes in a process don't mix)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.scans = self._counter("scans", "Scans by outcome: ok, error, truncated, crashed", "outcome")
        self.refused = self._counter("connections_refused", "Connections refused", "reason")
        self.readouts = self._counter("readouts", "Acquisitions received")
        self.images = self._counter("images", "Images sent back")
        self.received = self._counter("received_bytes", "Bytes received")
        self.sent = self._counter("sent_bytes", "Bytes sent")
        self.instances = self._counter(
            "instances", "DICOM instances by destination and outcome", "destination", "outcome"
        )
        self.verdicts = self._counter("verdicts", "Series by trust verdict", "verdict")
        self.running = Gauge("recon_node_scans_running", "Scans being reconstructed", registry=self.registry)
        self.spooled = Gauge(
            "recon_node_spooled_instances", "Instances not delivered yet", registry=self.registry
        )
        self.scan_seconds = self._histogram("scan_seconds", "Duration of a connection")
        self.latency_seconds = self._histogram("slice_latency_seconds", "Last line of a slice to its images")
        self.stage_seconds = self._histogram("stage_seconds", "Time in a stage per slice", "stage")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"recon_node_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"recon_node_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

    def on_event(self, name: str, event: Mapping[str, str | int | float]) -> None:
        """Hook for the MRD server (`recon_node.sources.connection.EventHook`)."""
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

    def text(self) -> bytes:
        """All values in Prometheus' text format."""
        return generate_latest(self.registry)


class HealthServer:
    """``/healthz`` (the process runs), ``/readyz`` (it takes scans) and ``/metrics`` over HTTP.

    Parameters
    ----------
    metrics : Metrics
    ready : callable
        None if the node takes scans, else the reason why not.
    host, port : str, int
        Loopback unless set; port 0 takes a free one (see `port`).

    Raises
    ------
    ConfigError
        The address cannot be listened on.
    """

    def __init__(
        self, metrics: Metrics, *, ready: Callable[[], str | None], host: str = "127.0.0.1", port: int = 9003
    ) -> None:
        class Handler(_Handler):
            pages = {  # noqa: RUF012 - a class for this server only
                "/healthz": lambda: (HTTPStatus.OK, "text/plain", b"ok\n"),
                "/readyz": lambda: _readiness(ready),
                "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics.text()),
            }

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="health", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


Page = tuple[HTTPStatus, str, bytes]


def _readiness(ready: Callable[[], str | None]) -> Page:
    reason = ready()
    if reason is None:
        return HTTPStatus.OK, "text/plain", b"ready\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{reason}\n".encode()


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Callable[[], Page]]
    timeout = 10
    server_version = "recon-node"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one of the three pages."""
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status, kind, body = page()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the base class
        """Say nothing: a probe every few seconds is no news."""
