"""Maps to lay over the images of a slice: noise, SNR, errors to be expected, signal that is not explained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recon_node.methods.registry import title_of
from recon_node.pipeline.maps import map_of
from recon_node.pipeline.result import Reconstruction
from recon_node.report import Layer
from recon_node.report.content import white_of_image
from recon_node.trust.unexplained import unexplained_signal

_TOP_LEFT, _TOP_ERROR = 5.0, 10.0
_BRIGHT = 0.99
"""Share of the pixels below the bright end of the colours, where nothing else sets it."""


def layers_of(result: Reconstruction) -> list[Layer]:
    """What can be said pixel by pixel about one slice; maps that this slice cannot have are left out.

    Parameters
    ----------
    result : Reconstruction

    Returns
    -------
    list of Layer
    """
    return [*_expected(result), *_noise(result), *_unexplained(result)]


def _expected(result: Reconstruction) -> Iterator[Layer]:
    if result.verdict.error_map is None or result.verdict.verdict == "fallback":
        return
    found = map_of("expected-error", result)
    if found is not None:
        yield Layer(
            name="expected error",
            data=100 * np.abs(found.data[0]) / white_of_image(result.images.data),
            top=_TOP_ERROR,
            unit="% of full brightness",
            said="Where the images move when measured lines are held back: there the lines that nobody "
            "measured are missed, too.",
        )


def _noise(result: Reconstruction) -> Iterator[Layer]:
    """Exact where whole lines were sampled; elsewhere nobody knows it without many reconstructions."""
    mask, title = result.kspace.mask, title_of("sense")
    if not np.all(mask == mask[:, :, :1]):
        return
    g = map_of("g-factor", result)
    if g is not None:
        inside = np.where(np.abs(g.data[0]) > 0, np.abs(g.data[0]), np.nan)
        yield Layer(
            name=f"g-factor of {title}",
            of=title,
            data=inside,
            top=max(2.0, float(np.ceil(_bright(inside)))),
            said="How much noisier parallel imaging makes a pixel than its fewer samples alone, mean over "
            "phases. Below 1 regularisation smooths.",
        )
    ratio = map_of("snr", result) if result.kspace.whitened else None
    if ratio is not None:
        yield Layer(
            name=f"SNR at {title}'s noise",
            data=np.abs(ratio.data[0]),
            top=_bright(np.abs(ratio.data[0])),
            said=f"Mean magnitude over the standard deviation of the noise that {title} would leave.",
        )


def _unexplained(result: Reconstruction) -> Iterator[Layer]:
    kspace, images = result.kspace, result.images
    on_grid = images.data.shape == kspace.mask.shape
    if kspace.whitened and on_grid and len(result.maps.data) == 1:
        yield Layer(
            name="unexplained signal",
            data=unexplained_signal(images.data, kspace, result.maps),
            top=_TOP_LEFT,
            unit="times noise",
            said="Measured signal that the images do not explain, where it belongs; noise leaves 1 at most.",
        )


def _bright(values: NDArray[np.floating]) -> float:
    """A value that few pixels exceed."""
    known = values[np.isfinite(values) & (values > 0)]
    return float(np.quantile(known, _BRIGHT)) if known.size else 1.0
