"""A whole simulated scan: ISMRMRD raw data as a scanner sends it, and the truth beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import ConfigError
from recon_node.core.fft import centred_fft
from recon_node.core.grid import central
from recon_node.simulate.example import complex_noise, receive
from recon_node.simulate.geometry import orientation
from recon_node.simulate.heart import MYOCARDIUM_DENSITY_G_PER_ML
from recon_node.simulate.masks import draw_mask
from recon_node.simulate.mrd import AcquisitionFile, in_memory, write_image
from recon_node.simulate.scene import Frames
from recon_node.simulate.schedule import Timing, acquisition_heads
from recon_node.simulate.subject import Subject, draw_subject
from recon_node.simulate.xml_header import NOISE_BANDWIDTH, Encoding, xml_header

Complex = NDArray[np.complex64]

NOISE_READOUTS, NOISE_SAMPLES = 64, 512
NOISE_DWELL_US = 5.0
BANDWIDTH_HZ_PER_PIXEL = 930.0
RECEIVER_SCALE = 2e-5
"""Receiver units per noise deviation: raw data of scanners are small numbers."""
START_MS = 9.5 * 3600e3
"""First breath-hold, ms since midnight."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Slice:
    """One rendered slice on the oversampled grid and its truth on the image's."""

    images: Complex
    maps: Complex
    frames: Frames
    z: float

    def crop(self, columns: int) -> tuple[Complex, Complex]:
        part = np.s_[..., central(self.images.shape[-1], columns)]
        return self.images[part], self.maps[part]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanDescription:
    """What a simulated scan is of, and how it is measured."""

    acceleration: float = 8
    """With `pattern` and `acs`: see `recon_node.simulate.draw_mask`."""
    pattern: str = "random"
    coils: int = 8
    """Receive coils."""
    slices: int = 3
    """From base to apex."""
    phases: int = 25
    """Frames of each slice."""
    matrix: int = 128
    """Rows and columns of the image."""
    field: float = 3.0
    """Field strength, T; the header says what such scanners write (2.89362 for Siemens at 3 T)."""
    vendor: str = "Siemens"
    """With `modality`, `model`, `view` and `lifespan`: in the words of CardioMM's prompts."""
    modality: str = "cine"
    seed: int = 0
    """Decides everything that chance decides: the same seed gives the same arrays."""
    model: str | None = None
    view: str = "short-axis"
    lifespan: str = "Adult"
    acs: int = 20
    breathing_mm: float = 0.5
    """With `arrhythmia`, `infarct` and `snr_scale`: see `recon_node.simulate.draw_example`."""
    arrhythmia: float = 0.0
    infarct: bool = False
    snr_scale: float = 1.0
    heart: str = "plain"
    """``plain``, or ``detailed``: as hard as real ones, see `recon_node.simulate.detail`."""

    def __post_init__(self) -> None:
        _check(slices=self.slices, phases=self.phases, coils=self.coils, matrix=self.matrix, seed=self.seed)


def simulate_scan(
    path: Path | str,
    description: ScanDescription | None = None,
    *,
    truth: Path | str | None = None,
    report: Callable[[], object] = lambda: None,
    **changes: Any,
) -> None:
    """Write one scan as ISMRMRD HDF5.

    The file holds a noise scan of its own dwell time, then for each slice, in segmented order, the
    sampled lines with 2x oversampled readout. Pseudo-radial masks are not made of lines: there, each
    line with a sampled point is written without readout oversampling, and samples outside the mask
    are exactly zero (a retrospective pattern; oversampling could not keep the zeros).

    Parameters
    ----------
    path : Path
        File to write; replaced if it exists.
    description : ScanDescription, optional
        What is measured and how; the defaults otherwise.
    truth : Path, optional
        HDF5 file for the truth: ``images`` `(slice, phase, y, x)` complex64 noise-free in units of noise
        deviations, ``maps`` `(slice, coil, y, x)`, ``mask`` `(slice, phase, ky, kx)`, ``lv``,
        ``myocardium`` and ``rv`` `(slice, phase, y, x)` shares of each pixel, ``lv_volume_ml`` and
        ``rv_volume_ml`` `(phase,)`, ``trigger_times_ms``; attributes ``lvef_percent``, ``rvef_percent``,
        ``myocardial_mass_g``, ``slice_spacing_mm``, ``rr_interval_ms``, ``seed`` and the metadata's words.
    report : callable
        Called after each slice.
    **changes
        Fields of the description that differ from it: ``simulate_scan(path, acceleration=4, seed=1)``.

    Raises
    ------
    ConfigError
        For values out of range or outside the vocabulary, or a file that cannot be written.

    Notes
    -----
    Siemens' direction vectors describe the image that a forward transform of the raw data gives: for
    that vendor the file holds conjugated k-space.
    """
    d = replace(description or ScanDescription(), **changes)
    rng = np.random.default_rng([d.seed, 20261124])
    subject = draw_subject(
        rng,
        phases=d.phases,
        coils=d.coils,
        vendor=d.vendor,
        model=d.model,
        field_t=d.field,
        modality=d.modality,
        view=d.view,
        lifespan=d.lifespan,
        breathing_mm=d.breathing_mm,
        arrhythmia=d.arrhythmia,
        infarct=d.infarct,
        heart=d.heart,
    )
    oversampling = 1 if d.pattern == "radial" and d.acceleration > 1 else 2
    encoding = Encoding(
        encoded=(d.matrix * oversampling, d.matrix),
        recon=(d.matrix, d.matrix),
        fov_mm=subject.fov_mm,
        thickness_mm=subject.thickness_mm,
        oversampling=oversampling,
        slices=d.slices,
        phases=d.phases,
        acceleration=max(1, round(d.acceleration)) if oversampling > 1 else 1,
        acs=d.acs if d.acceleration > 1 else 0,
        grid=max(1, round(d.acceleration)) if d.pattern == "uniform" else 1,
    )
    masks = [
        draw_mask(d.pattern, d.acceleration, shape=(d.phases, d.matrix, d.matrix), acs=d.acs, rng=rng)
        for _ in range(d.slices)
    ]
    xml = xml_header(subject, encoding, seed=d.seed, pattern=d.pattern)
    parts: list[_Slice] = []
    with AcquisitionFile(Path(path), xml) as file:
        receiver = _Receiver(rng, subject, encoding)
        receiver.noise_scan(file)
        for number, mask in enumerate(masks):
            part = _render(subject, encoding, number, d.snr_scale)
            receiver.slice(file, part, mask, number)
            parts.append(part)
            report()
    if truth is not None:
        _write_truth(Path(truth), subject, encoding, parts, masks, d.seed)


def _shown_signature() -> inspect.Signature:
    """With the description's fields by name, for help and editors."""
    own = inspect.signature(simulate_scan).parameters
    kept = [parameter for parameter in own.values() if parameter.kind is not parameter.VAR_KEYWORD]
    named = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(ScanDescription)
    ]
    return inspect.Signature([*kept, *named], return_annotation=None)


simulate_scan.__signature__ = _shown_signature()  # type: ignore[attr-defined]


def _check(**sizes: int) -> None:
    lowest = {"matrix": 32, "seed": 0}
    for name, value in sizes.items():
        least = lowest.get(name, 1)
        if value < least or (value > 65535 and name != "seed"):
            raise ConfigError(f"{name} is {value}, expected at least {least}")


def _render(subject: Subject, encoding: Encoding, number: int, snr_scale: float) -> _Slice:
    z = subject.slice_positions(encoding.slices)[number]
    nx, ny = encoding.encoded
    fov = subject.fov_mm
    plane = subject.plane_at((ny, nx), (fov, fov * encoding.oversampling), z)
    frames = subject.scene.render(plane)
    images, maps = receive(frames.signal, subject, subject.coils, plane, noise_scale=snr_scale)
    return _Slice(images=images, maps=maps, frames=frames, z=z)


class _Receiver:
    """Turns images into what the receivers put into the file."""

    def __init__(self, rng: np.random.Generator, subject: Subject, encoding: Encoding) -> None:
        self.rng, self.subject, self.encoding = rng, subject, encoding
        self.mixing = (np.linalg.cholesky(subject.coils.covariance) * RECEIVER_SCALE).astype(np.complex64)
        self.conjugate = subject.machine.vendor == "Siemens"
        self.dwell_us = 1e6 / (BANDWIDTH_HZ_PER_PIXEL * encoding.encoded[0])

    def _received(self, samples: Complex) -> Complex:
        mixed = np.matmul(self.mixing, samples)
        return np.asarray(np.conj(mixed) if self.conjugate else mixed, np.complex64)

    def noise_scan(self, file: AcquisitionFile) -> None:
        """Noise of the same receivers at another dwell time: variance goes with the bandwidth."""
        coils = len(self.mixing)
        level = np.float32(np.sqrt(self.dwell_us / NOISE_DWELL_US * NOISE_BANDWIDTH))
        heads = np.zeros(NOISE_READOUTS, ACQUISITION_HEADER)
        heads["version"] = 1
        heads["flags"] = int(AcquisitionFlag.IS_NOISE_MEASUREMENT)
        heads["sample_time_us"] = NOISE_DWELL_US
        heads["acquisition_time_stamp"] = round((START_MS - 2000) / 2.5)
        samples = complex_noise(self.rng, (NOISE_READOUTS, coils, NOISE_SAMPLES)) * level
        file.append(heads, self._received(samples))

    def slice(self, file: AcquisitionFile, part: _Slice, mask: NDArray[np.bool_], number: int) -> None:
        """Write the sampled lines of one slice."""
        e, moments = self.encoding, self.subject.scene.moments
        contrast = self.subject.scene.contrast
        timing = Timing(
            start_ms=START_MS + number * 20e3,
            rr_ms=moments.rr_ms,
            tr_ms=min(contrast.tr_ms, 10.0),
            trigger_ms=tuple(map(float, moments.trigger_ms)),
            gated=contrast.moves,
        )
        acs = e.acs if e.oversampling > 1 else 0  # a square of samples is no set of calibration lines
        heads = acquisition_heads(mask, timing, acs=acs, grid=e.grid, slice_number=number, slices=e.slices)
        heads["sample_time_us"] = self.dwell_us
        self._place(heads, part.z)
        samples = np.empty((len(heads), len(self.mixing), e.encoded[0]), np.complex64)
        for phase in range(len(mask)):
            kspace = centred_fft(part.maps * part.images[phase])
            mine = np.flatnonzero(heads["idx"]["phase"] == phase)
            lines = heads["idx"]["kspace_encode_step_1"][mine]
            data = np.moveaxis(kspace[:, lines], 0, 1)
            data = data + complex_noise(self.rng, data.shape)
            if e.oversampling == 1:
                data *= mask[phase][lines][:, None]
            samples[mine] = data
        file.append(heads, self._received(samples))

    def _place(self, heads: NDArray[Any], z: float) -> None:
        turn = orientation(self.subject.view, self.subject.scene.rv_rad)
        pixel = self.subject.fov_mm / self.encoding.recon[0]
        heads["position"] = turn.position(z, (pixel, pixel))
        heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = turn.read, turn.phase, turn.normal


def _write_truth(
    path: Path,
    subject: Subject,
    encoding: Encoding,
    parts: list[_Slice],
    masks: list[NDArray[np.bool_]],
    seed: int,
) -> None:
    columns = encoding.recon[0]
    part = central(encoding.encoded[0], columns)
    cropped = [one.crop(columns) for one in parts]
    lv, rv = subject.scene.volumes_ml()
    arrays: dict[str, NDArray[Any]] = {
        "images": np.stack([images for images, _ in cropped]),
        "maps": np.stack([maps for _, maps in cropped]),
        "mask": np.stack(masks),
        "lv_volume_ml": lv,
        "rv_volume_ml": rv,
        "trigger_times_ms": subject.scene.moments.trigger_ms,
    }
    for name in ("lv", "myocardium", "rv"):
        arrays[name] = np.stack([getattr(p.frames, name)[..., part] for p in parts])
    with in_memory() as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip" if array.dtype == bool else None)
        file.attrs["lvef_percent"] = 100 * (1 - lv.min() / lv.max())
        file.attrs["rvef_percent"] = 100 * (1 - rv.min() / rv.max())
        file.attrs["myocardial_mass_g"] = subject.scene.heart.myocardium_ml * MYOCARDIUM_DENSITY_G_PER_ML
        file.attrs["slice_spacing_mm"] = subject.spacing_mm(encoding.slices)
        file.attrs["pixel_mm"] = subject.fov_mm / columns
        file.attrs["rr_interval_ms"] = subject.scene.moments.rr_ms
        file.attrs["seed"] = seed
        for slot, word in subject.words().items():
            file.attrs[slot] = word
        write_image(file, path)
