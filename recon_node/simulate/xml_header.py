"""The ISMRMRD XML header of a simulated scan, with synthetic patient and study."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from recon_node.core.physics import GYROMAGNETIC_HZ_PER_T
from recon_node.simulate.scanner import vendor_in_header
from recon_node.simulate.subject import BIRTH_DATES, STUDY_DATE, Subject, protocol_name

Tree = Mapping[str, object]
NAMESPACE = "http://www.ismrm.org/ISMRMRD"
NOISE_BANDWIDTH = 0.793
"""Mean over centre of the receivers' noise spectrum, as Siemens scanners report it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The sizes a header states."""

    encoded: tuple[int, int]
    """(x, y)"""
    recon: tuple[int, int]
    """(x, y)"""
    fov_mm: float
    thickness_mm: float
    oversampling: int
    slices: int
    phases: int
    acceleration: int
    acs: int
    grid: int = 1
    """Every how manieth line the accelerated image has; 1 where its lines lie on no grid."""


def uid(seed: int, what: str) -> str:
    """A DICOM UID under 2.25 (PS3.5 B.2) that only `seed` and `what` decide."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'recon-node phantom {seed} {what}').int}"


def xml_header(subject: Subject, encoding: Encoding, *, seed: int, pattern: str) -> str:
    """Write the header.

    Parameters
    ----------
    subject : Subject
    encoding : Encoding
    seed : int
        Decides identifiers.
    pattern : str
        Named in the user parameters.
    """
    root = ET.Element("ismrmrdHeader", {"xmlns": NAMESPACE})
    tree: dict[str, object] = {
        "version": 15,
        "subjectInformation": {
            "patientName": "Phantom^Heart",
            "patientWeight_kg": round(76 * subject.scene.anatomy.size**3, 1),
            "patientID": f"PHANTOM-{seed:06d}",
            "patientBirthdate": BIRTH_DATES[subject.lifespan],
            "patientGender": "O",
        },
        "studyInformation": {
            "studyDate": STUDY_DATE,
            "studyTime": "09:30:00",
            "studyID": str(seed),
            "studyDescription": "Simulated cardiac MRI",
            "studyInstanceUID": uid(seed, "study"),
        },
        "measurementInformation": {
            "measurementID": uid(seed, "measurement")[5:21],
            "seriesDate": STUDY_DATE,
            "seriesTime": "09:35:00",
            "patientPosition": "HFS",
            "initialSeriesNumber": 1,
            "protocolName": protocol_name(subject.modality, subject.view),
            "seriesDescription": f"{subject.modality} {subject.view}",
            "seriesInstanceUIDRoot": uid(seed, "series"),
            "frameOfReferenceUID": uid(seed, "frame of reference"),
        },
        "acquisitionSystemInformation": _system(subject),
        "experimentalConditions": {
            "H1resonanceFrequency_Hz": round(subject.machine.header_t * GYROMAGNETIC_HZ_PER_T)
        },
        "encoding": _encoding(encoding),
        "sequenceParameters": _sequence(subject),
        "userParameters": {
            "userParameterLong": [
                {"name": "EmbeddedRefLinesE1", "value": encoding.acs},
                {"name": "PhantomSeed", "value": seed},
            ],
            "userParameterString": [{"name": "SamplingPattern", "value": pattern}],
        },
    }
    _grow(root, tree)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _grow(parent: ET.Element, tree: Tree) -> None:
    for name, value in tree.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            node = ET.SubElement(parent, name)
            if isinstance(item, Mapping):
                _grow(node, item)
            else:
                node.text = str(item)


def _system(subject: Subject) -> Tree:
    machine = subject.machine
    coils = len(subject.coils.gains)
    return {
        "systemVendor": vendor_in_header(machine.vendor),
        "systemModel": machine.header_name,
        "systemFieldStrength_T": machine.header_t,
        "relativeReceiverNoiseBandwidth": NOISE_BANDWIDTH,
        "receiverChannels": coils,
        "coilLabel": [{"coilNumber": i, "coilName": f"Body:{i + 1}"} for i in range(coils)],
        "institutionName": "Phantom Institute",
        "stationName": "PHANTOM1",
        "deviceID": "000001",
    }


def _limit(size: int, centre: int = 0) -> Tree:
    return {"minimum": 0, "maximum": size - 1, "center": centre}


def _space(matrix: tuple[int, int], fov: tuple[float, float, float]) -> Tree:
    return {
        "matrixSize": {"x": matrix[0], "y": matrix[1], "z": 1},
        "fieldOfView_mm": dict(zip("xyz", fov, strict=True)),
    }


def _encoding(e: Encoding) -> Tree:
    ny = e.encoded[1]
    tree: dict[str, object] = {
        "encodedSpace": _space(e.encoded, (e.fov_mm * e.oversampling, e.fov_mm, e.thickness_mm)),
        "reconSpace": _space(e.recon, (e.fov_mm, e.fov_mm, e.thickness_mm)),
        "encodingLimits": {
            "kspace_encoding_step_0": _limit(e.encoded[0], e.encoded[0] // 2),
            "kspace_encoding_step_1": _limit(ny, ny // 2),
            "kspace_encoding_step_2": _limit(1),
            "average": _limit(1),
            "slice": _limit(e.slices),
            "contrast": _limit(1),
            "phase": _limit(e.phases),
            "repetition": _limit(1),
            "set": _limit(1),
            "segment": _limit(1),
        },
        "trajectory": "cartesian",
    }
    if e.acceleration > 1:
        tree["parallelImaging"] = {
            "accelerationFactor": {"kspace_encoding_step_1": e.acceleration, "kspace_encoding_step_2": 1},
            "calibrationMode": "embedded" if e.acs else "other",
        }
    return tree


def _sequence(subject: Subject) -> Tree:
    c = subject.scene.contrast

    def rounded(values: Sequence[float]) -> list[float]:
        return [round(v, 3) for v in values]

    kind = {True: "TrueFISP", False: "SpinEcho" if c.flip_deg >= 90 else "Flash"}[c.steady_state]
    return {
        "TR": rounded([c.tr_ms]),
        "TE": rounded(c.te_ms),
        "TI": rounded(c.ti_ms),
        "flipAngle_deg": rounded([c.flip_deg]),
        "sequence_type": kind,
    }
