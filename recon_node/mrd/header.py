"""ISMRMRD XML header to `ScanHeader`: every unit conversion and every fallback lives here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from recon_node.core.errors import DataError, SourceError
from recon_node.core.physics import GYROMAGNETIC_HZ_PER_T
from recon_node.core.scan import Limit, PatientInfo, ScanHeader, StudyInfo
from recon_node.mrd.xml_tree import Node, parse_xml

LIMIT_NAMES = (
    "kspace_encoding_step_0",
    "kspace_encoding_step_1",
    "kspace_encoding_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
)

_SYSTEM = "acquisitionSystemInformation"
_MEASUREMENT = "measurementInformation"
_STUDY = "studyInformation"
_SUBJECT = "subjectInformation"

_TEXTS = {
    "vendor": f"{_SYSTEM}/systemVendor",
    "model": f"{_SYSTEM}/systemModel",
    "institution": f"{_SYSTEM}/institutionName",
    "station": f"{_SYSTEM}/stationName",
    "device_serial": f"{_SYSTEM}/deviceSerialNumber",
    "protocol": f"{_MEASUREMENT}/protocolName",
    "sequence": f"{_MEASUREMENT}/sequenceName",
    "patient_position": f"{_MEASUREMENT}/patientPosition",
}
_STUDY_TEXTS = {
    "study_instance_uid": f"{_STUDY}/studyInstanceUID",
    "series_instance_uid": f"{_MEASUREMENT}/seriesInstanceUIDRoot",
    "frame_of_reference_uid": f"{_MEASUREMENT}/frameOfReferenceUID",
    "measurement_id": f"{_MEASUREMENT}/measurementID",
    "accession_number": f"{_STUDY}/accessionNumber",
    "referring_physician": f"{_STUDY}/referringPhysicianName",
    "study_description": f"{_STUDY}/studyDescription",
    "study_date": f"{_STUDY}/studyDate",
    "study_time": f"{_STUDY}/studyTime",
    "series_date": f"{_MEASUREMENT}/seriesDate",
    "series_time": f"{_MEASUREMENT}/seriesTime",
    "series_description": f"{_MEASUREMENT}/seriesDescription",
    "body_part": f"{_STUDY}/bodyPartExamined",
}
_TIMES = {"te_ms": "TE", "tr_ms": "TR", "ti_ms": "TI", "echo_spacing_ms": "echo_spacing"}

MOST_SAMPLES = 8192
"""Along an axis: a damaged header must not make memory for images that no scanner makes."""
MOST_VOXELS = 1 << 26
"""Of an encoded or reconstructed volume."""
MOST_ENCODINGS = 64
MOST_SERIES_NUMBER = 2_000_000
"""Of a header: a thousand times as many still fit into DICOM's SeriesNumber (IS, below 2^31)."""
MOST_CHARACTERS = 1024
"""Of a name or a description: DICOM keeps 64 of most."""

_LARGEST = float(np.finfo(np.float32).max)
_MULTIBAND = re.compile(r"^l?(multi_?band|sms|mb)_?(accel(eration)?_?)?(factor)?$", re.IGNORECASE)
"""Names of user parameters that hold the number of slices excited at once."""
_NOT_CARTESIAN = re.compile(
    r"epi\b|spiral|hargreaves|vds|radial|golden|stars|propeller|blade|rosette|cones|koosh|non.?cart",
    re.IGNORECASE,
)
"""What names of trajectories say that are none of Cartesian lines."""


def parse_header(xml: bytes | str) -> tuple[ScanHeader, ...]:
    """Read an ISMRMRD header.

    Parameters
    ----------
    xml : bytes or str
        The XML as a file or a connection gave it. The ``<version>`` element is ignored: the fields
        used here are the same in every version of the schema.

    Returns
    -------
    tuple of ScanHeader
        One per ``<encoding>``. TR, TE, TI and echo spacing in ms: the schema's unit; a file whose
        echo times are all below 0.05, or whose repetition times are all below 0.5, wrote seconds
        (no scanner is that fast) and is read so, said in `origin`.

    Raises
    ------
    SourceError
        When this is no XML, no ISMRMRD header, or holds no encoding.
    DataError
        When a matrix or field of view is missing or not positive.
    """
    root = parse_xml(xml)
    if root.name != "ismrmrdHeader":
        raise SourceError(f"header: root element is <{root.name}>, expected <ismrmrdHeader>")
    encodings = list(root.find_all("encoding"))
    if not encodings:
        raise SourceError("header has no <encoding>: nothing says how large k-space is")
    if len(encodings) > MOST_ENCODINGS:
        raise DataError(f"header has {len(encodings)} encodings, expected at most {MOST_ENCODINGS}")
    received = xml.encode() if isinstance(xml, str) else bytes(xml)
    common, origin = _common_fields(root)
    return tuple(_one_encoding(node, index, common, origin, received) for index, node in enumerate(encodings))


def _common_fields(root: Node) -> tuple[dict[str, Any], dict[str, str]]:
    origin: dict[str, str] = {}
    fields: dict[str, Any] = {}
    _take_texts(root, fields, origin)
    _take_numbers(root, fields, origin)
    _take_times(root, fields, origin)
    fields["coil_names"] = tuple(
        name for label in root.find_all(f"{_SYSTEM}/coilLabel") if (name := label.value("coilName"))
    )
    fields["patient"] = _patient(root)
    series, fields["remarks"] = _series_number(root)
    fields["study"] = StudyInfo(
        **{name: _text(root, path) for name, path in _STUDY_TEXTS.items()}, initial_series_number=series
    )
    fields["user"] = _user_parameters(root)
    return fields, origin


def _series_number(root: Node) -> tuple[int | None, tuple[str, ...]]:
    """The first series' number, and what is to be said of one from which no SeriesNumber can be made."""
    number = _integer(root, f"{_MEASUREMENT}/initialSeriesNumber")
    if number is None or 0 <= number <= MOST_SERIES_NUMBER:
        return number, ()
    return None, (f"initialSeriesNumber is {number}, expected 0 to {MOST_SERIES_NUMBER}: left out",)


def _text(root: Node, path: str) -> str | None:
    text = root.value(path)
    return text if text is None or len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS]


def _take_texts(root: Node, fields: dict[str, Any], origin: dict[str, str]) -> None:
    for name, path in _TEXTS.items():
        fields[name] = _text(root, path)
        if fields[name] is not None:
            origin[name] = path
    if fields["sequence"] is None and (kind := root.value("sequenceParameters/sequence_type")):
        fields["sequence"] = kind
        origin["sequence"] = "fallback: sequenceParameters/sequence_type"
    if fields["protocol"] is None and (series := root.value(f"{_MEASUREMENT}/seriesDescription")):
        fields["protocol"] = series
        origin["protocol"] = f"fallback: {_MEASUREMENT}/seriesDescription"


def _take_numbers(root: Node, fields: dict[str, Any], origin: dict[str, str]) -> None:
    strength, bandwidth = f"{_SYSTEM}/systemFieldStrength_T", f"{_SYSTEM}/relativeReceiverNoiseBandwidth"
    resonance = "experimentalConditions/H1resonanceFrequency_Hz"
    fields["field_strength_t"] = _positive(root, strength)
    fields["resonance_frequency_hz"] = _integer(root, resonance)
    fields["receiver_channels"] = _integer(root, f"{_SYSTEM}/receiverChannels")
    fields["noise_bandwidth_ratio"] = _positive(root, bandwidth)
    found = {
        "field_strength_t": strength,
        "resonance_frequency_hz": resonance,
        "receiver_channels": f"{_SYSTEM}/receiverChannels",
        "noise_bandwidth_ratio": bandwidth,
    }
    origin.update({name: path for name, path in found.items() if fields[name] is not None})
    if fields["field_strength_t"] is None and (fields["resonance_frequency_hz"] or 0) > 1_000_000:
        fields["field_strength_t"] = fields["resonance_frequency_hz"] / GYROMAGNETIC_HZ_PER_T
        origin["field_strength_t"] = f"fallback: {resonance} over the proton gyromagnetic ratio"


def _take_times(root: Node, fields: dict[str, Any], origin: dict[str, str]) -> None:
    values = {name: _numbers(root.find_all(f"sequenceParameters/{tag}")) for name, tag in _TIMES.items()}
    seconds = _all_below(values["te_ms"], 0.05) or _all_below(values["tr_ms"], 0.5)
    for name, tag in _TIMES.items():
        fields[name] = tuple(1000 * v for v in values[name]) if seconds else values[name]
        if values[name]:
            origin[name] = f"sequenceParameters/{tag}" + (" (read as seconds)" if seconds else "")
    fields["flip_deg"] = _numbers(root.find_all("sequenceParameters/flipAngle_deg"))
    if fields["flip_deg"]:
        origin["flip_deg"] = "sequenceParameters/flipAngle_deg"


def _patient(root: Node) -> PatientInfo:
    return PatientInfo(
        name=_text(root, f"{_SUBJECT}/patientName"),
        patient_id=_text(root, f"{_SUBJECT}/patientID"),
        birth_date=_text(root, f"{_SUBJECT}/patientBirthdate"),
        sex=_text(root, f"{_SUBJECT}/patientGender"),
        weight_kg=_positive(root, f"{_SUBJECT}/patientWeight_kg"),
        height_m=_positive(root, f"{_SUBJECT}/patientHeight_m"),
    )


def _user_parameters(root: Node) -> dict[str, Any]:
    kinds: dict[str, Callable[[str], Any]] = {"Long": _to_integer, "Double": _to_number, "String": str}
    found: dict[str, Any] = {}
    for kind, convert in kinds.items():
        for node in root.find_all(f"userParameters/userParameter{kind}"):
            name, value = node.value("name"), node.value("value")
            if name is not None and value is not None:
                found[name] = convert(value)
    return found


def _one_encoding(
    node: Node, index: int, common: Mapping[str, Any], origin: Mapping[str, str], xml: bytes
) -> ScanHeader:
    where = dict(origin)
    label = f"encoding {index}"
    encoded = _matrix(node, "encodedSpace", label)
    if node.find("reconSpace/matrixSize") is None:
        recon = encoded
        where["recon_matrix"] = "fallback: encodedSpace/matrixSize"
    else:
        recon = _matrix(node, "reconSpace", label)
        where["recon_matrix"] = "encoding/reconSpace/matrixSize"
    encoded_fov, recon_fov = _fields_of_view(node, label, where)
    trajectory = _trajectory(node, where)
    return ScanHeader(
        encoded_matrix=encoded,
        encoded_fov_mm=encoded_fov,
        recon_matrix=recon,
        recon_fov_mm=recon_fov,
        trajectory=trajectory,
        encoding=index,
        limits=_limits(node),
        acceleration=_acceleration(node, where),
        calibration_mode=node.value("parallelImaging/calibrationMode"),
        multiband=_multiband(node, common["user"]),
        origin=where,
        xml=xml,
        **common,
    )


def _trajectory(node: Node, where: dict[str, str]) -> str:
    """The trajectory, or where that says Cartesian the name in its description that says something else."""
    said = node.value("trajectory")
    where["trajectory"] = "encoding/trajectory" if said else "fallback: cartesian"
    trajectory = (said or "cartesian").lower()
    described = node.value("trajectoryDescription/identifier") or ""
    if trajectory == "cartesian" and _NOT_CARTESIAN.search(described):
        where["trajectory"] = "encoding/trajectoryDescription/identifier"
        return described.lower()[:MOST_CHARACTERS]
    return trajectory


def _multiband(node: Node, user: Mapping[str, Any]) -> int:
    """Slices excited at once, from the encoding or from user parameters; 1 where nothing says so."""
    given: list[Any] = [_integer(node, "parallelImaging/multiband/multiband_factor")]
    given += [value for name, value in user.items() if _MULTIBAND.match(name)]
    return max([1, *(round(value) for value in given if isinstance(value, int | float))])


def _matrix(node: Node, space: str, label: str) -> tuple[int, int, int]:
    sizes = [_integer(node, f"{space}/matrixSize/{axis}") for axis in "xyz"]
    if sizes[2] in (None, 0):
        sizes[2] = 1
    x, y, z = (int(n or 0) for n in sizes)
    if not all(0 < n <= MOST_SAMPLES for n in (x, y, z)) or x * y * z > MOST_VOXELS:
        shown = [node.value(f"{space}/matrixSize/{axis}") for axis in "xyz"]
        raise DataError(
            f"header: {label} {space}/matrixSize is {shown}, expected three sizes of 1 to {MOST_SAMPLES}, "
            f"together at most {MOST_VOXELS} samples"
        )
    return x, y, z


def _fields_of_view(
    node: Node, label: str, where: dict[str, str]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Both fields of view in mm; an absent one is taken from the other, thickness falls back to 1 mm."""
    found = {
        space: [_positive(node, f"{space}/fieldOfView_mm/{axis}") for axis in "xyz"]
        for space in ("encodedSpace", "reconSpace")
    }
    encoded, recon = found["encodedSpace"], found["reconSpace"]
    for axis, name in enumerate("xyz"):
        if encoded[axis] is None and recon[axis] is None and name == "z":
            encoded[axis] = recon[axis] = 1.0
            where["thickness"] = "fallback: 1 mm, the header gives no field of view along z"
        elif encoded[axis] is None and recon[axis] is None:
            raise DataError(f"header: {label} has no positive fieldOfView_mm/{name} in either space")
        elif encoded[axis] is None:
            encoded[axis] = recon[axis]
            where[f"encoded_fov_{name}"] = f"fallback: reconSpace/fieldOfView_mm/{name}"
        elif recon[axis] is None:
            recon[axis] = encoded[axis]
            where[f"recon_fov_{name}"] = f"fallback: encodedSpace/fieldOfView_mm/{name}"
    return _three(encoded), _three(recon)


def _three(values: Iterable[float | None]) -> tuple[float, float, float]:
    x, y, z = (float(v or 0) for v in values)
    return x, y, z


def _limits(node: Node) -> dict[str, Limit]:
    limits = {}
    for name in LIMIT_NAMES:
        low = _integer(node, f"encodingLimits/{name}/minimum")
        high = _integer(node, f"encodingLimits/{name}/maximum")
        centre = _integer(node, f"encodingLimits/{name}/center")
        if high is not None and high >= (low or 0) >= 0:
            low = low or 0
            limits[name] = Limit(
                minimum=low, maximum=high, center=(low + high + 1) // 2 if centre is None else centre
            )
    return limits


def _acceleration(node: Node, where: dict[str, str]) -> tuple[float, float] | None:
    path = "parallelImaging/accelerationFactor/kspace_encoding_step_"
    first, second = _positive(node, path + "1"), _positive(node, path + "2")
    if first is None and second is None:
        return None
    where["acceleration"] = "encoding/parallelImaging/accelerationFactor"
    return first or 1.0, second or 1.0


def _to_number(text: str) -> float | None:
    """The number meant: what came through single precision (3.4000001) is written as it was before (3.4)."""
    value = _parsed(text)
    if value is None or abs(value) > _LARGEST:
        return value
    return float(str(np.float32(value)))


def _parsed(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _to_integer(text: str) -> int | None:
    value = _parsed(text)
    return round(value) if value is not None and abs(value) < 2**63 else None


def _integer(node: Node, path: str) -> int | None:
    text = node.value(path)
    return _to_integer(text) if text else None


def _positive(node: Node, path: str) -> float | None:
    text = node.value(path)
    value = _to_number(text) if text else None
    return value if value is not None and value > 0 else None


def _numbers(nodes: Iterable[Node]) -> tuple[float, ...]:
    values = (_to_number(node.text.strip()) for node in nodes)
    return tuple(v for v in values if v is not None and v >= 0)


def _all_below(values: tuple[float, ...], limit: float) -> bool:
    positive = [v for v in values if v > 0]
    return bool(positive) and max(positive) < limit
