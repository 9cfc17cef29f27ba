"""Who may fetch the images of a received scan: whoever has what only its sender has.

A patient's number can be guessed. So the header that asks has to be of the same patient and study, and beside
that it comes with the ticket that was handed over with the quick images, or from the sender's address with
the measurement's identity. Wrong tries are counted by address; they change nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recon_node.core.errors import LimitReached
from recon_node.core.scan import ScanHeader

_MOST_TRIES = 10
_FORGIVEN_AFTER_S = 600.0
_MOST_ADDRESSES = 10_000


def new_ticket() -> str:
    """A secret for one deferred scan, short enough to be typed."""
    return secrets.token_hex(10)


def hashed(values: Sequence[str | None]) -> str:
    """What is kept of something that is only to be compared."""
    return hashlib.sha256(json.dumps([*values]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose scan it is, as hashes; empty where the header does not say."""

    patient: str = ""
    study: str = ""
    measurement: str = ""
    sender: str = ""
    """Address of the peer; all of this machine's are one."""

    @classmethod
    def of(cls, headers: Sequence[ScanHeader], peer: str) -> Identity:
        """Of a scan, or of one that asks; of its sender alone while there is no header."""
        if not headers:
            return cls(sender=hashed([_address(peer)]))
        patient, study = headers[0].patient, headers[0].study
        known = patient.patient_id or patient.name
        return cls(
            patient=hashed([patient.patient_id, patient.name, patient.birth_date]) if known else "",
            study=_hashed(study.study_instance_uid),
            measurement=_hashed(study.measurement_id),
            sender=hashed([_address(peer)]),
        )

    def same_patient(self, other: Identity) -> bool:
        """Whether both are of one patient (or both of nobody), and of one study where both say which."""
        same_study = self.study == other.study or not self.study or not other.study
        return self.patient == other.patient and same_study

    def proves(self, scan: Identity) -> bool:
        """Whether this, of a header that asks, shows what only the sender of `scan` has."""
        same_study = bool(scan.study) and self.study == scan.study
        same_measurement = bool(scan.measurement) and self.measurement == scan.measurement
        return self.sender == scan.sender and bool(scan.patient) and (same_study or same_measurement)


def matches(ticket: str | None, kept: str) -> bool:
    """Whether a ticket is the one whose hash was kept."""
    return bool(ticket and kept) and hmac.compare_digest(hashed([ticket]), kept)


class Tries:
    """Wrong tries by address.

    Parameters
    ----------
    most : int
        Before an address has to wait.
    clock : callable
        Seconds, steady.
    """

    def __init__(self, most: int = _MOST_TRIES, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._wrong: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def check(self, peer: str) -> None:
        """See that an address may try.

        Raises
        ------
        LimitReached
            It was wrong too often lately.
        """
        with self._lock:
            count, since = self._wrong.get(_address(peer), (0, 0.0))
            if count >= self._most and self._clock() - since < _FORGIVEN_AFTER_S:
                raise LimitReached(
                    f"{count} tries to fetch deferred scans from this address found none: without the ticket "
                    f"it has to wait {_FORGIVEN_AFTER_S / 60:.0f} minutes"
                )

    def wrong(self, peer: str) -> int:
        """Count a try that found nothing; how many there were."""
        with self._lock:
            now, address = self._clock(), _address(peer)
            count, since = self._wrong.get(address, (0, now))
            if now - since >= _FORGIVEN_AFTER_S:
                count = 0
            if len(self._wrong) >= _MOST_ADDRESSES:
                self._wrong.clear()
            self._wrong[address] = (count + 1, now)
            return count + 1


def _hashed(value: str | None) -> str:
    return "" if not value else hashed([value])


def _address(peer: str) -> str:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    address = getattr(address, "ipv4_mapped", None) or address
    return "" if address.is_loopback else str(address)
