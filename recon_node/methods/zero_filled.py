"""Zero-filled reconstruction: what the measured samples alone say."""

from __future__ import annotations

import numpy as np

from recon_node.coils import combine_sets
from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.record import classical
from recon_node.methods.series import check, series


class ZeroFilled:
    """Inverse Fourier transform of the zero-filled k-space, coils combined.

    With maps the combination is ``sum over coils of conj(map) * image`` (map sets joined), without
    them the root sum of squares (then the images are real and positive).
    """

    name = "zero-filled"

    def reconstruct(
        self, kspace: KSpace, maps: CoilMaps | None, text: TextEmbedding | None = None
    ) -> ImageSeries:
        """Images `(phase, y, x)` on the grid of `kspace`; `text` is ignored.

        Raises
        ------
        DataError
            See `recon_node.methods.series.check`.
        """
        check(kspace, maps)
        sets = 1 if maps is None else len(maps.data)
        images = np.empty((len(kspace.data), sets, *kspace.data.shape[2:]), np.complex64)
        for phase, samples in enumerate(kspace.data):
            coil_images = centred_ifft(samples)
            if maps is None:
                images[phase, 0] = np.linalg.norm(coil_images, axis=0)
            else:
                images[phase] = combine_sets(coil_images, maps)
        return series(kspace, images, self.name, {"combination": "rss" if maps is None else "maps"})


METHOD = classical(
    "zero-filled",
    "The measured samples alone; aliasing stays.",
    lambda device: ZeroFilled(),
    label="Zero-filled",
)
