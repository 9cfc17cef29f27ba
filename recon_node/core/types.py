"""The values that travel between the stages. Frozen, checked when made, arrays read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recon_node.core.axes import frozen
from recon_node.core.choices import Believed
from recon_node.core.errors import DataError
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex

Pattern = Literal["full", "uniform", "random", "radial", "mixed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The undersampling really found in a mask."""

    pattern: Pattern
    acceleration: float
    """Acceleration outside the ACS (1 where everything is sampled), as the prompts count it."""
    effective_acceleration: float
    """All points over sampled points, ACS included."""
    acs: int
    """Number of fully sampled central lines (ky) that every phase has; 0 if none."""
    acs_ky: tuple[int, int] = (0, 0)
    """Half-open range of those lines."""
    acs_kx: tuple[int, int] = (0, 0)
    """Half-open range of samples along kx that the ACS covers (all of kx for line patterns)."""
    partial_fourier: float = 1.0
    """Fraction of the ky extent covered, 1 unless one side of k-space is missing."""
    per_phase: tuple[float, ...] = ()
    """Acceleration outside the ACS of each phase."""
    parts: tuple[tuple[Pattern, float], ...] = ()
    """Pattern and acceleration of each scheme, the widest first, where a mask is made of several."""

    def __str__(self) -> str:
        """In words: ``8.0x uniform``, ``5.1x mixed (12.0x uniform, 9.0x random)``."""
        several = ", ".join(f"{rate:.1f}x {pattern}" for pattern, rate in self.parts)
        return f"{self.acceleration:.1f}x {self.pattern}" + (f" ({several})" if several else "")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KSpace:
    """K-space of one slice (and contrast, set, repetition), whitened and sorted."""

    data: NDArray[np.complex64]
    """`(phase, coil, ky, kx)` complex64 in units of noise standard deviation (see `whitened`);
    readout oversampling removed; zero where not sampled. ``ifft`` gives the image, `y` along ky."""
    mask: NDArray[np.bool_]
    """`(phase, ky, kx)` bool, True where sampled."""
    header: ScanHeader
    index: SliceIndex
    geometry: SliceGeometry
    """Of the grid of `data` (its field of view, before cropping to the recon matrix)."""
    sampling: Sampling
    calibration: NDArray[np.complex64] | None = None
    """`(coil, ay, ax)` complex64: fully sampled centre of k-space, averaged over phases or from a
    separate reference scan, centre at ``n // 2``; None where there is none."""
    calibration_noise: float | None = None
    """Standard deviation of the complex noise in `calibration`, below 1 after averaging; None where the noise
    level is not known."""
    trigger_times_ms: tuple[float, ...] | None = None
    """One per phase, ms after the R wave; None without physiology."""
    acquisition_times_s: tuple[float, ...] | None = None
    """One per phase, s after midnight (first line of the phase)."""
    rr_interval_ms: float | None = None
    lines_found: int = 0
    lines_expected: int = 0
    """Over all phases; what the header's limits and acceleration announce."""
    whitened: bool = False
    noise_estimated: bool = False
    """Whether the noise was taken from the edges of k-space, for want of a noise scan: too high where signal
    reaches them."""
    notes: tuple[str, ...] = ()
    """What had to be assumed or was found odd, in sentences for the user."""
    doubts: tuple[str, ...] = ()
    """Those of the notes that keep the verdict from ``pass``: image, place or scale may be wrong."""
    recon_shape: tuple[int, int] | None = None
    """(y, x) of the image asked for, where it differs from the grid."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        put = object.__setattr__
        put(self, "data", frozen("data", self.data, "phase coil ky kx", np.complex64, sizes))
        put(self, "mask", frozen("mask", self.mask, "phase ky kx", np.bool_, sizes))
        if self.calibration is not None:
            put(
                self,
                "calibration",
                frozen("calibration", self.calibration, "coil ay ax", np.complex64, sizes),
            )
        if 0 in self.data.shape:
            raise DataError(f"k-space has shape {self.data.shape}: nothing was sampled")
        for name in ("trigger_times_ms", "acquisition_times_s"):
            times = getattr(self, name)
            if times is not None and len(times) != sizes["phase"]:
                raise DataError(f"{name} has {len(times)} entries for {sizes['phase']} phases")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoilMaps:
    """Coil sensitivity maps of one slice."""

    data: NDArray[np.complex64]
    """`(map, coil, y, x)` complex64; unit root-sum-of-squares over coils inside `support`, 0 outside."""
    support: NDArray[np.bool_]
    """`(y, x)` bool: where the first map set is trusted."""
    method: str = "espirit"
    folded: float | None = None
    """Share of the support in which a second map set explains signal as fully as the first does, so that one
    alone cannot: the object is larger than the field of view. None where nobody looked."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        put = object.__setattr__
        put(self, "data", frozen("data", self.data, "map coil y x", np.complex64, sizes))
        put(self, "support", frozen("support", self.support, "y x", np.bool_, sizes))


class Prompt(str):
    """A sentence for the text encoder that remembers where each word came from.

    Attributes
    ----------
    provenance : Mapping[str, str]
        Slot (for example ``field``) to a sentence such as
        ``"3.0T from acquisitionSystemInformation/systemFieldStrength_T = 2.89362"``.
    """

    provenance: Mapping[str, str]

    def __new__(cls, text: str, provenance: Mapping[str, str] | None = None) -> Self:
        """Make the sentence; `provenance` is copied."""
        prompt = super().__new__(cls, text)
        prompt.provenance = dict(provenance or {})
        return prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Both sentences that condition CardioMM."""

    metadata: Prompt
    undersampling: Prompt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextEmbedding:
    """Both prompts as the text encoder sees them, before any learned head."""

    metadata: NDArray[np.float32]
    """`(feature,)` float32."""
    undersampling: NDArray[np.float32]
    """`(feature,)` float32."""
    encoder: str
    encoder_sha256: str
    """Hash of the encoder that made them; weights refuse another."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name in ("metadata", "undersampling"):
            value = frozen(name, getattr(self, name), "feature", np.float32, sizes)
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """What made an image."""

    method: str
    """cardiomm, kt, sense, l1-wavelet, zero-filled, ..."""
    version: str
    """Version of `package`."""
    package: str | None = None
    """Distribution that brought the method; None for this one."""
    weights: str | None = None
    weights_sha256: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that change the image (iterations, regularisation, ...), JSON-able."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSeries:
    """The reconstructed images of one slice."""

    data: NDArray[np.complex64]
    """`(phase, y, x)` complex64, in units of noise standard deviation if the k-space was whitened."""
    geometry: SliceGeometry
    header: ScanHeader
    index: SliceIndex
    made_by: MadeBy
    trigger_times_ms: tuple[float, ...] | None = None
    acquisition_times_s: tuple[float, ...] | None = None
    rr_interval_ms: float | None = None
    parts: NDArray[np.complex64] | None = None
    """`(phase, map, y, x)` complex64: the image of each coil map set, where there are several; `data` is what
    is shown of them (`recon_node.core.mapsets.joined`). Of images on the grid of their k-space only."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        object.__setattr__(self, "data", frozen("data", self.data, "phase y x", np.complex64, sizes))
        if self.parts is not None:
            parts = frozen("parts", self.parts, "phase map y x", np.complex64, sizes)
            object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Errors that an image's measures lead to expect, against a truth that nobody has."""

    psnr: float
    """dB"""
    ssim: float
    psnr_at_least: float | None
    """Bound that a share `level` of scans keeps, both bounds together; None where too few scans told."""
    ssim_at_least: float | None
    level: float

    @property
    def sentence(self) -> str:
        """The bounds in words; what is expected where there are none."""
        if self.ssim_at_least is None or self.psnr_at_least is None:
            return f"SSIM about {self.ssim:.2f}, PSNR about {self.psnr:.0f} dB"
        return (
            f"SSIM at least {self.ssim_at_least:.2f}, PSNR at least {self.psnr_at_least:.0f} dB "
            f"({self.level:.0%})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How far an image is to be believed."""

    verdict: Believed
    """`fallback`: the network's image was withheld and another method's stands in its place."""
    score: float
    """0 (not at all) to 1 (as good as the calibration set)."""
    reasons: tuple[str, ...] = ()
    expected: Expected | None = None
    """Errors to be expected of the image; None where the method has no model of them, or a measure is beyond
    its limit: nothing was learned of such images."""
    error_map: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """`(y, x)` on the grid of the k-space, in the images' unit: error to be expected, root mean square over
    phases and a few pixels around; None where nothing was held out."""
