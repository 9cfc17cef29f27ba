"""What is done to data on its way from readouts to instances, a class for each section."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recon_node.core.choices import (
    MARKS,
    CoilCompression,
    Compression,
    Device,
    Distrust,
    Dynamic,
    Fill,
    Format,
    Gating,
    MapSource,
    Mark,
    NoiseHandling,
    Orientation,
    PartialFourier,
    Precision,
    Quantity,
    RWaves,
    Turn,
)
from recon_node.core.folders import PLAIN
from recon_node.schema import Checked, Refused, checked, setting
from recon_node.settings.kinds import (
    Filename,
    FolderTemplate,
    LongText,
    Method,
    Name,
    ShortText,
    StandIn,
    UidRoot,
    Word,
)

_MOST_OFFSET = 2_000_000_000
"""Leaves room for a scan's own number, and its slices', below the 2**31 - 1 of IS (PS3.5 section 6.2)."""


@checked(section="prep")
class PrepSettings(Checked):
    """How raw data becomes k-space."""

    group: Name | None = None
    """Dataset to read of an HDF5 file that holds several."""
    orientation: Orientation = setting("auto", peer="orientation")
    """`auto` conjugates Siemens k-space that carries direction vectors, and warns that other vendors' images
    may be mirrored; the others are for sites that compared."""
    dynamic: Dynamic = setting("auto", peer="dynamic")
    """Counter that becomes the time axis."""
    noise: NoiseHandling = setting("auto", peer="noise")
    """`auto` whitens with the noise scan; `none` leaves the data alone; `unit-parts` is for data that
    Gadgetron's NoiseAdjust whitened before."""
    gating: Gating = setting("prospective", peer="gating")
    """`prospective` takes the phase counter; `retrospective` sorts the readouts of each slice into `phases`
    cardiac phases by its heartbeats."""
    r_waves: RWaves = setting("auto", peer="r_waves")
    """Where retrospective gating sees heartbeats: physiology time stamps, trigger marks of a waveform, or the
    trace of an ECG; `auto` takes the first of these that has any."""
    phases: int = setting(25, ge=1, le=512, peer="phases")
    """Cardiac phases of retrospective gating."""
    fill: Fill = setting("none", peer="fill")
    """Lines that a gated phase misses: left to the reconstruction, shared from the nearest phase, or every
    line interpolated in time."""
    rr_tolerance: float = setting(0.2, ge=0, le=10, unit="fraction of the median RR interval")
    """Beats whose RR interval differs by more than this from the median are rejected."""
    compression: Literal["none", CoilCompression] = setting("pca", peer="compression")
    """Fewer virtual coils."""
    virtual_coils: int | None = setting(None, ge=1, le=4096, peer="virtual_coils")
    """How many; by default as many as rise above the noise."""
    memory_mb: int = setting(8192, limit=True, ge=1, le=10_000_000, unit="MB")
    """K-space that one scan may hold at a time; a scan that announces more is refused."""

    @model_validator(mode="after")
    def _phases_are_made_once(self) -> Self:
        if self.gating == "retrospective" and self.dynamic not in ("auto", "phase"):
            wanted = "auto or phase with retrospective gating, which makes phases"
            raise Refused(wanted, key="dynamic", found=self.dynamic)
        return self


@checked(section="coils")
class CoilSettings(Checked):
    """ESPIRiT."""

    kernel: int = setting(6, ge=2, le=64, unit="samples")
    """Side of the k-space kernels; 4 or 5 suits fewer than about 16 calibration lines better."""
    threshold: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = 0.02
    """Singular values below this fraction of the largest are noise; `auto` takes the noise level of whitened
    data (0.02 where it is not known)."""
    maps: Annotated[int, Field(ge=1, le=16)] | Literal["auto"] = setting("auto", peer="maps")
    """Map sets: `auto` takes 2 where the object is larger than the field of view, else 1."""
    crop: float = setting(0.8, ge=0, lt=1)
    """Maps end where their eigenvalue falls below this."""
    soft: bool = False
    """Fade maps out around `crop` instead of cutting them."""


@checked(section="recon")
class ReconSettings(Checked):
    """Which method makes the images, and what happens when it is not to be trusted."""

    method: Method = setting("cardiomm", peer="method", peer_names=True, openrecon=True)
    """A built-in method, one of an installed package, or `module:Class` (docs/plugins.md)."""
    weights: Name = setting("default", path="weights", peer="weights", peer_names=True)
    """Name of shipped weights, or a file."""
    device: Device = setting("auto", peer="device")
    """Where to compute."""
    threads: int = setting(1, ge=1, le=1024)
    """Threads of the network on a CPU."""
    precision: Precision = "auto"
    """bfloat16 is used where the first slice shows that it changes next to nothing; `auto` takes it where
    device and network are made for it."""
    chunk: int | None = setting(None, ge=1, le=65536, unit="frames")
    """Frames that go through the network together; found by the device where it is not set."""
    compile: bool = False
    """Compile the network: tens of seconds at the first slice of each shape."""
    coil_maps: MapSource = "auto"
    """Maps the network gets: `auto` takes those it was trained with, learned ones where it has them."""
    encoder_folder: Filename | None = setting(None, path="path")
    """Folder of a CLIP text tower, where the weights want one."""
    fallback: StandIn = setting("sense", peer="fallback", peer_names=True, openrecon=True)
    """Method whose images stand in where the network's are withheld; one that learned nothing."""
    on_distrust: Distrust = setting("fallback", peer="policy", openrecon=True)
    """What a failed trust check does: keep the image with a warning (`warn`), withhold it and deliver the
    fallback's, deliver `both`, or `hold` both on the disk until somebody has looked at them."""
    check_trust: bool = True
    """Whether images are checked at all."""
    partial_fourier: Literal["zero", PartialFourier] = setting("zero", peer="partial_fourier")
    """The side of k-space that was never measured: left zero, or filled by symmetry after the
    reconstruction."""
    shading: Literal["keep", "even"] = setting("keep", peer="shading")
    """Shading of surface coils: kept, or evened out by a smooth field (not with T1 and T2 maps)."""


@checked(section="prompts")
class PromptSettings(Checked):
    """Words that replace what the header says, by slot."""

    lifespan: Word | None = None
    """Such as `Adult`."""
    field: Word | None = None
    """Such as `3.0T`."""
    vendor: Word | None = None
    """Of the scanner."""
    scanner: Word | None = None
    """Its model."""
    modality: Word | None = None
    """Such as `cine`."""
    view: Word | None = None
    """Such as `short axis`."""

    def overrides(self) -> dict[str, str]:
        """The slots that are set."""
        slots = ("lifespan", "field", "vendor", "scanner", "modality", "view")
        return {slot: getattr(self, slot) for slot in slots if getattr(self, slot) is not None}


@checked(section="dicom")
class DicomSettings(Checked):
    """What instances hold, and what the site adds to them."""

    images: tuple[Quantity, ...] = setting(("magnitude",), min_length=1)
    """One series each of: magnitude, phase, velocity (set 0 is its reference), g-factor and snr (of SENSE,
    where whole lines were sampled), expected-error (of the image, from held-out lines), t1, t2 (of a scan
    whose `prep.dynamic` is contrast)."""
    venc_cm_s: float | None = setting(None, gt=0, le=10_000, unit="cm/s")
    """Velocity that turns the phase by 180 degrees."""
    turn: Turn = "none"
    """`radiological`: mirror or transpose until the patient's left is on the right of the picture."""
    stack: bool = False
    """One series for all slices of a stack, as tools that read a stack want it, in place of one a slice."""
    folders: FolderTemplate = PLAIN
    """Folders of a series below the output folder: names with the fields {study} and {series} (UIDs),
    {patient} (a pseudonym), {date}, {time}, {protocol}, {slice}, {number} (of the series) and {method}; what
    they leave the same is told apart by digits at the end."""
    format: Format = "mr"
    """An instance for each image, or one with all images of a series."""
    compression: Compression = "none"
    """Lossless."""
    mark: Mark = "none"
    """How a trust verdict other than pass is written on the picture."""
    institution: LongText | None = None
    """This and the following stand in where the header is silent."""
    department: LongText | None = None
    """InstitutionalDepartmentName."""
    station: ShortText | None = None
    """StationName."""
    manufacturer: LongText | None = None
    """Of the scanner."""
    patient_name: LongText | None = setting(None, hidden=True)
    """For phantoms and volunteers whose header has none."""
    study_description: LongText | None = None
    """StudyDescription."""
    series_number_offset: int = setting(1000, ge=-_MOST_OFFSET, le=_MOST_OFFSET)
    """Added to every SeriesNumber, above those of the scanner's own series."""
    uid_prefix: UidRoot | None = None
    """UID root of the site, ending in a dot."""

    @model_validator(mode="after")
    def _images_can_be_made(self) -> Self:
        if "velocity" in self.images and self.venc_cm_s is None:
            raise Refused("the scan's encoding, as images has velocity", key="venc_cm_s", found=None)
        if self.stack and self.format != "mr":
            raise Refused("mr, as stack puts slices into one series", key="format", found=self.format)
        if self.mark not in MARKS[self.format]:
            words = f"{' or '.join(MARKS[self.format])} in format {self.format}"
            raise Refused(words, key="mark", found=self.mark)
        return self
