"""The preliminary image of one frame: SENSE with coil maps of what has come so far."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.scan import SliceIndex
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.images import finish
from recon_node.methods.sense import Sense
from recon_node.pipeline.frames.lines import FrameLines
from recon_node.pipeline.frames.window import WINDOW
from recon_node.pipeline.scan import compressed
from recon_node.pipeline.stages import calibrate
from recon_node.prep import compress_coils
from recon_node.settings import Settings

_KEPT = 16
"""Slices whose coil maps are kept."""


@dataclass(slots=True, kw_only=True)
class _Calibrated:
    """What serves several frames of a slice."""

    calibration: NDArray[np.complex64]
    """`(coil, ay, ax)`, before coils were compressed."""
    coils: int
    """Virtual ones."""
    maps: CoilMaps
    sense: Sense | None = None
    """With the weight that the first frame took: finding one takes longer than the frame's image."""
    frames: int = 0
    """That it has served."""


class FrameMaker:
    """Makes the images of frames, on the CPU; coil maps and SENSE's weight serve several frames.

    They are made anew where more lines around the centre have come, and every `WINDOW` frames where no lines
    are flagged as calibration.

    Parameters
    ----------
    settings : Settings
        Sections ``prep`` and ``coils``.
    """

    def __init__(self, settings: Settings) -> None:
        self._prep = settings.prep
        self._coils = settings.coils
        self._sense = Sense(device="cpu")
        self._known: OrderedDict[SliceIndex, _Calibrated] = OrderedDict()

    def make(self, frame: FrameLines) -> ImageSeries | None:
        """The image `(1, y, x)` at the recon matrix; None where too few lines calibrate by now.

        Raises
        ------
        ReconNodeError
            The frame cannot be reconstructed.
        """
        kspace = frame.kspace()
        series = replace(frame.index, repetition=0)
        known = self._known.get(series)
        block = kspace.calibration
        if known is None and block is None:
            return None
        if block is not None and (known is None or _outdated(known, block, frame)):
            known = self._known[series] = self._calibrated(kspace, block)
        assert known is not None  # noqa: S101 - for the type checker
        self._known.move_to_end(series)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        images = (known.sense or self._sense).reconstruct(self._compressed(kspace, known), known.maps)
        known.sense = self._sense.like(images)
        known.frames += 1
        return finish(images, shape=kspace.recon_shape or kspace.data.shape[-2:])

    def _calibrated(self, kspace: KSpace, block: NDArray[np.complex64]) -> _Calibrated:
        virtual = compressed(kspace, self._prep)
        return _Calibrated(
            calibration=block, coils=virtual.data.shape[1], maps=calibrate(virtual, self._coils)
        )

    def _compressed(self, kspace: KSpace, known: _Calibrated) -> KSpace:
        """To the virtual coils that the maps are of."""
        if known.coils == kspace.data.shape[1] or self._prep.compression == "none":
            return kspace
        same = replace(kspace, calibration=known.calibration)
        return compress_coils(same, known.coils, method=self._prep.compression)


def _outdated(known: _Calibrated, block: NDArray[np.complex64], frame: FrameLines) -> bool:
    """Whether the calibration block has grown; or, where it moves with the window, has served long enough."""
    old = known.frames >= WINDOW and frame.reference is None
    return old or block.size > known.calibration.size
