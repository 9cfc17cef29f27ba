"""Which reconstructor a method's name stands for, and the text encoder it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon_node.core.errors import WeightsError
from recon_node.core.protocols import Reconstructor, TextEncoder
from recon_node.methods.cardiomm import CardioMMReconstructor
from recon_node.methods.kt import KtSparse
from recon_node.methods.l1_wavelet import L1Wavelet
from recon_node.methods.sense import Sense
from recon_node.methods.view_sharing import ViewSharing
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.model import LoadedWeights, load_weights
from recon_node.model.weights import find_weights
from recon_node.prompts import load_encoder
from recon_node.settings import Method, ReconSettings
from recon_node.trust import Limits, TrainedOn, load_limits

LIMITS_SUFFIX = ".limits.json"
"""Beside a weights file: its calibrated trust limits."""
_COVERED = {"modality": "modalities", "pattern": "patterns"}
"""Prompt slot to the key of the training data's settings that lists its words."""

CLASSICAL = {
    "kt": KtSparse,
    "l1-wavelet": L1Wavelet,
    "sense": Sense,
}
WITHOUT_DEVICE: dict[str, type[ViewSharing | ZeroFilled]] = {
    "view-sharing": ViewSharing,
    "zero-filled": ZeroFilled,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Methods:
    """The method that was asked for, and the one that stands in for it."""

    chosen: Reconstructor
    fallback: Reconstructor
    encoder: TextEncoder | None = None
    weights: LoadedWeights | None = None
    limits: Limits | None = None
    """Trust limits calibrated for these weights; the defaults where there are none."""

    @property
    def validated(self) -> bool:
        """Whether the weights say they were validated for clinical use."""
        return self.weights is not None and self.weights.card.get("validated") is True

    @property
    def trained_on(self) -> TrainedOn | None:
        """What the weights' training data covered, as far as their card says."""
        training = {} if self.weights is None else self.weights.card.get("training", {}).get("data", {})
        if not training:
            return None
        words = {slot: frozenset(training[key]) for slot, key in _COVERED.items() if training.get(key)}
        return TrainedOn(max_acceleration=max(training["accelerations"]), words=words)


def make_methods(settings: ReconSettings, *, limits: bool = True) -> Methods:
    """Load what the settings ask for, once.

    Parameters
    ----------
    settings : ReconSettings
        Method, weights, device and the rest.
    limits : bool
        Whether to read the trust limits beside the weights.

    Raises
    ------
    WeightsError
        Weights missing or damaged, made for another text encoder than the one at hand, or with trust limits
        of other weights beside them.
    """
    fallback = classical(settings.fallback, settings)
    if settings.method != "cardiomm":
        return Methods(chosen=classical(settings.method, settings), fallback=fallback)
    weights = load_weights(settings.weights)
    folder = None if settings.encoder_folder is None else Path(settings.encoder_folder)
    encoder = load_encoder(weights.encoder, folder=folder)
    if weights.encoder_sha256 not in (None, encoder.sha256):
        raise WeightsError(
            f"weights {weights.name} were trained with text encoder {weights.encoder} "
            f"{weights.encoder_sha256}, found {encoder.sha256}: use the encoder they were trained with"
        )
    chosen = CardioMMReconstructor(
        weights,
        device=settings.device,
        threads=settings.threads,
        chunk=settings.chunk,
        precision=settings.precision,
        compile=settings.compile,
        coil_maps=settings.coil_maps,
    )
    return Methods(
        chosen=chosen,
        fallback=fallback,
        encoder=encoder,
        weights=weights,
        limits=_limits(settings.weights, weights) if limits else None,
    )


def limits_file(weights: str) -> Path:
    """Where the trust limits of weights lie, whether or not they do."""
    return find_weights(weights).with_suffix(LIMITS_SUFFIX)


def _limits(name: str, weights: LoadedWeights) -> Limits | None:
    path = limits_file(name)
    if not path.exists():
        return None
    limits = load_limits(path)
    if limits.weights_sha256 not in (None, weights.sha256):
        raise WeightsError(
            f"{path} holds the trust limits of other weights ({limits.weights_sha256}, found "
            f"{weights.sha256}): make new ones with `recon-node weights calibrate {name}`, or remove it"
        )
    return limits


def classical(method: Method, settings: ReconSettings) -> Reconstructor:
    """A reconstructor that needs no weights."""
    if method in WITHOUT_DEVICE:
        return WITHOUT_DEVICE[method]()
    made: Reconstructor = CLASSICAL[method](device=settings.device)
    return made
