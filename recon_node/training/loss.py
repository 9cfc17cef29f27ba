"""Losses on magnitude images."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from recon_node.core.errors import ConfigError


def ssim(image: Tensor, target: Tensor, *, window: int = 7, k1: float = 0.01, k2: float = 0.03) -> Tensor:
    """Structural similarity of magnitude images, mean over pixels and frames.

    Parameters
    ----------
    image, target : Tensor
        `(frame, row, column)` float32; the data range is each target frame's maximum.
    window : int
        Side of the uniform window.
    k1, k2 : float
        Stabilising constants of Wang et al., IEEE TIP 13(4), 2004, equation 13.

    Returns
    -------
    Tensor
        Scalar in (-1, 1].
    """
    x, y = image[:, None], target[:, None]
    data_range = target.amax(dim=(-2, -1))[:, None, None, None].clamp_min(1e-12)
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    mean_x, mean_y = functional.avg_pool2d(x, window, 1), functional.avg_pool2d(y, window, 1)
    unbiased = window**2 / (window**2 - 1)
    var_x = unbiased * (functional.avg_pool2d(x * x, window, 1) - mean_x**2)
    var_y = unbiased * (functional.avg_pool2d(y * y, window, 1) - mean_y**2)
    cov = unbiased * (functional.avg_pool2d(x * y, window, 1) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean()


def _normalised(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    scale = target.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    return image / scale, target / scale


def _l1(image: Tensor, target: Tensor) -> Tensor:
    return functional.l1_loss(*_normalised(image, target))


def _rms(image: Tensor, target: Tensor) -> Tensor:
    a, b = _normalised(image, target)
    return ((a - b) ** 2).mean(dim=(-2, -1)).add(1e-10).sqrt().mean()


def _decades(image: Tensor, target: Tensor) -> Tensor:
    a, b = _normalised(image, target)
    return ((a - b) ** 2).mean(dim=(-2, -1)).add(1e-8).log10().mean()


def _dissimilarity(image: Tensor, target: Tensor) -> Tensor:
    return 1 - ssim(image, target)


_TERMS = {"ssim": _dissimilarity, "l1": _l1, "rms": _rms, "log_mse": _decades}


def weighted_loss(terms: dict[str, float], image: Tensor, target: Tensor) -> Tensor:
    """Weighted sum of loss terms.

    Parameters
    ----------
    terms : dict
        Weight by name: ``ssim`` (one minus SSIM, the paper's), ``l1`` and ``rms`` (of images divided
        by the target frame's maximum), and ``log_mse`` (decimal logarithm of their mean squared error, a
        tenth of the PSNR: a decibel counts the same at every acceleration).
    image, target : Tensor
        `(frame, row, column)` float32 magnitudes.

    Raises
    ------
    ConfigError
        For a name that is not a loss term.
    """
    unknown = sorted(set(terms) - set(_TERMS))
    if unknown or not terms:
        raise ConfigError(f"loss: found {unknown or 'no terms'}, expected weights of {sorted(_TERMS)}")
    total = image.new_zeros(())
    for name, weight in terms.items():
        total = total + weight * _TERMS[name](image, target)
    return total
