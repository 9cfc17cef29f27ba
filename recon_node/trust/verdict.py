"""From measures to a verdict, with its reasons in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from recon_node.core.choices import Believed
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, Prompts, Verdict
from recon_node.trust.calibration import groups_of
from recon_node.trust.heldout_errors import Reconstruct
from recon_node.trust.limits import DEFAULTS, Limit, Limits
from recon_node.trust.measures import MEASURES, Measures, measure
from recon_node.trust.novelty import TrainedOn, novelty, words_of
from recon_node.trust.prediction import knows_all_sets
from recon_node.trust.stamps import order_doubts

_SAYS = {
    "heldout_ratio": "held-out lines are predicted {value:.2f} times as badly as by parallel imaging",
    "heldout_share": "of held-out lines {percent:.0f} % are missed, almost as if nothing were known of them",
    "offgrid_ratio": "calibration lines it was not given are predicted {value:.1f} times as badly as by "
    "parallel imaging",
    "fit_ratio": "measured lines are missed {value:.2f} times as far as by parallel imaging",
    "consistency": "the image misses {percent:.0f} % of the measured signal",
    "consistency_noise": "the image misses measured samples by {value:.1f} times the noise",
    "map_residual": "the coil maps miss {percent:.0f} % of the calibration signal",
    "peak_ratio": "image brightness is off by a factor of {value:.1f}",
    "coil_gain": "one coil's signal is off by {percent:.0f} % in a part of the scan",
    "line_gain": "one line is off by {percent:.0f} % from what the image predicts: lost, or another gain",
    "noise_mismatch": "what the image misses of one coil is {value:.1f} times off the noise of the scan",
    "spike": "a sample holds {value:.0f} times the unexplained energy of its like: a spike",
    "disorder": "another order of the phases would be {value:.2f} times smoother: wrong triggers, or motion",
    "folded": "in {percent:.0f} % of the object two signals lie over each other: folded from outside the "
    "field of view, or moved from line to line",
    "noise_share": "at this acceleration noise alone is {percent:.0f} % of the brightness of bright parts",
    "own_residual": "the coil maps miss {percent:.0f} % of the scan's own centre in a part of it",
}
_SAYS["predicted_nmse"] = (
    "the error of held-out lines leads to expect that {percent:.1f} % of the image's energy is wrong"
)
_SAYS["moved"] = "without the held-out lines {percent:.1f} % of the image's energy would be elsewhere"
_SAYS["likely_nmse"] = (
    "held-out lines, and how far the image moves without them, lead to expect that {percent:.2g} % of its "
    "energy is wrong"
)
_UNFAMILIAR_SCORE = 0.5
ZERO_FILLED = "zero-filled"
UNCALIBRATED = "no trust limits of its own: the defaults warn of what is wrong, but vouch for nothing"
FULL_ENOUGH = 1.2
"""Acceleration up to which a zero-filled image may pass."""
FOLDED_SHARE = 0.02
"""Of the object into which signal may seem to fold: where nothing does, up to 0.01 was seen."""


def judge(
    measures: Measures,
    limits: Mapping[str, Limit] = DEFAULTS,
    *,
    unfamiliar: Sequence[str] = (),
) -> Verdict:
    """How far an image with these measures is to be believed.

    Parameters
    ----------
    measures : Measures
        Taken by `measure`.
    limits : Mapping[str, Limit]
        By measure; of the scan's group (`Limits.of`).
    unfamiliar : sequence of str
        What the network never saw in training (`novelty`); each lets the verdict be no better than ``warn``.

    Returns
    -------
    Verdict
        ``fallback`` where a measure is beyond its fallback limit or the image is not finite, ``warn``
        where one is beyond its warning limit or something is unfamiliar, else ``pass``. The score is
        that of the worst measure.
    """
    if not measures.finite:
        return Verdict(verdict="fallback", score=0.0, reasons=("the image holds values that are no numbers",))
    worst: Believed = "warn" if unfamiliar else "pass"
    score = _UNFAMILIAR_SCORE if unfamiliar else 1.0
    reasons = []
    for name in MEASURES:
        value, limit = getattr(measures, name), limits.get(name)
        if value is None or limit is None:
            continue
        score = min(score, limit.score(value))
        if value > limit.warn:
            reasons.append(_sentence(name, value, limit))
            beyond = value > limit.fallback
            worst = "fallback" if beyond or worst == "fallback" else "warn"
    return Verdict(verdict=worst, score=score, reasons=(*reasons, *unfamiliar))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standards:
    """What a method's images are held to."""

    trained: TrainedOn = field(default_factory=TrainedOn)
    """What its training data covered, as far as anybody says."""
    limits: Limits = field(default_factory=Limits)
    """Calibrated with its weights; the defaults otherwise."""
    calibrated: bool = True
    """Whether a pass means something: not for a network, or a method of somebody else's, that has no limits
    of its own. It is warned of, however well it measures."""


def judge_reconstruction(
    kspace: KSpace,
    maps: CoilMaps,
    images: ImageSeries,
    *,
    prompts: Prompts,
    standards: Standards = Standards(),
    reconstruct: Reconstruct | None = None,
    reference: Reconstruct | None = None,
    frames: int = 5,
    seed: int = 0,
) -> Verdict:
    """Measure a reconstruction and judge it by the limits of its modality and acceleration.

    Parameters
    ----------
    kspace, maps, images, reconstruct, reference, frames, seed
        See `recon_node.trust.measure`.
    prompts : Prompts
        Of this scan; they name the group of limits.
    standards : Standards
        Of the method that made the images.

    Returns
    -------
    Verdict
    """
    measures = measure(
        kspace, maps, images, reconstruct=reconstruct, reference=reference, frames=frames, seed=seed
    )
    return judge_measures(measures, kspace, maps, images, prompts=prompts, standards=standards)


def judge_measures(
    measures: Measures,
    kspace: KSpace,
    maps: CoilMaps,
    images: ImageSeries,
    *,
    prompts: Prompts,
    standards: Standards = Standards(),
) -> Verdict:
    """As `judge_reconstruction`, of measures taken before."""
    doubts = doubts_of(kspace, maps, images, prompts=prompts, standards=standards)
    table, groups = standards.limits, groups_of(prompts, kspace.sampling)
    verdict = replace(judge(measures, table.of(*groups), unfamiliar=doubts), error_map=measures.error_map)
    within = judge(measures, table.of(*groups)).verdict == "pass"  # bounds were measured on such scans alone
    if table.errors is None or not standards.calibrated or not within:
        return verdict
    return replace(verdict, expected=table.errors.expect(measures, groups))


def doubts_of(
    kspace: KSpace,
    maps: CoilMaps,
    images: ImageSeries,
    *,
    prompts: Prompts,
    standards: Standards = Standards(),
) -> list[str]:
    """What keeps a scan from ``pass`` whatever it measures, a sentence each; see `judge_reconstruction`."""
    doubts = list(novelty(prompts, kspace.sampling, standards.trained))
    pattern = kspace.sampling.pattern
    if standards.limits.weak_patterns & {pattern, f"{pattern} {words_of(prompts).get('acceleration')}"}:
        doubts.append(f"on {pattern} sampling these weights measured below parallel imaging")
    if not standards.calibrated:
        doubts.append(UNCALIBRATED)
    if not kspace.geometry.verified:
        doubts.append("the orientation of this vendor's data is not verified: the image may be mirrored")
    found = [*_wrapped(maps, images), *_unfilled(kspace, images), *order_doubts(kspace)]
    return [*doubts, *found, *kspace.doubts]


def _wrapped(maps: CoilMaps, images: ImageSeries) -> list[str]:
    """What is to be said of an object larger than the field of view, and of a second set of maps for it."""
    if maps.folded is None or maps.folded <= FOLDED_SHARE:
        return []
    where = f"signal from outside the field of view folds into {maps.folded:.0%} of the object"
    if len(maps.data) == 1:
        return [f"{where}: coils.maps = 2 (or auto) tells them apart"]
    if knows_all_sets(images, maps):
        return []
    return [f"{where}: method {images.made_by.method} knows one of {len(maps.data)} coil map sets only"]


def _unfilled(kspace: KSpace, images: ImageSeries) -> list[str]:
    """What is to be said where nothing filled in the samples that were left out."""
    skipped = kspace.sampling.acceleration
    if images.made_by.method != ZERO_FILLED or skipped <= FULL_ENOUGH:
        return []
    return [f"zero filling leaves the aliasing of {skipped:.1f}x undersampling in the image"]


def _sentence(name: str, value: float, limit: Limit) -> str:
    said = _SAYS[name].format(value=value, percent=100 * value)
    return f"{said} (limit {limit.warn:.2f})"


def doubt(measures: Measures, limits: Mapping[str, Limit] = DEFAULTS) -> float:
    """How far the worst measure is on its way to its warning limit, on a logarithmic scale.

    Returns
    -------
    float
        0 where every measure is usual, 1 where one is at its limit, larger beyond; infinite where the image
        is not finite. Unlike the score it has no end, so that images can be ordered by it.
    """
    if not measures.finite:
        return math.inf
    worst = 0.0
    for name in MEASURES:
        value, limit = getattr(measures, name), limits.get(name)
        if value is None or limit is None or value <= limit.typical or limit.typical <= 0:
            continue
        worst = max(worst, math.log(value / limit.typical) / max(math.log(limit.warn / limit.typical), 0.01))
    return worst
