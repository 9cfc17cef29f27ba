"""View sharing: every frame borrows missing samples from its neighbours in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.coils import combine_sets
from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.record import classical
from recon_node.methods.series import check, series


class ViewSharing:
    """Missing samples taken from the nearest frames in time, then coils combined; nothing is learned."""

    name = "view-sharing"

    def reconstruct(self, kspace: KSpace, maps: CoilMaps, text: TextEmbedding | None = None) -> ImageSeries:
        """Images `(phase, y, x)` on the grid of `kspace`; `text` is ignored.

        Raises
        ------
        DataError
            See `recon_node.methods.series.check`.
        """
        check(kspace, maps)
        images = np.zeros((len(kspace.data), len(maps.data), *kspace.data.shape[2:]), np.complex64)
        for phase, coil_images in enumerate(_coil_images(share_views(kspace.data, kspace.mask))):
            images[phase] = combine_sets(coil_images, maps)
        return series(kspace, images, self.name, {})


def share_views(data: NDArray[np.complex64], mask: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """Fill every sample that is missing in a frame from the frames nearest in (cyclic) time.

    Where the frame before and the frame after are equally near, their mean is taken. Samples that no
    frame has stay zero.

    Parameters
    ----------
    data : ndarray
        `(phase, coil, ky, kx)` complex64, zero where not sampled.
    mask : ndarray
        `(phase, ky, kx)` bool.

    Returns
    -------
    ndarray
        `(phase, coil, ky, kx)` complex64.
    """
    phases = data.shape[0]
    filled = data.copy()
    have = mask.copy()
    for distance in range(1, phases // 2 + 1):
        for phase in range(phases):
            before, after = (phase - distance) % phases, (phase + distance) % phases
            weight = mask[before].astype(np.float32) + mask[after]
            rows, columns = np.nonzero((weight > 0) & ~have[phase])
            total = data[before][:, rows, columns] + data[after][:, rows, columns]
            filled[phase][:, rows, columns] = total / weight[rows, columns]
            have[phase][rows, columns] = True
    return filled


def _coil_images(kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
    images: NDArray[np.complex64] = np.stack([centred_ifft(frame) for frame in kspace])
    return images


METHOD = classical(
    "view-sharing",
    "Missing lines from the nearest frames; shows aliasing and motion.",
    lambda device: ViewSharing(),
    label="View sharing",
)
