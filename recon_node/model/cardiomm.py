"""CardioMM: unrolled text-aware de-aliasing and data consistency (arXiv 2512.21652).

Clips are processed whole. In each cascade the UNet sees, for every frame, the current estimates of that
frame and its neighbours, and makes that frame alone; data consistency then runs once per frame. With one
frame this is the published network; with more, the temporal field of view grows with every cascade at no
extra cost in data consistency.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as checkpointed

from recon_node.core.errors import DataError, ModelError
from recon_node.model.blocks import Slope
from recon_node.model.config import DEPTH, CardioMMConfig
from recon_node.model.consistency import Physics, time_average
from recon_node.model.motion import find_motion
from recon_node.model.sensitivity import AcsRule, SensitivityNet, acs_region, acs_width
from recon_node.model.unet import NormalisedUNet
from recon_node.model.view import View, frame_chunks
from recon_node.solvers.kt import kt_estimate

PROXIMAL_WEIGHT = 0.5
"""First weight of the UNet's images beside the data, where consistency is proximal."""
LARGEST_POWER = 4.0
"""That weight stays between ``exp(-4)`` and ``exp(4)``."""


class TextHead(nn.Module):
    """Text-encoder features to the vector that conditions the network.

    Centre and scale (statistics of the prompt catalogue, kept with the weights; 0 and 1 for CLIP), one
    linear layer, then unit length (``l2``) or the sign of each component (``sign``).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, size: int, *, sign: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, size)
        self.sign = sign

    def set_statistics(self, mean: Tensor, scale: Tensor) -> None:
        """Store centre and scale, `(feature,)` each; scale must be positive."""
        if mean.shape != self.mean.shape or scale.shape != self.scale.shape or bool((scale <= 0).any()):
            raise ModelError(
                f"text statistics have shapes {tuple(mean.shape)}, {tuple(scale.shape)}; expected "
                f"{tuple(self.mean.shape)} with a positive scale"
            )
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, text: Tensor) -> Tensor:
        """`(item, feature)` to `(item, size)`."""
        with torch.autocast(text.device.type, enabled=False):
            projected = self.linear((text.to(self.mean.dtype) - self.mean) / self.scale)
            if self.sign:  # normalising an axis of length one, as the published pipelines do
                return functional.normalize(projected.unsqueeze(-1), dim=-1).squeeze(-1)
            return functional.normalize(projected, dim=-1)


class Cascade(nn.Module):
    """One unrolled phase: a UNet and the weight of its data consistency.

    The published step has one learned number as its weight. The proximal step's depends on what both texts
    say: how far measured data is to be believed against the UNet is another matter at 24x than at 4x.
    """

    def __init__(self, config: CardioMMConfig, slope: Slope | None, *, gated: bool = False) -> None:
        super().__init__()
        images = config.channels // 2
        self.model = NormalisedUNet(config.unet, config, images, slope, residual=config.residual, gated=gated)
        self.proximal = config.consistency == "proximal"
        if not self.proximal:
            self.dc_weight = nn.Parameter(torch.ones(1))
        else:
            self.dc_linear = nn.Linear(2 * config.text_size, 1)
            nn.init.zeros_(self.dc_linear.weight)
            nn.init.constant_(self.dc_linear.bias, math.log(PROXIMAL_WEIGHT))

    def weight(self, meta: Tensor, us: Tensor) -> Tensor:
        """Weight of data consistency for texts `(item, text_size)`: `(1,)`, or `(item, 1, 1, 1)`."""
        if not self.proximal:
            return self.dc_weight.abs()
        with torch.autocast(meta.device.type, enabled=False):
            power: Tensor = self.dc_linear(torch.cat([meta, us], dim=1).to(self.dc_linear.weight.dtype))
            return power.clamp(-LARGEST_POWER, LARGEST_POWER).exp()[:, :, None, None]


class CardioMM(nn.Module):
    """The network.

    Parameters
    ----------
    config : CardioMMConfig
        Everything that decides the shapes.

    Attributes
    ----------
    checkpointing : bool
        Recompute each cascade in the backward pass instead of keeping its activations.
    """

    def __init__(self, config: CardioMMConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        slope = Slope() if config.shared_prelu else None
        sign = config.text_norm == "sign"
        self.metadata_head = (
            TextHead(config.text_features, config.text_size, sign=sign) if config.metadata_text else None
        )
        self.undersampling_head = (
            TextHead(config.text_features, config.text_size, sign=sign) if config.undersampling_text else None
        )
        self.sensitivity = (
            None if config.sensitivity is None else SensitivityNet(config.sensitivity, config, slope)
        )
        self.cascades = nn.ModuleList(
            Cascade(config, slope, gated=config.gate and place == config.cascades - 1)
            for place in range(config.cascades)
        )

    def embed(self, meta: Tensor, us: Tensor) -> tuple[Tensor, Tensor]:
        """Text-encoder features, `(item, text_features)` each, through the heads: `(item, text_size)` each.

        A variant that ignores a text gets zeros for it.

        Raises
        ------
        ModelError
            Where the features have another length than the network was made for.
        """
        vectors = []
        for name, head, text in (
            ("metadata", self.metadata_head, meta),
            ("undersampling", self.undersampling_head, us),
        ):
            if text.ndim != 2 or text.shape[1] != self.config.text_features:
                raise ModelError(
                    f"{name} text features have shape {tuple(text.shape)}, this network expects "
                    f"(item, {self.config.text_features}): use the text encoder it was trained with"
                )
            vectors.append(text.new_zeros(len(text), self.config.text_size) if head is None else head(text))
        return vectors[0], vectors[1]

    def forward(
        self,
        kspace: Tensor,
        mask: Tensor,
        meta: Tensor,
        us: Tensor,
        maps: Tensor | None = None,
        *,
        first: Tensor | None = None,
        motion: Tensor | None = None,
        periodic: bool = True,
        chunk: int | None = None,
        acs: int = 20,
        acs_rule: AcsRule = "columns",
    ) -> Tensor:
        """Reconstruct clips.

        Parameters
        ----------
        kspace : Tensor
            `(item, frame, coil, row, column)` complex64; rows along the readout, columns along the phase
            encoding.
        mask : Tensor
            `(item, frame, row, column)` bool, True where sampled.
        meta, us : Tensor
            `(item, text_features)`, the text encoder's features of the metadata and undersampling texts.
        maps : Tensor, optional
            `(item, coil, row, column)` coil maps; without them the learned ones are made.
        first : Tensor, optional
            `(item, frame, row, column)` first estimate, where it was made before (`kt_estimate`).
        motion : Tensor, optional
            `(item, frame, count, 2, row, column)` displacements (`find_motion` of the first estimate), where
            they were found before.
        periodic : bool
            Whether the last frame's neighbour is the first one (a cine), or itself.
        chunk : int, optional
            Frames that go through a UNet together: bounds the memory, changes nothing else.
        acs, acs_rule
            Calibration region of the learned maps, see `learned_maps`.

        Returns
        -------
        Tensor
            `(item, frame, row, column)` complex64 coil-combined images, in the units of the k-space.
        """
        meta, us = self.embed(meta, us)
        kspace = kspace * mask.unsqueeze(2)
        if maps is None:
            average, union = time_average(kspace, mask), mask.any(dim=1)
            maps = self.learned_maps(average, union, meta, us, acs=acs, acs_rule=acs_rule)
        physics = Physics(maps, mask)
        measured = physics.adjoint(kspace)
        if first is None and self.config.start == "kt":
            first = kt_estimate(kspace, mask, maps, self.config.kt)
        images = self.unroll(
            physics, measured, meta, us, first=first, motion=motion, periodic=periodic, chunk=chunk
        )
        return self.last_consistency(physics, images, measured, meta, us, first=first, chunk=chunk)

    @property
    def phases(self) -> list[Cascade]:
        """The cascades in order."""
        return [cascade for cascade in self.cascades if isinstance(cascade, Cascade)]

    def learned_maps(
        self, kspace: Tensor, mask: Tensor, meta: Tensor, us: Tensor, *, acs: int, acs_rule: AcsRule
    ) -> Tensor:
        """Coil maps from the calibration lines of the k-space.

        Parameters
        ----------
        kspace : Tensor
            `(item, coil, row, column)`.
        mask : Tensor
            `(item, row, column)` bool; looked at only where `acs` is 0.
        meta, us : Tensor
            `(item, text_size)` after the heads.
        acs : int
            Central columns (``columns``) or side of the central square (``square``); 0 counts the columns in
            the first row of each item's mask.
        acs_rule : {"columns", "square"}
            Published weights were made with ``columns`` for all patterns.

        Raises
        ------
        ModelError
            Where the network has no sensitivity network.
        DataError
            Where the region does not fit, or `acs` is 0 with the square rule.
        """
        if self.sensitivity is None:
            raise ModelError("these weights hold no sensitivity network: give coil maps (ESPIRiT)")
        if acs == 0 and acs_rule == "square":
            raise DataError("the width of a square calibration region is not found from the mask: give acs")
        calibration = torch.zeros_like(kspace)
        shape = (int(kspace.shape[-2]), int(kspace.shape[-1]))
        for item, rows in enumerate(mask):
            region = acs_region(shape, acs or acs_width(rows[0]), acs_rule)
            calibration[item][:, region[0], region[1]] = kspace[item][:, region[0], region[1]]
        maps: Tensor = self.sensitivity(calibration, meta, us)
        return maps

    def unroll(
        self,
        physics: Physics,
        measured: Tensor,
        meta: Tensor,
        us: Tensor,
        *,
        first: Tensor | None = None,
        motion: Tensor | None = None,
        noise: float = 1.0,
        periodic: bool = True,
        chunk: int | None = None,
        leave: int = 0,
    ) -> Tensor:
        """All cascades except the data consistency of the last one.

        Parameters
        ----------
        physics : Physics
            Maps and masks.
        measured : Tensor
            `(item, frame, row, column)`, ``A^H y``.
        meta, us : Tensor
            `(item, text_size)` after the heads.
        first : Tensor, optional
            `(item, frame, row, column)` first estimate (`kt_estimate`), where the configuration's `start` is
            not ``zero-filled``.
        motion : Tensor, optional
            As in `forward`.
        noise : float
            Standard deviation of the complex noise in the k-space.
        periodic, chunk
            As in `forward`.
        leave : int
            This many of the last cascades are not run.

        Returns
        -------
        Tensor
            `(item, frame, row, column)`: images of the last UNet; with a gate
            `(2, item, frame, row, column)`, the second being how far to go to them.

        Raises
        ------
        DataError
            Where the image is smaller than the depth of the UNet needs.
        """
        if min(measured.shape[-2:]) < DEPTH:
            raise DataError(
                f"the image is {measured.shape[-2]} x {measured.shape[-1]} pixels, this network needs at "
                f"least {DEPTH} x {DEPTH}: reconstruct it with another method"
            )
        images = self._first(measured, first)
        extra = images.mean(dim=1) if self.config.temporal_mean else None
        view = View(self.config, extra=extra, periodic=periodic, noise=noise)
        if self.config.aligned:
            view.motion = self._motion(images, periodic=periodic) if motion is None else motion
        phases = self.phases[: len(self.phases) - leave]
        for index, cascade in enumerate(phases):
            if index:
                weight = phases[index - 1].weight(meta, us)
                images = self._correct(physics, images, measured, weight, chunk)
            if self.checkpointing and torch.is_grad_enabled():
                images = checkpointed(
                    self._denoise, cascade.model, images, meta, us, view, chunk, use_reentrant=False
                )
            else:
                images = self._denoise(cascade.model, images, meta, us, view, chunk)
        return images

    def _motion(self, first: Tensor, *, periodic: bool) -> Tensor:
        return torch.stack([find_motion(clip, self.config.frames, periodic=periodic) for clip in first])

    def last_consistency(
        self,
        physics: Physics,
        images: Tensor,
        measured: Tensor,
        meta: Tensor,
        us: Tensor,
        *,
        first: Tensor | None = None,
        frames: slice = slice(None),
        chunk: int | None = None,
    ) -> Tensor:
        """Data consistency of the last cascade, and its gate: the reconstructed images.

        `images` is what `unroll` gave, of the given `frames` of the clip; the rest as for `unroll`.
        """
        weight = self.phases[-1].weight(meta, us)
        if not self.config.gate:
            return self._correct(physics, images, measured, weight, chunk)
        if first is None:
            raise ModelError("the gate of this network goes from a k-t estimate: give `first`")
        made, share = images
        if frames == slice(None):
            made = self._correct(physics, made, measured, weight, chunk)
        else:
            made = physics.proximal(made, measured[:, frames], weight, frames)
        start = first[:, frames]
        gated: Tensor = start + share.real * (made - start)
        return gated

    def _first(self, measured: Tensor, first: Tensor | None) -> Tensor:
        if self.config.start == "zero-filled":
            return measured
        if first is None:
            raise ModelError("this network starts from a k-t estimate: give `first`")
        return first

    def _denoise(
        self,
        model: NormalisedUNet,
        images: Tensor,
        meta: Tensor,
        us: Tensor,
        view: View,
        chunk: int | None,
    ) -> Tensor:
        parts = []
        for frames in frame_chunks(images.shape[1], chunk):
            seen = view.of(images, frames)
            made = model(seen.flatten(0, 1), meta, us, noise=view.noise)
            parts.append(made.unflatten(-3, seen.shape[:2]))
        return torch.cat(parts, dim=-3)

    def _correct(
        self, physics: Physics, images: Tensor, measured: Tensor, weight: Tensor, chunk: int | None
    ) -> Tensor:
        if self.config.consistency == "proximal" and physics.solves_exactly():
            return physics.exact_proximal(images, measured, weight)
        step: Callable[[Tensor, Tensor, Tensor, slice], Tensor] = (
            physics.consistent if self.config.consistency == "step" else physics.proximal
        )
        parts = [
            step(images[:, frames], measured[:, frames], weight, frames)
            for frames in frame_chunks(images.shape[1], chunk)
        ]
        return torch.cat(parts, dim=1)
