"""Fully sampled slices made undersampled, to see on a site's own data what a method loses.

The full data's reconstruction is the reference: coils combined with maps of the full calibration.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError, DataError
from recon_node.core.types import KSpace
from recon_node.images import finish
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.pipeline.stages import calibrate
from recon_node.prep import classify_sampling
from recon_node.settings import CoilSettings
from recon_node.simulate.masks import PATTERNS, draw_mask

ACS = 20
_FULL = 1.1
"""Effective acceleration up to which a slice counts as fully sampled."""


@dataclass(frozen=True, slots=True)
class Undersampling:
    """How much, and by which pattern."""

    acceleration: float
    pattern: str

    def __call__(self, kspace: KSpace) -> KSpace:
        """The slice with fewer lines, as a scan would have acquired it.

        Raises
        ------
        DataError
            The slice is not fully sampled.
        """
        found = kspace.sampling.effective_acceleration
        if found > _FULL:
            raise DataError(
                f"slice {kspace.index.slice}: is {found:.3g}x undersampled already, expected a fully sampled "
                "one for --undersample"
            )
        frames, _, rows, columns = kspace.data.shape
        seed = zlib.crc32(repr((kspace.index, self)).encode())
        drawn = draw_mask(
            self.pattern,
            self.acceleration,
            shape=(frames, rows, columns),
            acs=min(ACS, rows, columns),
            rng=np.random.default_rng(seed),
        )
        mask = drawn & kspace.mask
        note = f"undersampled {self.acceleration:g}x {self.pattern} afterwards: not as it was acquired"
        return dataclasses.replace(
            kspace,
            data=kspace.data * mask[:, None],
            mask=mask,
            sampling=classify_sampling(mask),
            calibration=_central(kspace.calibration),
            lines_found=int(mask.any(axis=2).sum()),
            notes=(*kspace.notes, note),
        )


def parse_undersampling(text: str) -> Undersampling:
    """``8x:random`` or ``8:random``.

    Raises
    ------
    ConfigError
        It is none.
    """
    factor, _, pattern = text.partition(":")
    try:
        acceleration = float(factor.rstrip("xX"))
    except ValueError:
        acceleration = 0.0
    whole = pattern != "uniform" or acceleration == int(acceleration)
    if pattern not in PATTERNS or not 1 <= acceleration <= 64 or not whole:
        raise ConfigError(
            f"undersample {text!r}: expected R:PATTERN such as 8x:random, R 1 to 64 (whole for uniform), "
            f"PATTERN one of {', '.join(PATTERNS)}"
        )
    return Undersampling(acceleration, pattern)


def reference_images(kspace: KSpace, settings: CoilSettings) -> NDArray[np.complex64]:
    """Images of all samples, `(phase, y, x)` at the recon matrix."""
    maps = calibrate(kspace, settings)
    images = ZeroFilled().reconstruct(kspace, maps, None)
    shape = kspace.recon_shape or (kspace.data.shape[-2], kspace.data.shape[-1])
    return finish(images, shape=shape).data


def _central(calibration: NDArray[np.complex64] | None) -> NDArray[np.complex64] | None:
    """No more calibration than the undersampled scan would have had."""
    if calibration is None:
        return None
    rows, columns = calibration.shape[1:]
    top, left = max(0, rows // 2 - ACS // 2), max(0, columns // 2 - max(ACS, 24) // 2)
    return calibration[:, top : top + ACS, left : left + max(ACS, 24)]
