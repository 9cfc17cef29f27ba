"""Networks that ought not to be believed: hardly trained ones, damaged ones, and one that invents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.lab.training import config as training
from recon_node.lab.training.loop import Run
from recon_node.methods.cardiomm import CardioMMReconstructor
from recon_node.methods.series import series
from recon_node.model import load_weights
from recon_node.trust.decimation import decimated_maps, fewer_columns
from recon_node.trust.heldout_errors import ByColumns
from recon_node.trust.window import maps_within

Reconstruct = Callable[[KSpace], ImageSeries]
_NULL_STEPS = 12
"""Of conjugate gradients, which take out of a detail what the samples would notice."""
_LEAST_HIDDEN = 0.02
"""Of the detail that has to be left to be made brighter: there is next to none in columns beside it."""


def network_of(role: str, weights: str, folder: Path) -> CardioMMReconstructor | None:
    """The network in this role; None for the method's own.

    Parameters
    ----------
    role : str
        Empty, ``young``, or ``damaged SPREAD``.
    weights : str
        Of the method under test, which the damaged ones are made from.
    folder : Path
        Keeps the young network, which is trained when it is first asked for.

    Raises
    ------
    WeightsError
        There are no such weights.
    """
    if not role:
        return None
    if role == "young":
        return CardioMMReconstructor(load_weights(str(_young(folder))), device="cpu")
    return _damaged(weights, float(role.split()[1]))


def inventing(reconstruct: Reconstruct, maps: CoilMaps, *, brightness: float, place: int) -> Inventing:
    """The same method with a detail in its images that the samples it was given cannot contradict.

    The detail is a patch of fine stripes, less what a least-squares fit of it to the samples finds.

    Parameters
    ----------
    reconstruct : callable
        The method.
    maps : CoilMaps
        Of the slice.
    brightness : float
        Of what is left of it, in units of the image's bright parts.
    place : int
        Decides where, and the grating's direction.
    """
    rng = np.random.default_rng(place)
    ny, nx = maps.support.shape
    y, x = np.mgrid[:ny, :nx].astype(np.float32)
    centre = (ny * rng.uniform(0.4, 0.6), nx * rng.uniform(0.4, 0.6))
    away = np.hypot(y - centre[0], x - centre[1])
    grating = np.cos(2 * np.pi * (y * rng.uniform(0.1, 0.3) + x * rng.uniform(-0.1, 0.1)))
    detail = np.exp(-((away / (0.12 * ny)) ** 2)) * grating * maps.support
    return Inventing(reconstruct=reconstruct, maps=maps, detail=detail, brightness=brightness)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inventing(ByColumns):
    """See `inventing`."""

    reconstruct: Reconstruct
    maps: CoilMaps
    detail: NDArray[np.float64]
    """`(y, x)`, at most 1."""
    brightness: float

    @property
    def columns(self) -> int | None:
        """Details are looked for in all columns."""
        return None

    @property
    def narrow(self) -> bool:
        """As the method."""
        return isinstance(self.reconstruct, ByColumns) and self.reconstruct.narrow

    def __call__(self, kspace: KSpace) -> ImageSeries:
        """Images with the detail."""
        images = self.reconstruct(kspace)
        top = float(np.quantile(np.abs(images.data), 0.98))
        wanted = (top * self.detail * np.exp(1j * np.angle(images.data))).astype(np.complex64)
        hidden = wanted - _noticed(wanted, kspace.mask, self.maps.data[0])
        hidden *= self.brightness * top / max(float(np.abs(hidden).max()), _LEAST_HIDDEN * top, 1e-30)
        return series(kspace, (images.data + hidden).astype(np.complex64), images.made_by.method, {})

    def decimated(self, step: int) -> Inventing:
        """For every `step`-th column."""
        return self._of(
            _by_columns(self.reconstruct).decimated(step),
            decimated_maps(self.maps, step),
            fewer_columns(self.detail, step),
        )

    def within(self, window: slice) -> Inventing:
        """For these columns."""
        return self._of(
            _by_columns(self.reconstruct).within(window),
            maps_within(self.maps, window),
            self.detail[:, window],
        )

    def _of(self, reconstruct: Reconstruct, maps: CoilMaps, detail: NDArray[np.float64]) -> Inventing:
        return replace(self, reconstruct=reconstruct, maps=maps, detail=detail)


def _by_columns(method: Reconstruct) -> ByColumns:
    if not isinstance(method, ByColumns):
        raise TypeError(f"{method!r} cannot be asked for some columns only")
    return method


def _noticed(
    images: NDArray[np.complex64], mask: NDArray[np.bool_], maps: NDArray[np.complex64]
) -> NDArray[np.complex64]:
    """The part of `images` `(phase, y, x)` that the samples determine: conjugate gradients from zero."""

    def normal(x: NDArray[np.complex64]) -> NDArray[np.complex64]:
        samples = centred_fft(maps * x[:, None]) * mask[:, None]
        return np.asarray(np.sum(maps.conj() * centred_ifft(samples), axis=1), np.complex64)

    residual = normal(images)
    found, direction = np.zeros_like(images), residual.copy()
    power = float(np.vdot(residual, residual).real)
    for _ in range(_NULL_STEPS):
        if power <= 0:
            break
        turned = normal(direction)
        step = power / max(float(np.vdot(direction, turned).real), 1e-30)
        found = found + np.float32(step) * direction
        residual = residual - np.float32(step) * turned
        now = float(np.vdot(residual, residual).real)
        direction = residual + np.float32(now / power) * direction
        power = now
    return np.asarray(found, np.complex64)


def _damaged(weights: str, spread: float) -> CardioMMReconstructor:
    loaded = load_weights(weights)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.net.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(spread * float(parameter.std()) * noise)
    return CardioMMReconstructor(loaded, device="cpu")


def _young(folder: Path) -> Path:
    """Weights of two minutes' training, made once."""
    made = folder / "young" / "young.safetensors"
    if made.exists():
        return made
    recipe = Path(training.__file__).parent / "recipes" / "young.toml"
    config = training.load_train_config(recipe, [f"run.out={made.parent}"])
    return Run(config, device="cpu").train()
