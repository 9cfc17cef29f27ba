"""A method that made a slice's images, to be asked again for parts of that slice by the trust check."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from recon_node.core.protocols import Reconstructor
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.iterative import settled
from recon_node.trust.decimation import decimated_images, decimated_maps
from recon_node.trust.heldout_errors import ByColumns
from recon_node.trust.window import images_within, maps_within


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedAgain(ByColumns):
    """A method as a function of k-space alone (`recon_node.trust.heldout_errors.ByColumns`)."""

    method: Reconstructor
    maps: CoilMaps
    text: TextEmbedding | None = None
    images: ImageSeries | None = None
    """What it made of the slice; None where it made nothing yet."""

    @property
    def columns(self) -> int | None:
        """See `recon_node.methods.iterative.Iterative.columns`."""
        found: int | None = getattr(self.method, "columns", None)
        return found

    @property
    def narrow(self) -> bool:
        """See `recon_node.methods.iterative.Iterative.narrow`; not a method that says nothing of it."""
        return bool(getattr(self.method, "narrow", False))

    def __call__(self, kspace: KSpace) -> ImageSeries:
        """Images of phases of the slice, or of some of their samples."""
        method = self.method if self.images is None else settled(self.method, self.images)
        return method.reconstruct(kspace, self.maps, self.text)

    def decimated(self, step: int) -> Self:
        """The same for every `step`-th column of the image."""
        images = None if self.images is None else decimated_images(self.images, step)
        return replace(self, maps=decimated_maps(self.maps, step), images=images)

    def within(self, window: slice) -> Self:
        """The same for these columns of the image."""
        images = None if self.images is None else images_within(self.images, window)
        return replace(self, maps=maps_within(self.maps, window), images=images)
