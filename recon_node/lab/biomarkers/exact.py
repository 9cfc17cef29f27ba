"""The segmenter of drawn hearts: their contours are known, how much is blood the images say."""

from __future__ import annotations

import numpy as np

from recon_node.core.errors import DataError
from recon_node.lab.biomarkers.segmenters import F32, Segmentation, SliceImages
from recon_node.lab.evaluation.biomarkers import blood_share


class ExactRegion:
    """The outer contour is the drawing's; blood and muscle inside it are told apart by brightness.

    So it sees what undersampling does to the images, and nothing else: no network's mistakes. Papillary
    muscles count as muscle.
    """

    name = "exact"

    def segment(self, images: SliceImages) -> Segmentation:
        """Shares of cavity and wall; none where no pixel of the slice is mostly blood, or mostly wall.

        Raises
        ------
        DataError
            The images are not of a drawn heart.
        """
        truth = images.truth
        if truth is None:
            raise DataError(
                "segmenter exact knows drawn hearts only: choose another for real ones, for example acdc"
            )
        shape = images.images.shape
        try:
            share = blood_share(images.images, cavity=truth.cavity, wall=truth.wall)
        except DataError:
            nothing: F32 = np.zeros(shape, np.float32)
            return Segmentation(cavity=nothing, wall=nothing, pixel_mm=images.pixel_mm)
        inside = np.clip(truth.cavity + truth.wall, 0, 1)
        blood = np.minimum(share, inside).astype(np.float32)
        return Segmentation(cavity=blood, wall=(inside - blood).astype(np.float32), pixel_mm=images.pixel_mm)
