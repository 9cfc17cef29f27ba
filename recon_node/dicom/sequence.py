"""MR Image module: how the signal was acquired (PS3.3 C.8.3.1), from the header."""

from __future__ import annotations

from typing import Literal

from pydicom.dataset import Dataset

from recon_node.core.types import ImageSeries
from recon_node.dicom.modules import Fallbacks
from recon_node.dicom.text import decimal, one_line

PhaseEncoding = Literal["COL", "ROW"]
"""Whether phase encoding runs along columns (the raw data's own orientation) or rows (transposed)."""

_SEQUENCES = (
    (("trufi", "tfi", "bssfp", "fiesta", "b-ffe", "bffe", "btfe", "ssfp", "cine"), "GR", "SS"),
    (("flash", "spgr", "fspgr", "t1-ffe", "vibe", "lava", "fl2d", "fl3d", "gre"), "GR", "SP"),
    (("epi",), "EP", "NONE"),
    (("tse", "fse", "haste", "ssh", "space"), "SE", "SK"),
    (("spin",), "SE", "NONE"),
)
"""Words in a sequence or protocol name, ScanningSequence, SequenceVariant."""


def add_sequence(ds: Dataset, images: ImageSeries, phase_encoding: PhaseEncoding, used: Fallbacks) -> None:
    """Sequence parameters; ScanOptions says CG exactly where there are trigger times."""
    header = images.header
    kind, variant = sequence_kind(f"{header.sequence or ''} {header.protocol or ''}")
    if kind == "RM":
        used["ScanningSequence"] = "sequence name not recognised; RM (research mode)"
    inverted = any(time > 0 for time in header.ti_ms)
    ds.ScanningSequence = [kind, "IR"] if inverted and kind != "RM" else kind
    ds.SequenceVariant = variant
    ds.ScanOptions = "CG" if images.trigger_times_ms is not None else ""
    ds.MRAcquisitionType = "3D" if header.encoded_matrix[2] > 1 else "2D"
    if header.sequence:
        ds.SequenceName = one_line(header.sequence, 16)
    contrast = images.index.contrast
    ds.EchoTime = _one_of(header.te_ms, contrast)
    ds.RepetitionTime = _one_of(header.tr_ms, contrast)
    ds.EchoTrainLength = ""
    if inverted:
        ds.InversionTime = _one_of(header.ti_ms, contrast)
    if header.flip_deg:
        ds.FlipAngle = _one_of(header.flip_deg, contrast)
    if header.field_strength_t is not None:
        ds.MagneticFieldStrength = decimal(header.field_strength_t)
    if header.resonance_frequency_hz:
        ds.ImagingFrequency = decimal(header.resonance_frequency_hz / 1e6)
        ds.ImagedNucleus = "1H"
    read, phase = (min(size, 65535) for size in header.encoded_matrix[:2])
    ds.AcquisitionMatrix = [0, read, phase, 0] if phase_encoding == "COL" else [read, 0, 0, phase]
    ds.InPlanePhaseEncodingDirection = phase_encoding


def contrast_times(images: ImageSeries) -> dict[int, tuple[float, ...]]:
    """Tag to times (ms) that differ between images which are one contrast each."""
    header, count = images.header, images.data.shape[0]
    given = {0x00180080: header.tr_ms, 0x00180081: header.te_ms, 0x00180082: header.ti_ms}
    return {tag: times for tag, times in given.items() if count > 1 and len(times) == count}


def add_cardiac(ds: Dataset, images: ImageSeries) -> None:
    """What all phases of a triggered series share; the trigger time itself differs by instance."""
    if images.trigger_times_ms is None:
        return
    ds.CardiacNumberOfImages = images.data.shape[0]
    if images.rr_interval_ms is not None and images.rr_interval_ms > 0:
        ds.NominalInterval = round(images.rr_interval_ms)
        ds.HeartRate = round(60000 / images.rr_interval_ms)


def sequence_kind(name: str) -> tuple[str, str]:
    """ScanningSequence and SequenceVariant that a sequence's name speaks of; RM where it does not."""
    lowered = name.lower()
    for words, kind, variant in _SEQUENCES:
        if any(word in lowered for word in words):
            return kind, variant
    return "RM", "NONE"


def _one_of(values: tuple[float, ...], index: int) -> str:
    return decimal(values[min(index, len(values) - 1)]) if values else ""
