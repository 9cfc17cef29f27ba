"""What the node tells about itself: logs without patient data. Counters are in `service.metrics`.

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
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TextIO

from recon_node.core.choices import LogStyle
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
    "peer",
    "patient",
    "tries",
)
"""Fields of ``extra=`` that a log line may show; all others are left out."""

_UID = re.compile(r"\b[0-2](?:\.(?:0|[1-9]\d*)){5,}\b")
_REDACTED = "[redacted]"
_SHORTEST_SECRET = 3
_MOST_LINES = 600
_MINUTE_S = 60.0


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
        self._pattern: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def protect(self, headers: Iterable[ScanHeader]) -> Callable[[], None]:
        """Keep the patient's values of these headers out of all logs; call what it returns to forget them."""
        values = [value for header in headers for value in _patient_values(header)]
        with self._lock:
            for value in values:
                self._secrets[value] = self._secrets.get(value, 0) + 1
            self._compile()

        def forget() -> None:
            with self._lock:
                for value in values:
                    self._secrets[value] -= 1
                    if not self._secrets[value]:
                        del self._secrets[value]
                self._compile()

        return forget

    def _compile(self) -> None:
        """One pattern for all values, made when they change and not for each line of the log."""
        longest_first = sorted(self._secrets, key=len, reverse=True)
        either = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(either, re.IGNORECASE) if either else None

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
        pattern = self._pattern
        if pattern is not None:
            text = pattern.sub(_REDACTED, text)
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


class FloodFilter(logging.Filter):
    """Lets through so many lines of one kind in a minute, then says how many it left out.

    A kind is a logger and a message before its values are put in, so that whoever can make this node log
    cannot make it fill the disk.

    Parameters
    ----------
    most : int
        Lines of one kind in a minute.
    clock : callable
        Seconds, steady.
    """

    def __init__(self, most: int = _MOST_LINES, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._began = clock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        kind = (record.name, str(record.msg))
        with self._lock:
            if self._clock() - self._began >= _MINUTE_S:
                self._began = self._clock()
                left_out = self._counts[kind] - self._most
                self._counts.clear()
                if left_out > 0:
                    record.msg = f"{record.msg} (and {left_out} more in the minute before)"
            self._counts[kind] += 1
            return self._counts[kind] <= self._most


class LineFormatter(logging.Formatter):
    """One line per record: ``key=value`` pairs, or a JSON object."""

    def __init__(self, style: LogStyle) -> None:
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
    level: str = "info",
    *,
    style: LogStyle = "text",
    stream: TextIO | None = None,
    handler: logging.Handler | None = None,
    patients: PatientFilter | None = None,
) -> PatientFilter:
    """Log to `handler` or `stream` (stderr by default); replaces what was set up before.

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
    patients = patients or PatientFilter()
    if handler is None:
        handler = logging.StreamHandler(stream or sys.stderr)
        handler.setFormatter(LineFormatter(style))
    handler.addFilter(FloodFilter())
    handler.addFilter(patients)
    root = logging.getLogger()
    former = [*root.handlers]
    root.addHandler(handler)  # before the others go, so that no line of another thread is lost
    for old in former:
        root.removeHandler(old)
        if isinstance(old, logging.FileHandler):
            old.close()
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("recon_node").setLevel(number)
    logging.getLogger("pynetdicom").setLevel(logging.NOTSET)  # commands without a log silence it
    logging.captureWarnings(capture=True)  # numpy's, of what came: a line as any other
    return patients
