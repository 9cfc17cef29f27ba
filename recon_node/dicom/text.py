"""Text, dates, numbers and codes as DICOM's value representations want them (PS3.5 section 6.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, time, timedelta
from math import isfinite

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def clipped(text: str, length: int) -> str:
    """`text` without control characters and at most `length` characters long."""
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


def one_line(text: str, length: int) -> str:
    """`text` for a VR that forbids line ends and backslashes (LO, SH, PN)."""
    return clipped(" ".join(text.replace("\\", "/").split()), length).strip()


def person_name(text: str) -> str:
    """PN: at most three component groups of at most 64 characters."""
    groups = one_line(text, 3 * 64 + 2).split("=")[:3]
    return "=".join(group[:64] for group in groups)


def decimal(value: float) -> str:
    """DS: the shortest faithful decimal string of at most 16 characters."""
    short = repr(float(value)) if value else "0"
    return short if len(short) <= 16 and isfinite(value) else str(DSfloat(float(value), auto_format=True))


_DATE = re.compile(r"\s*(\d{4}-?\d{2}-?\d{2})(T.*|Z|[+-]\d{2}:?\d{2})?\s*")
"""As XML Schema writes dates, zone and time of day included."""


def dicom_date(text: str | None) -> str:
    """DA from an ISO date, whose zone is left out; empty where there is none or it is not a date."""
    found = _DATE.fullmatch(text or "")
    try:
        return date.fromisoformat(found[1]).strftime("%Y%m%d") if found else ""
    except ValueError:
        return ""


def dicom_time(text: str | None) -> str:
    """TM from an ISO time, whose zone is left out; empty where there is none or it is not a time."""
    alone = (text or "").strip().rpartition("T")[2]
    try:
        return time.fromisoformat(alone).strftime("%H%M%S.%f") if alone else ""
    except ValueError:
        return ""


def seconds_of(tm: str) -> float | None:
    """Seconds after midnight of a TM; None where it is empty."""
    return int(tm[:2]) * 3600 + int(tm[2:4]) * 60 + float(tm[4:]) if tm else None


def later(seconds: float, began: float) -> int:
    """Days between a series that `began` at this second and an image acquired at `seconds` of its own day."""
    if not isfinite(seconds):
        return 0
    whole, rest = divmod(seconds, 86400)
    return int(whole) + (1 if whole == 0 and began - rest > 43200 else 0)


def days_after(da: str, days: int) -> str:
    """DA of some days after another."""
    day = date(int(da[:4]), int(da[4:6]), int(da[6:8]))
    return (day + timedelta(days=days)).strftime("%Y%m%d")


def clock(seconds: float | None) -> str:
    """TM from seconds after midnight; empty where None."""
    if seconds is None:
        return ""
    ticks = round(seconds * 10000) % (24 * 3600 * 10000)
    whole, fraction = divmod(ticks, 10000)
    return f"{whole // 3600:02d}{whole // 60 % 60:02d}{whole % 60:02d}.{fraction:04d}00"


def character_set(texts: Iterable[str]) -> str:
    """SpecificCharacterSet for `texts`: Latin-1 where that holds them, otherwise UTF-8."""
    try:
        for text in texts:
            text.encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence."""
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds
