"""The stages between k-space and images, each a function from values to values; `row` joins them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from recon_node.coils import espirit, placed
from recon_node.core.errors import CalibrationError, UnsupportedScan
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, Prompts, TextEmbedding, Verdict
from recon_node.images import covered_part, evened, fill_partial_fourier, finish
from recon_node.methods.asked_again import AskedAgain
from recon_node.methods.registry import Methods
from recon_node.prep.calibration import LEAST_LINES
from recon_node.prompts import build_prompts, embed
from recon_node.settings import CoilSettings, PromptSettings, ReconSettings
from recon_node.solvers.device import on_device
from recon_node.trust import FOLDED_SHARE, judge_reconstruction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What may stand of a slice's images, and what becomes of the rest."""

    images: ImageSeries
    verdict: Verdict
    withheld: ImageSeries | None = None
    """The method's own images, where another's stand in and the settings want both."""
    held: bool = False
    """Nothing of this slice leaves before somebody has looked at it."""


EVENED = "surface-coil shading evened out by a smooth field: compare no pixel values across the image"
USUAL_THRESHOLD = 0.02
"""Of the calibration's singular values, where the noise level is not known."""


def calibrate(kspace: KSpace, settings: CoilSettings | None = None, *, device: str = "cpu") -> CoilMaps:
    """ESPIRiT maps from the calibration lines of `kspace`.

    Parameters
    ----------
    kspace : KSpace
    settings : CoilSettings, optional
    device : str
        ``auto``, ``cpu`` (numpy) or ``cuda`` (torch).

    Raises
    ------
    CalibrationError
        There are no calibration lines, or too few for the kernel.
    DeviceError
        CUDA was asked for and is absent, or full.
    """
    options = settings or CoilSettings()
    if kspace.calibration is None:
        lines = kspace.sampling.acs or "no"
        raise CalibrationError(
            f"slice {kspace.index.slice}: found {lines} fully sampled calibration (ACS) lines in the centre, "
            f"expected at least {max(options.kernel, LEAST_LINES)}: acquire more, or send a separate "
            "calibration scan (coils.kernel above 8 wants as many)"
        )
    calibration = kspace.calibration

    def with_sets(sets: int) -> CoilMaps:
        return on_device(
            device,
            lambda place: espirit(
                placed(calibration, place),
                kspace.data.shape[-2:],
                kernel=options.kernel,
                threshold=_threshold(kspace, options),
                maps=sets,
                crop=options.crop,
                soft=options.soft,
                noise_std=kspace.calibration_noise or 1.0,
            ),
        )

    if options.maps != "auto":
        return with_sets(options.maps)
    maps = with_sets(1)
    return with_sets(2) if _folds(maps) and len(calibration) > 1 else maps


def _folds(maps: CoilMaps) -> bool:
    """Whether the object is larger than the field of view, so that one set of maps is not enough."""
    return maps.folded is not None and maps.folded > FOLDED_SHARE


def _threshold(kspace: KSpace, options: CoilSettings) -> float | Literal["auto"]:
    """The automatic threshold needs to know the noise; the usual one where it is not known."""
    known = options.threshold != "auto" or kspace.calibration_noise is not None
    return options.threshold if known else USUAL_THRESHOLD


def prompt(
    kspace: KSpace, settings: PromptSettings, methods: Methods
) -> tuple[Prompts, TextEmbedding | None]:
    """Both sentences, and their vectors where the method reads text."""
    prompts = build_prompts(kspace.header, kspace.sampling, overrides=settings.overrides())
    return prompts, None if methods.encoder is None else embed(prompts, methods.encoder)


def judge(
    kspace: KSpace,
    maps: CoilMaps,
    prompts: Prompts,
    text: TextEmbedding | None,
    images: ImageSeries,
    methods: Methods,
    settings: ReconSettings,
) -> Judged:
    """The images that may stand, with the verdict on them; the settings say what a failed check does."""
    if not settings.check_trust:
        unchecked = Verdict(verdict="warn", score=0.0, reasons=("trust was not checked",))
        return Judged(images=images, verdict=unchecked)
    again = AskedAgain(method=methods.chosen, maps=maps, text=text, images=images)
    stand_in = AskedAgain(method=methods.fallback, maps=maps)
    verdict = judge_reconstruction(
        kspace,
        maps,
        images,
        prompts=prompts,
        standards=methods.standards,
        reconstruct=again,
        reference=again if methods.chosen.name == methods.fallback.name else stand_in,
    )
    if verdict.verdict != "fallback":
        return Judged(images=images, verdict=verdict)
    policy = settings.on_distrust
    if not methods.learned or policy == "warn":
        warned = dataclasses.replace(verdict, verdict="warn")
        return Judged(images=images, verdict=warned, held=policy == "hold")
    return Judged(
        images=stand_in(kspace),
        verdict=verdict,
        withheld=None if policy == "fallback" else images,
        held=policy == "hold",
    )


def finished(kspace: KSpace, judged: Judged, settings: ReconSettings) -> tuple[KSpace, Judged]:
    """Images at the recon matrix; what was asked for beyond that, with notes of it.

    The missing side of k-space filled, the shading of surface coils evened out.
    """
    shape = kspace.recon_shape or (kspace.data.shape[-2], kspace.data.shape[-1])
    noted, images = _filled(kspace, judged.images, settings)
    withheld = judged.withheld
    images = finish(images, shape=shape)
    if withheld is not None:
        withheld = finish(_filled(kspace, withheld, settings)[1], shape=shape)
    if settings.shading == "even":
        images, withheld = evened(images), None if withheld is None else evened(withheld)
        noted = dataclasses.replace(noted, notes=(*noted.notes, EVENED))
    return noted, dataclasses.replace(judged, images=images, withheld=withheld)


def _filled(kspace: KSpace, images: ImageSeries, settings: ReconSettings) -> tuple[KSpace, ImageSeries]:
    method = settings.partial_fourier
    if method == "zero":
        return kspace, images
    try:
        filled = fill_partial_fourier(images, covered_part(kspace.mask, kspace.sampling), method=method)
    except UnsupportedScan as error:
        note = f"missing side of k-space left zero: {error}"
    else:
        if filled is images:
            return kspace, images
        images, note = filled, f"missing side of k-space filled by {method}, not measured"
    return dataclasses.replace(kspace, notes=(*kspace.notes, note)), images
