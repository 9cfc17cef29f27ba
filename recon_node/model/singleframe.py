"""The published network as its own pipelines run it: frame by frame, with coil maps of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recon_node.core.errors import DataError
from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import CardioMMConfig
from recon_node.model.consistency import Physics
from recon_node.model.sensitivity import AcsRule

PUBLISHED_ACS = 20
"""Calibration columns that the published pipelines take, in training and inference."""


def is_single_frame(config: CardioMMConfig) -> bool:
    """Whether a network is of the published kind: it learns its coil maps and sees one frame alone."""
    alone = config.frames == 1 and not config.temporal_mean and config.start == "zero-filled"
    return config.sensitivity is not None and alone


class PublishedCardioMM(nn.Module):
    """A published network, run as its own pipelines run it.

    Every item of a batch meets its own texts, also in the sensitivity network, so a batch equals its items
    run alone. No gradients are recorded unless ``requires_grad_()`` asks for them.

    Attributes
    ----------
    network : CardioMM
        The network itself.
    """

    def __init__(self, network: CardioMM) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        kspace: Tensor,
        mask: Tensor,
        text_meta: Tensor,
        text_us: Tensor,
        acs: int | Tensor = PUBLISHED_ACS,
        acs_rule: AcsRule = "columns",
        maps: Tensor | None = None,
    ) -> Tensor:
        """Reconstruct single frames.

        Parameters
        ----------
        kspace : Tensor
            `(batch, coil, row, column)` complex, rows along the readout, zero where not sampled. It is
            brought to the network's precision: complex64, or complex128 after ``double()``.
        mask : Tensor
            `(batch, row, column)` bool.
        text_meta, text_us : Tensor
            `(batch, feature)`, the text encoder's features before the heads.
        acs : int or Tensor
            Width of the calibration region; of a tensor the minimum; 0 finds it from each item's mask.
        acs_rule : {"columns", "square"}
            ``columns`` is what the published pipelines run, for radial data too.
        maps : Tensor, optional
            `(batch, coil, row, column)` coil maps to use instead of the learned ones.

        Returns
        -------
        Tensor
            `(batch, row, column)` float32, root sum of squares of the last k-space's coil images.

        Raises
        ------
        DataError
            On shapes or types that do not belong together, an unknown `acs_rule`, k-space that is not
            finite or all zero in an item, an item without a sampled point, or an image smaller than the
            network needs.
        ModelError
            Text features of another length than the network was made for.
        """
        _check_shapes(kspace, mask, maps, (text_meta, text_us), acs_rule)
        _check_content(kspace, mask)
        width = int(acs.min()) if isinstance(acs, Tensor) else int(acs)
        meta, us = self.network.embed(text_meta, text_us)
        coils = self.coil_images(kspace, mask, meta, us, acs=width, acs_rule=acs_rule, maps=maps)
        return coils.abs().square().sum(dim=1).sqrt()

    def coil_images(
        self,
        kspace: Tensor,
        mask: Tensor,
        meta: Tensor,
        us: Tensor,
        *,
        acs: int,
        acs_rule: AcsRule = "columns",
        maps: Tensor | None = None,
    ) -> Tensor:
        """Coil images of the last k-space, `(batch, coil, row, column)`.

        Parameters
        ----------
        meta, us : Tensor
            `(batch, text_size)` after the heads, or one row for all.
        kspace, mask, acs, acs_rule, maps
            As for `forward`, unchecked.
        """
        network = self.network
        kspace = kspace.to(network.phases[0].dc_weight.dtype.to_complex()) * mask.unsqueeze(1)
        if maps is None:
            maps = network.learned_maps(kspace, mask, meta, us, acs=acs, acs_rule=acs_rule)
        physics = Physics(maps.to(kspace.dtype), mask.unsqueeze(1))
        clip = kspace.unsqueeze(1)
        images = network.unroll(physics, physics.adjoint(clip), meta, us)
        return physics.coil_images(images, clip, network.phases[-1].dc_weight.abs()).squeeze(1)


def _check_shapes(
    kspace: Tensor, mask: Tensor, maps: Tensor | None, texts: tuple[Tensor, Tensor], acs_rule: str
) -> None:
    if kspace.ndim != 4 or not kspace.is_complex():
        raise DataError(
            f"k-space is {kspace.dtype} of shape {tuple(kspace.shape)}, "
            "expected complex (batch, coil, row, column)"
        )
    grid = (kspace.shape[0], *kspace.shape[2:])
    if mask.dtype != torch.bool or tuple(mask.shape) != grid:
        raise DataError(f"mask is {mask.dtype} of shape {tuple(mask.shape)}, expected bool {grid}")
    if maps is not None and maps.shape != kspace.shape:
        raise DataError(f"coil maps have shape {tuple(maps.shape)}, expected {tuple(kspace.shape)}")
    if any(len(text) != len(kspace) for text in texts):
        found = " and ".join(str(tuple(text.shape)) for text in texts)
        raise DataError(f"text features have shapes {found}, expected ({len(kspace)}, feature) each")
    if acs_rule not in ("columns", "square"):
        raise DataError(f"acs_rule is {acs_rule!r}, expected columns or square")


def _check_content(kspace: Tensor, mask: Tensor) -> None:
    if not bool(mask.flatten(1).any(dim=1).all()):
        raise DataError("the mask of an item is empty: no line of it was sampled")
    power = (kspace.abs() * mask.unsqueeze(1)).flatten(1).sum(dim=1)
    if not bool(torch.isfinite(power).all()):
        raise DataError("k-space holds NaN or infinite samples: check the raw data")
    if not bool((power > 0).all()):
        raise DataError("all samples of an item are zero: nothing was measured")
