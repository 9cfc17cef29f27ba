"""De-identification for research: PS3.15 Annex E, Basic Application Level Confidentiality Profile.

Which attribute gets which action comes from the table in the dicom-anonymizer package (PS3.15 table
E.1-1). Added to it are two options of the standard: Retain Longitudinal Temporal Information with
Modified Dates (E.3.6), by shifting all dates of a patient by the same number of days, and Retain Safe
Private (E.3.10), for the provenance block of this package, which names no one. Pseudonym, shift and
UIDs are keyed hashes: the same key gives the same ones again, and without it nobody can repeat them.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid

from recon_node.core.errors import ConfigError, DicomError
from recon_node.dicom.leaks import leak
from recon_node.dicom.provenance import CREATOR, NOT_VALIDATED, PRIVATE_GROUP, read_provenance
from recon_node.dicom.text import clipped, code
from recon_node.dicom.uids import DEFAULT_PREFIX

TABLE = "dicomfields_2026c"
"""Edition of PS3.15 table E.1-1."""
MIN_KEY_BYTES = 16
MAX_SHIFT_DAYS = 3650

Action = Callable[[Dataset, tuple[int, int]], None]
Rules = dict[tuple[int, int], Action]


def deidentify(ds: Dataset, *, key: bytes, prefix: str = DEFAULT_PREFIX) -> Dataset:
    """A copy of `ds` that does not tell who the patient is.

    Parameters
    ----------
    ds : Dataset
        One instance with its file meta information.
    key : bytes
        Secret, at least 16 bytes. All instances of a study that belong together need the same.
    prefix : str
        UID root of the new UIDs, ending in a dot.

    Raises
    ------
    ConfigError
        Where the key is too short or the dicom-anonymizer package is not installed.
    DicomError
        Where `ds` has pixels with text burnt in that may name the patient, or what is kept still
        holds the patient's name or ID.
    """
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(f"the key has {len(key)} bytes, expected at least {MIN_KEY_BYTES} secret ones")
    try:
        facts: dict[str, Any] | None = read_provenance(ds)
    except KeyError:
        facts = None
    if facts is None and ds.get("BurnedInAnnotation") == "YES":
        raise DicomError("the instance says that text is burnt into its pixels: look at it before sharing it")
    clean = copy.deepcopy(ds)
    secret = _Secret(key, str(ds.get("PatientID") or ds.get("StudyInstanceUID") or ""), prefix)
    kept = _taken_out(clean)
    _apply_profile(clean, secret)
    clean.PatientName = clean.PatientID = secret.pseudonym
    if facts is not None:
        for tag, (vr, value) in kept.items():
            clean.private_block(PRIVATE_GROUP, CREATOR, create=True).add_new(tag, vr, value)
        clean.SeriesDescription = _description(facts)
    _state_method(clean, with_private=facts is not None)
    if "file_meta" in clean.__dict__:
        clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    left = leak(ds, clean, ours=facts is not None)
    if left is not None:
        raise DicomError(f"{left.name} {left.tag} still holds the patient's name or ID: not shared")
    return clean


def deidentified_file(path: Path, *, key: bytes, prefix: str = DEFAULT_PREFIX) -> bytes:
    """The DICOM file at `path` as `deidentify` leaves it; the same file and key give the same bytes.

    Raises
    ------
    ConfigError, DicomError
        As for `deidentify`, and where `path` is no readable DICOM file.
    """
    stream = BytesIO()
    try:
        clean = deidentify(pydicom.dcmread(path), key=key, prefix=prefix)
        clean.save_as(stream, enforce_file_format=True)
    except (InvalidDicomError, EOFError, OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise DicomError(f"{path.name} cannot be de-identified: {error}") from error
    return stream.getvalue()


class _Secret:
    """Everything that depends on the key, for one patient."""

    def __init__(self, key: bytes, patient: str, prefix: str) -> None:
        self._key, self._prefix = key, prefix
        self.pseudonym = f"RN-{self._hash('patient', patient)[:16].upper()}"
        self._days = 1 + int(self._hash("dates", patient), 16) % MAX_SHIFT_DAYS

    def _hash(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()

    def uid(self, old: str) -> str:
        """The UID in place of `old`."""
        return str(generate_uid(prefix=self._prefix, entropy_srcs=[self._hash("uid", old)]))

    def date(self, old: str) -> str:
        """DA or DT moved back by this patient's number of days; empty where it cannot be read."""
        try:
            moved = datetime.strptime(old[:8], "%Y%m%d") - timedelta(days=self._days)  # noqa: DTZ007 - DA has no zone
        except (ValueError, OverflowError):
            return ""
        return f"{moved:%Y%m%d}{old[8:]}"


def _apply_profile(ds: Dataset, secret: _Secret) -> None:
    """The table's action for every attribute, at every depth."""
    try:
        from dicomanonymizer.simpledicomanonymizer import (
            anonymize_dataset,
            initialize_actions,
        )
    except ImportError as error:
        raise ConfigError(
            "de-identification needs the dicom-anonymizer package: pip install dicom-anonymizer"
        ) from error
    rules: Rules = initialize_actions(TABLE)
    for tag, action in rules.items():
        rules[tag] = _keyed(action, secret)
    try:
        for level in (ds, *_items(ds)):
            anonymize_dataset(level, base_rules_gen=lambda: dict(rules), delete_private_tags=True)
    except (NotImplementedError, ValueError, TypeError, AttributeError, KeyError) as error:
        # NotImplementedError is the anonymizer's own, for value representations it has no rule for.
        raise DicomError(f"the instance cannot be de-identified: {error}") from error


def _keyed(action: Action, secret: _Secret) -> Action:
    """`action`, but dates shifted (also where the table removes them) and UIDs hashed with the key."""

    def apply(ds: Dataset, tag: tuple[int, int]) -> None:
        if tag not in ds:
            return
        element = ds[tag]
        if element.VR in ("DA", "DT"):
            element.value = secret.date(str(element.value))
        elif element.VR == "TM":
            return
        elif element.VR == "UI":
            old = [element.value] if isinstance(element.value, str) else list(element.value or ())
            element.value = [secret.uid(uid) for uid in old]
        else:
            action(ds, tag)

    return apply


def _items(ds: Dataset) -> list[Dataset]:
    items = [item for element in ds if element.VR == "SQ" for item in element.value]
    return [*items, *(deeper for item in items for deeper in _items(item))]


def _taken_out(ds: Dataset) -> dict[int, tuple[str, Any]]:
    """The elements of our private block, by their number within it."""
    try:
        block = ds.private_block(PRIVATE_GROUP, CREATOR)
    except KeyError:
        return {}
    elements = [e for e in ds.group_dataset(PRIVATE_GROUP) if e.tag.element >> 8 == block.block_start >> 8]
    return {element.tag.element & 0xFF: (str(element.VR), element.value) for element in elements}


def _description(facts: dict[str, Any]) -> str:
    warning = "" if facts["validated"] else f" {NOT_VALIDATED}"
    return clipped(str(facts["method"]), 64 - len(warning)) + warning


def _state_method(ds: Dataset, *, with_private: bool) -> None:
    """What was done, in words and codes (PS3.16 CID 7050)."""
    ds.PatientIdentityRemoved = "YES"
    ds.LongitudinalTemporalInformationModified = "MODIFIED"
    ds.DeidentificationMethod = "PS3.15 Basic Profile, modified dates, keyed pseudonym"
    methods = [
        code("113100", "DCM", "Basic Application Confidentiality Profile"),
        code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ]
    if with_private:
        methods.append(code("113111", "DCM", "Retain Safe Private Option"))
    ds.DeidentificationMethodCodeSequence = methods
