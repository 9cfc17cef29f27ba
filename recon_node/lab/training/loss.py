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


def _dissimilarity(image: Tensor, target: Tensor) -> Tensor:
    return 1 - ssim(image, target)


def _relative_error(image: Tensor, target: Tensor, first: Tensor) -> Tensor:
    """Root mean square error of each frame over that of its first estimate (at least -80 dB)."""
    errors = [((a - target) ** 2).mean(dim=(-2, -1)) for a in (image, first)]
    floor = 1e-8 * target.amax(dim=(-2, -1)).square().clamp_min(1e-24)
    return ((errors[0] + floor) / (errors[1] + floor)).sqrt().mean()


def _within(image: Tensor, heart: Tensor) -> Tensor:
    """The part of `(frame, row, column)` around the heart."""
    top, bottom, left, right = (int(edge) for edge in heart)
    return image[:, top:bottom, left:right]


_TERMS = {"ssim": _dissimilarity, "l1": _l1, "rms": _rms}


def weighted_loss(
    terms: dict[str, float],
    image: Tensor,
    target: Tensor,
    first: Tensor | None = None,
    *,
    heart: Tensor | None = None,
) -> Tensor:
    """Weighted sum of loss terms.

    Parameters
    ----------
    terms : dict
        Weight by name: ``ssim`` (one minus SSIM, the paper's), ``l1`` and ``rms`` (of images divided
        by the target frame's maximum), and ``relative`` (root mean square error over the first estimate's:
        a gain of one decibel counts the same at every acceleration), and the same within the `heart`:
        ``heart`` and ``heart_ssim``.
    image, target : Tensor
        `(frame, row, column)` float32 magnitudes.
    first : Tensor, optional
        The same of the network's first estimate, for ``relative`` and ``heart``.
    heart : Tensor, optional
        First and last row, first and last column around the heart; without it, its terms are left out.

    Raises
    ------
    ConfigError
        For a name that is not a loss term, or ``relative`` without a first estimate.
    """
    known = [*_TERMS, *_OF_FIRST, "heart_ssim"]
    unknown = sorted(set(terms) - set(known))
    if unknown or not terms:
        raise ConfigError(f"loss: found {unknown or 'no terms'}, expected weights of {known}")
    total = image.new_zeros(())
    for name, weight in terms.items():
        if name.startswith("heart") and heart is None:
            continue
        total = total + weight * _term(name, image, target, first, heart)
    return total


_OF_FIRST = ("relative", "heart")


def _term(name: str, image: Tensor, target: Tensor, first: Tensor | None, heart: Tensor | None) -> Tensor:
    if name.startswith("heart") and heart is not None:
        image, target = _within(image, heart), _within(target, heart)
        first = None if first is None else _within(first, heart)
    if name in _OF_FIRST:
        if first is None:
            raise ConfigError(f'loss: "{name}" needs a network that starts from a k-t estimate')
        return _relative_error(image, target, first)
    return _TERMS[name.removeprefix("heart_")](image, target)
