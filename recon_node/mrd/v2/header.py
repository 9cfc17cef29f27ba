"""The header record of an MRD 2 stream as the ISMRMRD XML that it stands for.

MRD 2 kept the fields of the ISMRMRD header and changed how names are written; the one reader of headers
(`recon_node.mrd.header`) then serves both.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from recon_node.mrd.v2.schema import Enum, Primitive, Record, Type, Union, Vector

_NAMES = {
    "patientWeightKg": "patientWeight_kg",
    "patientHeightM": "patientHeight_m",
    "systemFieldStrengthT": "systemFieldStrength_T",
    "h1resonanceFrequencyHz": "H1resonanceFrequency_Hz",
    "fieldOfViewMm": "fieldOfView_mm",
    "flipAngleDeg": "flipAngle_deg",
    "sequenceType": "sequence_type",
    "echoSpacing": "echo_spacing",
    "tR": "TR",
    "tE": "TE",
    "tI": "TI",
    "seriesInstanceUIDRoot": "seriesInstanceUIDRoot",
}
_NUMBERED = re.compile(r"(kspaceEncodingStep|user)(\d)")
_UPPER = frozenset({"PatientPosition", "PatientGender"})
"""Enumerations whose words ISMRMRD writes in capitals."""


def header_xml(kind: Record, values: tuple[Any, ...]) -> bytes:
    """ISMRMRD XML of a header record, UTF-8.

    Parameters
    ----------
    kind : Record
        The schema's type of the header.
    values : tuple
        As `decode` gives it.
    """
    body = "".join(_children(kind, values))
    text = f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">{body}</ismrmrdHeader>'
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _children(kind: Record, values: tuple[Any, ...]) -> Iterator[str]:
    for (name, part), value in zip(kind.fields, values, strict=True):
        yield from _elements(_element_name(name), part, value)


def _element_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    numbered = _NUMBERED.fullmatch(name)
    if numbered is None:
        return name
    stem = "kspace_encoding_step" if numbered[1].startswith("kspace") else numbered[1]
    return f"{stem}_{numbered[2]}"


def _elements(name: str, kind: Type, value: Any) -> Iterator[str]:
    if value is None:
        return
    if isinstance(kind, Union) and len(kind.cases) == 1:
        yield from _elements(name, kind.cases[0][1], value)
    elif isinstance(kind, Vector):
        for item in value:
            yield from _elements(name, kind.items, item)
    elif isinstance(kind, Record):
        yield f"<{name}>{''.join(_children(kind, value))}</{name}>"
    elif isinstance(kind, Primitive | Enum):
        yield f"<{name}>{escape(_text(kind, value))}</{name}>"


def _text(kind: Primitive | Enum, value: Any) -> str:
    if isinstance(kind, Enum):
        symbol = kind.symbols.get(value, str(value))
        return symbol.upper() if kind.name in _UPPER else symbol
    if kind.name == "float32":
        return str(np.float32(value))
    if kind.name == "time":
        return _clock(value)
    if kind.name == "bool":
        return str(value).lower()
    return str(value)


def _clock(nanoseconds: int) -> str:
    """Time of day, ``HH:MM:SS.ffffff``."""
    seconds, rest = divmod(round(nanoseconds / 1000), 1_000_000)
    minutes, second = divmod(seconds, 60)
    return dt.time(minutes // 60 % 24, minutes % 60, second, rest).isoformat()
