"""What came of sending one file, and what a DICOM status means for a retry.

Two places tell of a failure, and the place says whose it is: an `Outcome` with an error speaks of
that file; an error raised while delivering speaks of the whole destination.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon_node.core.errors import DeliveryError, PacsRejected, PacsUnreachable

NOT_SUPPORTED = 0x0122
PROCESSING_FAILURE = 0x0110
ALREADY_THERE = (0x0111, 45070)
"""Duplicate SOP instance; referenced SOP instance already stored (PS3.18 Annex I)."""
RESOURCE_LIMITATION = 0x0213


class PacsBusy(PacsUnreachable):
    """The PACS is there but cannot take anything now: out of resources, too many associations.

    Attributes
    ----------
    wait_s : float
        How long it asked to be left alone; 0 where it did not say.
    """

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Unanswered(PacsUnreachable):
    """Sent, but the answer is missing or says nothing: whether the PACS has the instance is not known.

    Raised while delivering it speaks of the whole destination, and of the instance that was being sent.
    """


class SpoolFull(DeliveryError):
    """No room for more instances; nothing was taken, ask again later."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt to deliver one file."""

    file: Path
    error: DeliveryError | None = None
    """None: the destination answered that it has the instance."""
    note: str | None = None
    """A warning that came with the success."""


def judge_status(status: int | None) -> tuple[DeliveryError | None, str | None]:
    """Error and note for the status of a C-STORE response (PS3.4 Table B.2-1, PS3.7 Annex C).

    Parameters
    ----------
    status : int or None
        None where no response came (pynetdicom's empty status).

    Returns
    -------
    error : DeliveryError or None
        `PacsBusy` for A7xx and 0213, `Unanswered` where there was no answer, `PacsUnreachable` for 0110
        (processing failure, seen while a PACS restarts its database), `PacsRejected` for every other failure.
    note : str or None
        What a warning status said.
    """
    if status is None:
        return Unanswered("no answer to the C-STORE request"), None
    if status == 0:
        return None, None
    if status in ALREADY_THERE:
        return None, f"the PACS already had this instance (status 0x{status:04X})"
    if status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116):
        return None, f"stored with warning 0x{status:04X}"
    if status >> 8 == 0xA7 or status == RESOURCE_LIMITATION:
        return PacsBusy(f"the PACS is out of resources (status 0x{status:04X})"), None
    if status == PROCESSING_FAILURE:
        return PacsUnreachable("the PACS failed while processing (status 0x0110)"), None
    return PacsRejected(f"the PACS refused the instance: {_meaning(status)}", status=status), None


def _meaning(status: int) -> str:
    known = {
        NOT_SUPPORTED: "SOP class not supported",
        0x0124: "not authorised",
        0x0117: "invalid SOP instance",
        0x0118: "no such SOP class",
    }
    if status in known:
        text = known[status]
    elif status >> 8 == 0xA9:
        text = "data set does not match the SOP class"
    elif status >> 12 == 0xC:
        text = "cannot understand the data set"
    else:
        text = "failure"
    return f"{text} (status 0x{status:04X})"
