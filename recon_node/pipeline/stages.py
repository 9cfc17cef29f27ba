"""The way of the data, stage by stage, as functions that can be read from top to bottom.

No threads, sockets or queues here: the gadget, the MRD server, replay, training and tests all use this.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from recon_node.coils import espirit, placed
from recon_node.core.errors import CalibrationError, UnsupportedScan
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, Prompts, TextEmbedding, Verdict
from recon_node.images import covered_part, fill_partial_fourier, finish
from recon_node.methods.registry import Methods, make_methods
from recon_node.prompts import build_prompts, embed
from recon_node.settings import CoilSettings, Settings
from recon_node.solvers.device import on_device
from recon_node.trust import judge_reconstruction

T = TypeVar("T")
USUAL_THRESHOLD = 0.02
"""Of the calibration's singular values, where the noise level is not known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """Everything known about one reconstructed slice."""

    kspace: KSpace
    maps: CoilMaps
    prompts: Prompts
    images: ImageSeries
    """At the recon matrix, made by the method that the verdict lets stand."""
    verdict: Verdict
    validated: bool = False
    """Whether the weights were validated for clinical use."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage."""


def coil_maps(kspace: KSpace, settings: CoilSettings | None = None, *, device: str = "cpu") -> CoilMaps:
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
        raise CalibrationError(
            f"slice {kspace.index.slice}: found no fully sampled calibration (ACS) lines, expected at "
            f"least {options.kernel}: acquire them, or send a separate calibration scan"
        )
    calibration = kspace.calibration
    return on_device(
        device,
        lambda place: espirit(
            placed(calibration, place),
            kspace.data.shape[-2:],
            kernel=options.kernel,
            threshold=_threshold(kspace, options),
            maps=options.maps,
            crop=options.crop,
            soft=options.soft,
            noise_std=kspace.calibration_noise or 1.0,
        ),
    )


def _threshold(kspace: KSpace, options: CoilSettings) -> float | Literal["auto"]:
    """The automatic threshold needs to know the noise; the usual one where it is not known."""
    known = options.threshold != "auto" or kspace.calibration_noise is not None
    return options.threshold if known else USUAL_THRESHOLD


class Pipeline:
    """The stages from k-space to images, with the networks loaded once.

    Parameters
    ----------
    settings : Settings
        The whole tree.

    Raises
    ------
    WeightsError
        At once, where the method's weights or their text encoder are missing.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.methods: Methods = make_methods(self.settings.recon)

    def run(self, kspace: KSpace, *, prepared_s: float | None = None) -> Reconstruction:
        """Images of one slice, and how far to believe them; `prepared_s` is what `kspace` took to make."""
        seconds: dict[str, float] = {} if prepared_s is None else {"prep": prepared_s}
        prompts = build_prompts(kspace.header, kspace.sampling, overrides=self.settings.prompts.overrides())
        maps = _timed("coils", seconds, lambda: self._maps(kspace))
        text = _timed("prompts", seconds, lambda: self._text(prompts))
        chosen = self.methods.chosen
        images = _timed("model", seconds, lambda: chosen.reconstruct(kspace, maps, text))
        images, verdict = _timed("trust", seconds, lambda: self._judged(kspace, maps, text, prompts, images))
        kspace, images = _timed("images", seconds, lambda: self._filled(kspace, images))
        shape = kspace.recon_shape or (kspace.data.shape[-2], kspace.data.shape[-1])
        finished = _timed("images", seconds, lambda: finish(images, shape=shape))
        return Reconstruction(
            kspace=kspace,
            maps=maps,
            prompts=prompts,
            images=finished,
            verdict=verdict,
            validated=self.methods.validated,
            seconds=seconds,
        )

    def _filled(self, kspace: KSpace, images: ImageSeries) -> tuple[KSpace, ImageSeries]:
        """The missing side of k-space filled where that is asked for, with a note of it."""
        method = self.settings.recon.partial_fourier
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

    def _maps(self, kspace: KSpace) -> CoilMaps:
        return coil_maps(kspace, self.settings.coils, device=self.settings.recon.device)

    def _text(self, prompts: Prompts) -> TextEmbedding | None:
        return None if self.methods.encoder is None else embed(prompts, self.methods.encoder)

    def _judged(
        self,
        kspace: KSpace,
        maps: CoilMaps,
        text: TextEmbedding | None,
        prompts: Prompts,
        images: ImageSeries,
    ) -> tuple[ImageSeries, Verdict]:
        """The images that may stand, with the verdict on them."""
        if not self.settings.recon.check_trust:
            return images, Verdict(verdict="warn", score=0.0, reasons=("trust was not checked",))
        chosen, fallback = self.methods.chosen, self.methods.fallback

        def stand_in(part: KSpace) -> ImageSeries:
            return fallback.reconstruct(part, maps, None)

        def again(part: KSpace) -> ImageSeries:
            return chosen.reconstruct(part, maps, text)

        verdict = judge_reconstruction(
            kspace,
            maps,
            images,
            prompts=prompts,
            reconstruct=stand_in if chosen.name == fallback.name else again,
            reference=stand_in,
            trained=self.methods.trained_on,
            limits=self.methods.limits,
            calibrated=self.methods.calibrated,
        )
        if verdict.verdict != "fallback":
            return images, verdict
        if self.methods.learned and self.settings.recon.on_distrust == "fallback":
            return stand_in(kspace), verdict
        return images, dataclasses.replace(verdict, verdict="warn")


def reconstruct(
    kspace: KSpace,
    *,
    method: str = "cardiomm",
    weights: str = "default",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    settings: Settings | None = None,
) -> ImageSeries:
    """Reconstruct one slice.

    Parameters
    ----------
    kspace : KSpace
        From `recon_node.open_scan`.
    method, weights, device
        As the settings of section ``recon``.
    settings : Settings, optional
        Everything else; defaults otherwise.

    Returns
    -------
    ImageSeries
        `(phase, y, x)` complex64 at the recon matrix. Where the trust check failed, `made_by.method` names
        the method that stands in.

    Raises
    ------
    ReconNodeError
        No calibration lines, weights missing, data that cannot be.
    """
    chosen = (settings or Settings()).replace("recon", method=method, weights=weights, device=device)
    return Pipeline(chosen).run(kspace).images


def _timed(stage: str, seconds: dict[str, float], work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
    return result
