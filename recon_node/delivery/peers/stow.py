"""Delivery by STOW-RS (PS3.18 Section 10.5)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter

from recon_node.core.errors import (
    DeliveryError,
    PacsMisconfigured,
    PacsRejected,
    PacsUnreachable,
)
from recon_node.delivery.instance import read_dataset
from recon_node.delivery.outcome import Outcome, PacsBusy, judge_status
from recon_node.delivery.peers.sender import OneByOne

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_WRONG_SETTINGS = frozenset({401, 403, 404, 405, 415})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAccess:
    """How to prove who we are, and how long to wait."""

    user: str | None = None
    password: str | None = None
    token: str | None = None
    """Bearer token."""
    certificate: str | None = None
    """Client certificate (PEM)."""
    key: str | None = None
    ca: str | None = None
    """Authorities to trust (PEM) in place of the system's."""
    connect_s: float = 10.0
    answer_s: float = 120.0


class _Limited(HTTPAdapter):
    """Every request with a time limit; the client library sets none."""

    def __init__(self, timeout: tuple[float, float]) -> None:
        self._timeout = timeout
        super().__init__()

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        options["timeout"] = self._timeout
        return super().send(request, **options)


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
    """

    def __init__(self, url: str, *, name: str | None = None, access: HttpAccess | None = None) -> None:
        access = access or HttpAccess()
        self.url = url.rstrip("/")
        self._name = name or self.url
        self._session = _session(access)
        self._client = DICOMwebClient(self.url, session=self._session, headers=_headers(access))
        self._client.set_http_retry_params(retry=False)

    @property
    def name(self) -> str:
        """Name from the settings, or the URL."""
        return self._name

    def deliver_one(self, file: Path) -> Outcome:
        """One request for one file.

        Raises
        ------
        PacsUnreachable, PacsBusy, PacsMisconfigured
            About the server.
        """
        dataset = read_dataset(file)
        answer: Dataset | None
        try:
            answer = self._client.store_instances([dataset])
        except requests.RequestException as error:
            answer = _told_in_conflict(error)
            if answer is None:
                fault = self._fault(error)
                if isinstance(fault, PacsRejected):
                    return Outcome(file, fault)
                raise fault from error
        except (ValueError, TypeError, KeyError, AttributeError, SyntaxError) as error:
            return Outcome(file, PacsUnreachable(f"{self.name}: answer not understood: {error}"))
        return Outcome(file, *_judge(answer, self.name))

    def echo(self) -> float:
        """Ask for one study's identity (QIDO-RS); returns the seconds it took.

        Raises
        ------
        DeliveryError
            With a diagnosis.
        """
        start = time.perf_counter()
        try:
            self._client.search_for_studies(limit=1, fields=["StudyInstanceUID"])
        except requests.RequestException as error:
            raise self._fault(error) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PacsMisconfigured(f"{self.name} answers, but not as DICOMweb does: {error}") from error
        return time.perf_counter() - start

    def close(self) -> None:
        """Close the connections kept open."""
        self._session.close()

    def _fault(self, error: requests.RequestException) -> DeliveryError:
        if isinstance(error, requests.exceptions.SSLError):
            return PacsMisconfigured(f"{self.name}: TLS failed: {_innermost(error)}")
        if isinstance(error, requests.JSONDecodeError):
            return PacsUnreachable(f"{self.name}: answer not understood (is it a DICOMweb service?)")
        if isinstance(error, requests.Timeout):
            return PacsUnreachable(f"{self.name}: no answer in time")
        if error.response is None:
            return PacsUnreachable(f"{self.name}: {_innermost(error)}")
        return self._http_fault(int(error.response.status_code))

    def _http_fault(self, code: int) -> DeliveryError:
        if code in _BUSY:
            return PacsBusy(f"{self.name}: the server cannot take it now (HTTP {code})")
        if code in _WRONG_SETTINGS:
            what = {401: "log in refused", 403: "not allowed", 404: "no STOW-RS service at this URL"}
            return PacsMisconfigured(f"{self.name}: {what.get(code, 'request not understood')} (HTTP {code})")
        return PacsRejected(f"{self.name}: the server refused the instance (HTTP {code})", status=code)


def _told_in_conflict(error: requests.RequestException) -> Dataset | None:
    """The reasons that come with HTTP 409, where no instance was stored (PS3.18 10.5.3.1)."""
    if error.response is None or error.response.status_code != 409:
        return None
    try:
        return Dataset.from_json(error.response.json())
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _judge(answer: Dataset, name: str) -> tuple[DeliveryError | None, str | None]:
    """Outcome in a STOW-RS response (PS3.18 Annex I); a failure list may be there and empty."""
    failed = answer.get("FailedSOPSequence")
    if failed:
        error, note = judge_status(int(failed[0].get("FailureReason", 0xC000)))
        if isinstance(error, PacsBusy):
            raise error
        return error or PacsUnreachable(f"{name} listed the instance as failed"), note
    if not answer.get("ReferencedSOPSequence"):
        return PacsUnreachable(f"{name}: the answer does not confirm the instance"), None
    return None, None


def _session(access: HttpAccess) -> requests.Session:
    session = requests.Session()
    adapter = _Limited((access.connect_s, access.answer_s))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.trust_env = False
    if access.ca:
        session.verify = access.ca
    if access.certificate:
        session.cert = (access.certificate, access.key) if access.key else access.certificate
    if access.user is not None:
        session.auth = (access.user, access.password or "")
    return session


def _headers(access: HttpAccess) -> dict[str, str]:
    return {"Authorization": f"Bearer {access.token}"} if access.token else {}


def _innermost(error: BaseException) -> str:
    """Last cause of a chain of exceptions, in words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(getattr(error, "strerror", None) or error)
