"""What is known of a scan before any reconstruction: header, readouts, geometry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.axes import frozen
from recon_node.core.errors import DataError

Size = Literal["pixel", "thickness", "pitch"]
"""Pixel size in the plane, slice thickness, distance between slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One ISMRMRD encoding limit (``encodingLimits/*``): inclusive range of a counter and its centre."""

    minimum: int
    maximum: int
    center: int

    @property
    def size(self) -> int:
        """Number of counter values, both ends included."""
        return self.maximum - self.minimum + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientInfo:
    """Who was scanned. Its `repr` shows nothing, so that a log line cannot leak it."""

    name: str | None = field(default=None, repr=False)
    patient_id: str | None = field(default=None, repr=False)
    birth_date: str | None = field(default=None, repr=False)
    """ISO date, ``YYYY-MM-DD``."""
    sex: str | None = field(default=None, repr=False)
    """``M``, ``F`` or ``O``."""
    weight_kg: float | None = field(default=None, repr=False)
    height_m: float | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInfo:
    """Study, series and measurement identifiers as the header gives them (absent is None)."""

    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    frame_of_reference_uid: str | None = None
    measurement_id: str | None = None
    accession_number: str | None = field(default=None, repr=False)
    referring_physician: str | None = field(default=None, repr=False)
    study_description: str | None = field(default=None, repr=False)
    study_date: str | None = None
    """ISO date."""
    study_time: str | None = None
    """ISO time."""
    series_date: str | None = None
    series_time: str | None = None
    series_description: str | None = None
    initial_series_number: int | None = None
    body_part: str | None = None


VELOCITY_ENCODINGS = "VelocityEncodings"
"""Among `ScanHeader.user`: how many sets beside the reference (set 0) encode a velocity in their phase."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScanHeader:
    """One encoding of an ISMRMRD header, every unit already converted.

    Values the file does not give are None; `origin` says, for each field that is set, where it
    came from (an XML path, ``"path name"``, ``"fallback: ..."``).
    """

    encoded_matrix: tuple[int, int, int]
    """(x, y, z) samples of the encoded space; x includes readout oversampling."""
    encoded_fov_mm: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    """(x, y, z) pixels of the image asked for."""
    recon_fov_mm: tuple[float, float, float]
    trajectory: str = "cartesian"
    encoding: int = 0
    """Index of this encoding in the file."""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """By ISMRMRD name: kspace_encoding_step_1, kspace_encoding_step_2, average, slice, contrast,
    phase, repetition, set, segment."""
    acceleration: tuple[float, float] | None = None
    """Nominal parallel imaging acceleration (step 1, step 2)."""
    calibration_mode: str | None = None
    """embedded, interleaved, separate, external or other."""
    vendor: str | None = None
    model: str | None = None
    institution: str | None = None
    station: str | None = None
    device_serial: str | None = None
    field_strength_t: float | None = None
    resonance_frequency_hz: int | None = None
    receiver_channels: int | None = None
    noise_bandwidth_ratio: float | None = None
    """relativeReceiverNoiseBandwidth, dimensionless (about 0.79)."""
    coil_names: tuple[str, ...] = ()
    protocol: str | None = None
    sequence: str | None = None
    te_ms: tuple[float, ...] = ()
    tr_ms: tuple[float, ...] = ()
    ti_ms: tuple[float, ...] = ()
    flip_deg: tuple[float, ...] = ()
    echo_spacing_ms: tuple[float, ...] = ()
    patient_position: str | None = None
    """DICOM patient position, for example HFS."""
    patient: PatientInfo = PatientInfo()
    study: StudyInfo = StudyInfo()
    user: Mapping[str, Any] = field(default_factory=dict)
    """userParameters by name (long, double, string)."""
    multiband: int = 1
    """Slices excited at once."""
    unknown: frozenset[Size] = frozenset()
    """Sizes that the file does not give: the values that stand in for them must not be shown as measured."""
    remarks: tuple[str, ...] = ()
    """What was noticed when the file was opened, in sentences for the user."""
    origin: Mapping[str, str] = field(default_factory=dict)
    xml: bytes = field(default=b"", repr=False)
    """The header as it was received, in the encoding that it declares."""

    def __post_init__(self) -> None:
        for name in ("encoded_matrix", "recon_matrix"):
            if any(n < 1 for n in getattr(self, name)):
                raise DataError(f"header: {name} is {getattr(self, name)}, expected three positive sizes")
        for name in ("encoded_fov_mm", "recon_fov_mm"):
            value = getattr(self, name)
            if not all(np.isfinite(f) and f > 0 for f in value):
                raise DataError(f"header: {name} is {value}, expected three positive lengths in mm")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Readouts:
    """A run of acquisitions of one shape, as the scanner sent them (a single readout is a run of one)."""

    head: NDArray[Any]
    """`(readout,)` of dtype ACQUISITION_HEADER."""
    samples: NDArray[np.complex64]
    """`(readout, coil, sample)` complex64, receiver units."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        object.__setattr__(self, "head", frozen("head", self.head, "readout", ACQUISITION_HEADER, sizes))
        object.__setattr__(
            self, "samples", frozen("samples", self.samples, "readout coil sample", np.complex64, sizes)
        )

    def __len__(self) -> int:
        return int(self.head.shape[0])

    @property
    def nbytes(self) -> int:
        """Memory of headers and samples."""
        return int(self.head.nbytes + self.samples.nbytes)

    def select(self, which: NDArray[Any] | slice) -> Readouts:
        """The readouts that a boolean mask, an index array or a slice picks."""
        return Readouts(head=self.head[which], samples=self.samples[which])


@dataclass(frozen=True, slots=True, kw_only=True)
class Waveform:
    """A physiology waveform message, passed along untouched (ECG, pulse, respiration, triggers)."""

    waveform_id: int
    time_stamp: int
    """In units of 2.5 ms."""
    sample_time_us: float
    data: NDArray[np.uint32] = field(repr=False)
    """`(channel, sample)` uint32."""

    @property
    def nbytes(self) -> int:
        """Memory of the samples, and of what holds them."""
        return int(self.data.nbytes) + 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceGeometry:
    """Where an image lies in the patient (DICOM LPS coordinates, mm).

    `position_mm` is where the centred Fourier transform puts the scanner's centre of the slice: the centre of
    pixel ``n // 2``, counted from 0.
    """

    position_mm: tuple[float, float, float]
    read_dir: tuple[float, float, float]
    """Unit vector along increasing x (columns)."""
    phase_dir: tuple[float, float, float]
    """Unit vector along increasing y (rows)."""
    slice_dir: tuple[float, float, float]
    fov_mm: tuple[float, float, float]
    """(x, y, slice thickness)."""
    known: bool = True
    """False where the file gave no directions and axial ones were put in their place."""
    verified: bool = True
    """False where the directions stand beside data of a vendor whose sign of the Fourier transform nobody
    checked: the image may be mirrored."""
    conjugated: bool = False
    """Whether k-space was conjugated so that the image agrees with the directions: it lies half a turn from
    that of a plain inverse Fourier transform."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SliceIndex:
    """Which part of the scan: the counters that separate one k-space from another."""

    slice: int = 0
    contrast: int = 0
    set: int = 0
    repetition: int = 0
    encoding: int = 0
    partition: int = 0
    """Partition of a 3D slab after the transform along the slice encoding; 0 for 2D."""
