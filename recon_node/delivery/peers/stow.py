"""Delivery by STOW-RS (PS3.18 Section 10.5), and QIDO-RS (Section 10.6) to ask what is there."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from pydicom.dataset import Dataset

from recon_node.core.errors import (
    DeliveryError,
    DicomError,
    PacsMisconfigured,
    PacsRejected,
    PacsUnreachable,
)
from recon_node.delivery.instance import Instance, read_instance
from recon_node.delivery.outcome import ALREADY_THERE, Outcome, PacsBusy, Unanswered, judge_status
from recon_node.delivery.peers.http import Answer, HttpAccess, HttpPeer
from recon_node.delivery.peers.query import by_series
from recon_node.delivery.peers.sender import OneByOne

_BUSY = frozenset({408, 425, 429, 503, 507})
_BROKE = frozenset({500, 502, 504})
"""Something behind the server failed, perhaps after it had stored the instance."""
_WRONG_SETTINGS = frozenset({401, 403, 404, 405, 406, 415})
_TOO_LARGE = 413
_JSON = "application/dicom+json"
_ANSWER_BYTES = 1 << 20
_LIST_BYTES = 64 << 20
_INSTANCE, _REASON = "00081155", "00081197"
_FAILED, _STORED = "00081198", "00081199"
_WARNING = "00081196"
_ONE_ELEMENT = "00080018"


class StowDestination(OneByOne):
    """A DICOMweb server that takes instances.

    Parameters
    ----------
    url : str
        Base URL of the service, without ``/studies``.
    name : str, optional
        Name from the settings; the URL where left out.
    access : HttpAccess
        Credentials and time limits.
    verify : bool
        Ask it by QIDO-RS what it has.
    """

    def __init__(
        self, url: str, *, name: str | None = None, access: HttpAccess | None = None, verify: bool = True
    ) -> None:
        self.url = url.rstrip("/")
        self._name = name or self.url
        self._verify = verify
        self._http = HttpPeer(self.url, self._name, access or HttpAccess())

    @property
    def name(self) -> str:
        """Name from the settings, or the URL."""
        return self._name

    def deliver_one(self, file: Path) -> Outcome:
        """One request for one file, sent as it is.

        Raises
        ------
        PacsUnreachable, PacsBusy, PacsMisconfigured
            About the server; `Unanswered` where this file may have been stored all the same.
        """
        instance = read_instance(file)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DicomError(f"an instance cannot be read: {error.strerror or error}") from error
        body, kind = _multipart(content)
        headers = {"Content-Type": kind, "Accept": _JSON}
        try:
            answer = self._http.request("POST", "/studies", headers=headers, body=body, limit=_ANSWER_BYTES)
        except Unanswered as unanswered:
            return Outcome(file, unanswered)
        return Outcome(file, *self._judge(answer, instance, len(body)))

    def holds(self, instances: Sequence[Instance]) -> Mapping[str, bool] | None:
        """SOP instance UID to whether it is there, by QIDO-RS; None where it cannot be asked.

        Raises
        ------
        PacsUnreachable, PacsMisconfigured
            About the server.
        """
        if not self._verify:
            return None
        found: dict[str, bool] = {}
        for (study, series), uids in by_series(instances).items():
            shown = self._shown(study, series, uids)
            if shown is None:
                return None
            found.update({uid: uid in shown for uid in uids})
        return found

    def _shown(self, study: str, series: str, uids: Sequence[str]) -> set[str] | None:
        path = f"/studies/{quote(study, safe='')}/series/{quote(series, safe='')}/instances"
        if len(uids) == 1:
            path += f"?SOPInstanceUID={quote(uids[0], safe='')}"
        answer = self._http.get(path, accept=_JSON, limit=_LIST_BYTES)
        if answer.code in (204, 404):
            return set() if answer.code == 204 or self._answers_questions() else None
        if answer.code in _BUSY | _BROKE:
            raise PacsBusy(
                f"{self.name}: too busy to say what it has (HTTP {answer.code})", wait_s=answer.retry_after_s
            )
        try:
            rows = json.loads(answer.body) if answer.code == 200 else None
            return None if rows is None else {row[_ONE_ELEMENT]["Value"][0] for row in rows}
        except (ValueError, TypeError, KeyError, IndexError):
            return None

    def _answers_questions(self) -> bool:
        """Whether a 404 means that there is no such series, rather than no QIDO-RS."""
        answer = self._http.get("/studies?limit=1", accept=_JSON, limit=_ANSWER_BYTES)
        return answer.code in (200, 204) and answer.kind != "text/html"

    def echo(self) -> float:
        """Ask for one study's identity (QIDO-RS); returns the seconds it took.

        Raises
        ------
        DeliveryError
            With a diagnosis.
        """
        start = time.perf_counter()
        answer = self._http.get("/studies?limit=1", accept=_JSON, limit=_ANSWER_BYTES)
        if answer.code not in (200, 204):
            raise self._fault(answer, 0)
        self._refuse_web_page(answer)
        try:
            json.loads(answer.body or b"[]")
        except ValueError as error:
            raise PacsMisconfigured(f"{self.name} answers, but not as DICOMweb does") from error
        return time.perf_counter() - start

    def close(self) -> None:
        """Close the connections kept open."""
        self._http.close()

    # ---------------------------------------------------------------- what an answer means

    def _judge(
        self, answer: Answer, instance: Instance, size: int
    ) -> tuple[DeliveryError | None, str | None]:
        """Outcome in a STOW-RS response (PS3.18 Section 10.5.3)."""
        self._refuse_web_page(answer)
        if answer.code in (200, 202, 409):
            told = _parsed(answer)
            if told is not None:
                return self._judge_report(told, instance, answer.code)
            if answer.body.strip():
                return Unanswered(f"{self.name}: answer not understood (HTTP {answer.code})"), None
        if 200 <= answer.code < 300:
            return self._without_words(answer.code, instance)
        fault = self._fault(answer, size)
        if isinstance(fault, (PacsBusy, PacsMisconfigured, Unanswered)):
            raise fault
        return fault, None

    def _judge_report(
        self, told: Mapping[str, Any], instance: Instance, code: int
    ) -> tuple[DeliveryError | None, str | None]:
        failed, stored = _items(told, _FAILED), _items(told, _STORED)
        reason = failed.get(instance.uid, failed.get(""))
        if reason is not None:
            error, note = judge_status(reason)
            if isinstance(error, PacsBusy):
                raise error
            if error is None and reason not in ALREADY_THERE:
                error = PacsRejected(f"{self.name} listed the instance as failed", status=reason)
            return error, note
        if instance.uid in stored:
            warning = stored[instance.uid]
            return None, f"stored with warning 0x{warning:04X} (HTTP {code})" if warning else None
        if stored or failed:
            return Unanswered(f"{self.name}: the answer names other instances, not the one sent"), None
        return self._without_words(code, instance)

    def _without_words(self, code: int, instance: Instance) -> tuple[DeliveryError | None, str | None]:
        """A success that names nothing: believed only where the server shows the instance."""
        how = {202: "accepted for later", 204: "no content"}.get(code, "empty")
        shown = (self.holds([instance]) or {}).get(instance.uid)
        if shown:
            return None, f"{self.name}: the answer was {how} (HTTP {code}), but the instance is there"
        cause = "and it does not show the instance" if shown is False else "and it cannot be asked"
        text = f"{self.name}: the answer does not confirm the instance ({how}, HTTP {code}) {cause}"
        return Unanswered(text), None

    def _refuse_web_page(self, answer: Answer) -> None:
        start = answer.body[:512].lstrip().lower()
        page = answer.kind in ("text/html", "application/xhtml+xml") or start.startswith(
            (b"<!doctype html", b"<html")
        )
        if page and answer.code < 400:
            raise PacsMisconfigured(
                f"{self.name} answers with a web page (HTTP {answer.code}), not as DICOMweb does (a "
                "login page, a proxy in between?): check the address and the credentials"
            )

    def _fault(self, answer: Answer, size: int) -> DeliveryError:
        code = answer.code
        if code in _BUSY:
            text = f"{self.name}: the server cannot take it now (HTTP {code})"
            return PacsBusy(text, wait_s=answer.retry_after_s)
        if code in _BROKE:
            return Unanswered(f"{self.name}: the server failed (HTTP {code})")
        if code == _TOO_LARGE:
            return PacsUnreachable(
                f"{self.name}: the server takes no request of {size} bytes (HTTP 413): raise its limit"
            )
        if code in _WRONG_SETTINGS:
            what = {401: "log in refused", 403: "not allowed", 404: "no STOW-RS service at this URL"}
            return PacsMisconfigured(f"{self.name}: {what.get(code, 'request not understood')} (HTTP {code})")
        return PacsRejected(f"{self.name}: the server refused the instance (HTTP {code})", status=code)


def _multipart(content: bytes) -> tuple[bytes, str]:
    """Body and content type of a request with one instance (PS3.18 Section 8.6.1.2)."""
    boundary = f"recon-node-{secrets.token_hex(16)}"
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
    body = b"".join([head.encode(), content, f"\r\n--{boundary}--\r\n".encode()])
    return body, f'multipart/related; type="application/dicom"; boundary={boundary}'


def _parsed(answer: Answer) -> Mapping[str, Any] | None:
    """The response as DICOM JSON model; None where it holds none."""
    if not answer.body.strip():
        return None
    try:
        if answer.kind.endswith("xml") or answer.body.lstrip().startswith(b"<"):
            return _from_xml(answer.body)
        told = json.loads(answer.body)
        told = told[0] if isinstance(told, list) and told else told
        Dataset.from_json(told)
    except Exception:  # noqa: BLE001 - an answer may be anything; pydicom raises what it likes
        return None
    return told if isinstance(told, dict) else None


def _from_xml(body: bytes) -> Mapping[str, Any]:
    """The sequences of a response in the native DICOM model (PS3.19 Annex A), as DICOM JSON."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ValueError("a document type is not read")
    root = ET.fromstring(body)  # noqa: S314 - without document type there are no entities to expand
    told: dict[str, Any] = {}
    for sequence in root:
        items = [
            {
                element.get("tag", ""): {"Value": [v.text or "" for v in element if v.tag.endswith("Value")]}
                for element in item
            }
            for item in sequence
            if item.tag.endswith("Item")
        ]
        if items:
            told[sequence.get("tag", "")] = {"vr": "SQ", "Value": items}
    return told


def _items(told: Mapping[str, Any], tag: str) -> dict[str, int]:
    """SOP instance UID (empty where not told) to reason or warning, of one sequence."""
    sequence = told.get(tag)
    rows = sequence.get("Value") if isinstance(sequence, dict) else None
    found = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict):
            reason = _first(row, _REASON if tag == _FAILED else _WARNING)
            found[str(_first(row, _INSTANCE) or "")] = int(reason or (0xC000 if tag == _FAILED else 0))
    return found


def _first(row: Mapping[str, Any], tag: str) -> Any:
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
