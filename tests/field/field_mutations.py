"""Headers and line headers changed in ways that files of the field show, and what may come of each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from field_scans import Lines, alike, axial, header, kspace_of, phantom, replay, write
from hypothesis import strategies as st

SUBJECT = (
    "<subjectInformation><patientName>Do^Jane</patientName><patientID>7</patientID></subjectInformation>"
)
STUDY = (
    "<studyInformation><studyDate>2024-03-01</studyDate><studyTime>14:00:00</studyTime></studyInformation>"
)
SEQUENCE = "<sequenceParameters><TR>3.4</TR><TE>1.7</TE></sequenceParameters>"
NY = 32
XML = header(
    NY, NY, subject=SUBJECT, study=STUDY, sequence=SEQUENCE, limits={"slice": 1, "phase": 0},
    parallel="<parallelImaging><accelerationFactor><kspace_encoding_step_1>1</kspace_encoding_step_1>"
    "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor></parallelImaging>",
)  # fmt: skip
VALUES = [found.span(1) for found in re.finditer(r">([^<>\s][^<>]*)<", XML)]
ELEMENTS = sorted({found[1] for found in re.finditer(r"<(\w+)>", XML)} - {"ismrmrdHeader"})
ABSURD = ["", "0", "-1", "1e9", "nan", "inf", "0.00001", "abc", "3,4", "65535", "9" * 20, "32.0001"]
UNITS = [1e-3, 1e3, 10.0, 0.1, 2.0, 0.5, 1e-6]
ENCODINGS = ["ISO-8859-1", "UTF-16", "Shift_JIS", "GB18030", "utf-8", "windows-1252", "nonsense"]
TRUTH = [phantom(NY, NY, shift=-0.2 * number) for number in range(2)]


@dataclass(frozen=True)
class Mutation:
    """One change of a file."""

    kind: str
    xml: bytes
    lines: str = "none"


LINES: dict[str, Callable[[np.ndarray], None]] = {
    "none": lambda heads: None,
    "slice counters lost": lambda heads: heads["idx"]["slice"].fill(0),
    "places lost": lambda heads: heads["position"].fill(0),
    "directions lost": lambda heads: [heads[n].fill(0) for n in ("read_dir", "phase_dir", "slice_dir")],
    "places in metres": lambda heads: np.multiply(heads["position"], 0.001, out=heads["position"]),
    "stamps in ms": lambda heads: heads["acquisition_time_stamp"].fill(50_400_000),
    "stamps of another day": lambda heads: heads["acquisition_time_stamp"].fill(3_000_000),
    "centres lost": lambda heads: heads["center_sample"].fill(0),
    "dwell times lost": lambda heads: heads["sample_time_us"].fill(np.nan),
    "partitions": lambda heads: heads["idx"]["kspace_encode_step_2"].__setitem__(slice(0, None, 2), 1),
    "reversed": lambda heads: heads["flags"].__setitem__(slice(0, None, 2), 1 << 21),
    "averages": lambda heads: heads["idx"]["average"].__setitem__(slice(0, None, 2), 1),
    "sets": lambda heads: np.copyto(heads["idx"]["set"], heads["idx"]["slice"]),
    "another encoding": lambda heads: heads["encoding_space_ref"].fill(1),
}


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    """Missing, doubled, absurd, in another unit, in another encoding; or line headers that lost something."""
    kind = draw(st.sampled_from(["missing", "doubled", "absurd", "unit", "encoding", "lines", "two"]))
    xml = XML
    for _ in range(2 if kind == "two" else 1):
        xml = _changed(
            draw, kind if kind != "two" else draw(st.sampled_from(["missing", "absurd", "unit"])), xml
        )
    if kind == "encoding":
        name = draw(st.sampled_from(ENCODINGS))
        declared = draw(st.booleans())
        text = xml.replace("Do^Jane", "Dö^Jané")
        text = text.replace('"1.0"', f'"1.0" encoding="{name}"') if declared else text
        return Mutation(
            f"encoding {name} {declared}", text.encode("utf-8" if name == "nonsense" else name, "replace")
        )
    lines = draw(st.sampled_from(list(LINES))) if kind == "lines" else "none"
    return Mutation(f"{kind} {lines}", xml.encode(), lines)


def _changed(draw: st.DrawFn, kind: str, xml: str) -> str:
    if kind in ("missing", "doubled"):
        name = draw(st.sampled_from(ELEMENTS))
        found = re.search(rf"<{name}>.*?</{name}>", xml, re.DOTALL)
        if found is None:
            return xml
        whole = found[0]
        return xml.replace(whole, "" if kind == "missing" else whole * draw(st.sampled_from([2, 3, 40])), 1)
    if kind in ("absurd", "unit"):
        spans = [found.span(1) for found in re.finditer(r">([^<>\s][^<>]*)<", xml)]
        first, last = draw(st.sampled_from(spans))
        value = draw(st.sampled_from(ABSURD)) if kind == "absurd" else _scaled(xml[first:last], draw)
        return xml[:first] + value + xml[last:]
    return xml


def _scaled(text: str, draw: st.DrawFn) -> str:
    try:
        return f"{float(text) * draw(st.sampled_from(UNITS)):.9g}"
    except ValueError:
        return text


def lines_with(change: str) -> Lines:
    """Two slices of different pictures, 10 mm apart, one line after the other."""
    lines = Lines()
    for number, truth in enumerate(TRUTH):
        data = kspace_of(
            truth, noise=0.003, seed=number
        ).conj()  # Siemens' directions mean the forward transform
        stamps = 20_160_000 + 4000 * number
        lines.add(data, slice=number, acquisition_time_stamp=stamps, **axial(10.0 * number))
    for heads in lines.heads:
        LINES[change](heads)
    return lines


def outcome(mutation: Mutation, folder: Path, capsys: object) -> str:
    """``right``, ``noted``, ``error``; or ``wrong``: an image passed that was not measured so."""
    raw = write(folder / "raw.h5", mutation.xml, lines_with(mutation.lines))
    found = replay(raw, folder / "out", capsys)
    if found.code == 2 or "Traceback" in found.errors:
        return "crash"
    verdicts = {int(entry["slice"]): entry["trust"]["verdict"] for entry in found.series}
    json.dumps(found.series)
    for ds, entry in zip(found.instances, found.series, strict=False):
        if entry["trust"]["verdict"] == "pass" and not _right(ds, entry["slice"], mutation):
            return "wrong"
    if not found.series:
        return "error" if found.code == 1 and found.errors.strip() else "silent"
    return "right" if set(verdicts.values()) == {"pass"} else "noted"


def _right(ds: pydicom.Dataset, number: int, mutation: Mutation) -> bool:
    """Whether a passed instance shows its slice, at its place and scale, of whom it says."""
    image = ds.pixel_array.astype(float)
    truth = TRUTH[number if number < len(TRUTH) else 0]
    if image.shape != truth.shape or alike(image, truth) < 0.9:
        return False
    spacing = [float(value) for value in ds.PixelSpacing]
    placed = abs(float(ds.ImagePositionPatient[2]) - 10.0 * number) < 0.01 if number < 2 else False
    name = str(ds.PatientName)
    named = not mutation.kind.startswith("encoding") or name == "Dö^Jané" or "?" in name
    return placed and max(abs(value - 10.0) for value in spacing) < 0.1 and named
