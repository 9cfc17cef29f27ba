"""The prompted 3-level UNet, and the wrapper that normalises and pads around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon_node.model.blocks import (
    ChannelAttentionBlock,
    MetadataAdapter,
    Slope,
    UndersamplingPrompter,
    attention_blocks,
    conv,
    per_sample,
)
from recon_node.model.config import DEPTH, CardioMMConfig, UNetConfig

OPEN = 2.0
"""A gate is this far open, before its sigmoid, where the network says nothing."""


def upsampled(x: Tensor) -> Tensor:
    """Twice the size, bilinear with half-pixel centres."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class EncoderLevel(nn.Module):
    """Channel-attention blocks (their result is the skip), then a 3x3 stride-2 convolution with bias."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, reduction: int, slope: Slope | None, *, first: bool
    ) -> None:
        super().__init__()
        self.blocks = attention_blocks(inputs, blocks, reduction, slope, first_owns=first)
        self.down = conv(inputs, outputs, 3, stride=2, bias=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(n, inputs, y, x)` to (downsampled `(n, outputs, y/2, x/2)`, skip)."""
        skip = self.blocks(x)
        return self.down(skip), skip


class DecoderLevel(nn.Module):
    """Concatenate the prompt, attend, to the width of the level above, upsample, add the skip, attend."""

    def __init__(
        self,
        inputs: int,
        prompts: int,
        outputs: int,
        blocks: int,
        reduction: int,
        slope: Slope | None,
    ) -> None:
        super().__init__()
        self.blocks = attention_blocks(inputs + prompts, blocks, reduction, slope)
        self.reduce = conv(inputs + prompts, inputs, 1)
        self.widen = conv(inputs, outputs, 1)
        self.last = ChannelAttentionBlock(outputs, reduction, slope)

    def forward(self, x: Tensor, prompt: Tensor, skip: Tensor) -> Tensor:
        """Features `(n, inputs, y, x)`, prompt per item, skip `(n, outputs, 2y, 2x)` to the skip's shape."""
        prompt = per_sample(prompt, x.shape[0]).to(x.dtype, memory_format=torch.channels_last)
        attended = self.blocks(torch.cat([x, prompt], dim=1))
        out: Tensor = self.last(upsampled(functional.conv2d(attended, self._mixture())) + skip)
        return out

    def _mixture(self) -> Tensor:
        """Both convolutions of single pixels as one: what lies between them, bilinear, changes places."""
        both = self.widen.weight.flatten(1) @ self.reduce.weight.flatten(1)
        return both[:, :, None, None]


class PromptedUNet(nn.Module):
    """The UNet of one cascade: texts condition the decoder only.

    Parameters
    ----------
    widths : UNetConfig
        Features, prompts and number of blocks.
    config : CardioMMConfig
        Text sizes and switches.
    channels : int
        Input channels; the output has two (real, imaginary).
    slope : Slope, optional
        The slope shared by all blocks but the first and those of the metadata adapters.
    outputs : int, optional
        Output channels: two, or three for aligned frames, if None.
    """

    def __init__(
        self,
        widths: UNetConfig,
        config: CardioMMConfig,
        channels: int,
        slope: Slope | None,
        *,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        w, reduction = widths.widths, widths.reduction
        self.stem = conv(channels, w[0], 3)
        self.encoder = nn.ModuleList(
            EncoderLevel(w[i], w[i + 1], widths.encoder_blocks[i], reduction, slope, first=i == 0)
            for i in range(3)
        )
        self.skips = nn.ModuleList(
            attention_blocks(w[i], widths.skip_blocks[i], reduction, slope) for i in range(3)
        )
        self.bottleneck = attention_blocks(w[3], widths.bottleneck_blocks, reduction, slope)
        self.prompters = nn.ModuleList(
            UndersamplingPrompter(
                widths.prompts[i],
                widths.bank_sizes[i],
                widths.bank_components,
                config.text_size,
                text=config.undersampling_text,
                train_bank=config.train_bank,
            )
            for i in range(3)
        )
        self.decoder = nn.ModuleList(
            DecoderLevel(w[i + 1], widths.prompts[i], w[i], widths.decoder_blocks[i], reduction, slope)
            for i in range(3)
        )
        self.adapters = nn.ModuleList(
            MetadataAdapter(w[i], reduction, config.text_size, text=config.metadata_text) for i in range(3)
        )
        self.head = conv(w[0], outputs or (3 if config.aligned else 2), 5)

    def forward(self, x: Tensor, meta: Tensor, us: Tensor) -> Tensor:
        """Channels to two channels (three for aligned frames).

        Parameters
        ----------
        x : Tensor
            `(n, channels, y, x)`, sides multiples of 8; n is a multiple of the number of items, samples
            folded item by item.
        meta, us : Tensor
            `(item, text_size)` after the text heads.

        Returns
        -------
        Tensor
            `(n, 2, y, x)` or `(n, 3, y, x)`.
        """
        x = self.stem(x)
        skips = []
        for level in self.encoder:
            x, skip = level(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for i in (2, 1, 0):
            prompt = self.prompters[i](us, x.shape[-2:])
            x = self.decoder[i](x, prompt, self.skips[i](skips[i]))
            x = self.adapters[i](x, meta)
        out: Tensor = self.head(x)
        return out


class NormalisedUNet(nn.Module):
    """Complex images to a complex image through the UNet: mean and deviation, padding to multiples of 8.

    One mean and one unbiased deviation per sample over all channels and pixels; the images are normalised,
    then padded with zeros, and both steps are undone after the UNet.
    """

    def __init__(
        self,
        widths: UNetConfig,
        config: CardioMMConfig,
        images: int,
        slope: Slope | None,
        *,
        residual: bool,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.unet = PromptedUNet(widths, config, 2 * images, slope, outputs=4 if gated else None)
        self.gated = gated
        self.residual, self.blends = residual, config.aligned
        if residual:  # a new network changes nothing
            nn.init.zeros_(self.unet.head.weight)

    @staticmethod
    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unbiased standard deviation of each sample, `(n, 1, 1, 1)` each.

        The deviation is never 0: a dead coil's empty image stays an empty image.
        """
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        norm = torch.linalg.vector_norm(x - mean, dim=(1, 2, 3), keepdim=True)
        return mean, (norm / (x[0].numel() - 1) ** 0.5).clamp_min(torch.finfo(x.dtype).tiny)

    def forward(self, images: Tensor, meta: Tensor, us: Tensor, *, noise: float = 1.0) -> Tensor:
        """Make one image from several.

        Parameters
        ----------
        images : Tensor
            `(n, image, y, x)` complex; image 0 is the one to be made (a residual adds to it), the last one
            the mean of aligned frames where there is one.
        meta, us : Tensor
            `(item, text_size)`.
        noise : float
            Standard deviation of the noise in the units of the images; used with aligned frames only.

        Returns
        -------
        Tensor
            `(n, y, x)` complex; with a gate `(2, n, y, x)`, the image and how far to go to it (0 to 1).
        """
        if self.blends:
            return self._blended(images, meta, us, noise)
        x = planes(images)
        mean, deviation = self.statistics(x)
        x = (x - mean) / deviation
        out = self._padded(x, meta, us)
        if self.residual:
            out = out + x[:, :: images.shape[1]]
        out = out * deviation + mean
        return torch.complex(out[:, 0], out[:, 1])

    def _blended(self, images: Tensor, meta: Tensor, us: Tensor, noise: float) -> Tensor:
        """A correction in units of what is uncertain, shown differences in those units.

        Errors of a good first estimate are a thousandth of the image: normalised with the image they would
        drown in the rounding of half precision. The unit is noise and disagreement between frames together.
        """
        here = planes(images[:, :1])
        deviation = self.statistics(here)[1]
        others = images[:, 1:] - images[:, :1]
        towards = planes(others[:, -1:])
        unit = (noise**2 + 2 * towards.square().mean(dim=(1, 2, 3), keepdim=True)).sqrt()
        shown = torch.cat([here / deviation, asinh(planes(others) / unit)], dim=1)
        out = self._padded(shown, meta, us)
        made = here + torch.sigmoid(out[:, 2:3]) * towards + out[:, :2] * unit
        image = torch.complex(made[:, 0], made[:, 1])
        if not self.gated:
            return image
        return torch.stack([image, torch.sigmoid(out[:, 3] + OPEN).to(image.dtype)])

    def _padded(self, x: Tensor, meta: Tensor, us: Tensor) -> Tensor:
        """The UNet on `(n, channel, y, x)` padded with zeros to multiples of 8; the same size comes back."""
        return padded_call(self.unet, x, meta, us)


def padded_call(unet: nn.Module, x: Tensor, meta: Tensor, us: Tensor) -> Tensor:
    """A UNet on `(n, channel, y, x)` padded with zeros to multiples of 8; the same size comes back.

    It computes with numbers like its own parameters; what comes back is like `x`.
    """
    own = next(unet.parameters()).dtype
    height, width = x.shape[-2:]
    top, left = -height % DEPTH // 2, -width % DEPTH // 2
    bottom, right = -height % DEPTH - top, -width % DEPTH - left
    padded = functional.pad(x, (left, right, top, bottom))
    padded = padded.to(own).contiguous(memory_format=torch.channels_last)
    out: Tensor = unet(padded, meta.to(own), us.to(own)).to(x.dtype)
    return out[..., top : top + height, left : left + width]


def planes(images: Tensor) -> Tensor:
    """Complex `(n, image, y, x)` to `(n, 2 image, y, x)`: all real parts, then all imaginary ones."""
    return torch.cat([images.real, images.imag], dim=1)


_LARGE = 1e18
"""Whose square is a float32 still."""


def asinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine; without gradients by vectorised logarithms, several times as quick on CPUs."""
    if torch.is_grad_enabled():
        return torch.asinh(x)
    size = x.abs().clamp_max_(_LARGE)
    square = size * size
    grown = square.add(1).sqrt_().add_(1)
    return torch.copysign(square.div_(grown).add_(size).log1p_(), x)
