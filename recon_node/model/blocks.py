"""Building blocks of the prompted UNet: channel attention, undersampling prompter, metadata adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(inputs: int, outputs: int, size: int, *, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Convolution with zero padding ``size // 2``."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)


def per_sample(values: Tensor, samples: int) -> Tensor:
    """Repeat one row per item to one row per sample; samples are folded item by item.

    Coils or frames are folded into the batch as ``item * n + i``, so item 0's row comes n times, then
    item 1's: each sample meets its own item's text.
    """
    return values.repeat_interleave(samples // values.shape[0], dim=0)


def channel_means(x: Tensor) -> Tensor:
    """Mean over pixels: `(n, channel, y, x)` to `(n, channel, 1, 1)`; first over whole rows, as they lie."""
    rows = x.movedim(1, -1).flatten(2).mean(dim=1)
    return rows.view(len(x), x.shape[-1], -1).mean(dim=1)[:, :, None, None]


def by_row(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of each channel `(n, channel, 1, 1)` as a row `(n, channel, 1, x)` of features like `like`.

    What is repeated along rows only is added and multiplied up to ten times as quickly in half precision on
    CPUs, whose loops otherwise end after every pixel.
    """
    return values.expand(-1, -1, 1, like.shape[-1]).contiguous(memory_format=torch.channels_last)


class _PreluOnCpu(torch.autograd.Function):
    """PReLU with one slope whose backward pass is two vectorised sweeps.

    The library's own backward pass for a slope is several times slower on CPU (``benchmarks/network.py``).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return functional.leaky_relu(x, float(slope))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        to_x = torch.ops.aten.leaky_relu_backward(grads[0], x, float(slope), False)
        to_slope = (grads[0] * x.clamp_max(0)).sum(dtype=slope.dtype).reshape(1)
        return to_x, to_slope


class Slope(nn.PReLU):
    """PReLU with one slope for all channels (starts at 0.25)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if x.device.type == "cpu" and torch.is_grad_enabled():
            apply: Callable[..., Tensor] = _PreluOnCpu.apply
            return apply(x, self.weight)
        return functional.prelu(x, self.weight.to(x.dtype))


class ChannelAttentionBlock(nn.Module):
    """conv3x3, PReLU, conv3x3, channel attention, plus identity (the paper's CAB).

    Channel attention: mean over pixels, 1x1 down by `reduction`, ReLU, 1x1 up, sigmoid, multiply.

    Parameters
    ----------
    channels : int
        Features in and out.
    reduction : int
        The attention squeezes to ``channels // reduction`` (at least 1).
    slope : Slope, optional
        An activation shared with other blocks; by default the block owns one.
    """

    def __init__(self, channels: int, reduction: int, slope: Slope | None = None) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3)
        self.slope = Slope() if slope is None else slope
        self.conv2 = conv(channels, channels, 3)
        squeezed = max(1, channels // reduction)
        self.squeeze = conv(channels, squeezed, 1)
        self.excite = conv(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, y, x)` to the same shape."""
        features = self.conv2(self.slope(self.conv1(x)))
        weight = torch.sigmoid(self.excite(functional.relu(self.squeeze(channel_means(features)))))
        out: Tensor = torch.addcmul(x, features, by_row(weight, x))
        return out


def attention_blocks(
    channels: int, count: int, reduction: int, slope: Slope | None, *, first_owns: bool = False
) -> nn.Sequential:
    """`count` channel-attention blocks in a row; `first_owns` gives the first its own slope."""
    return nn.Sequential(
        *(
            ChannelAttentionBlock(channels, reduction, None if first_owns and index == 0 else slope)
            for index in range(count)
        )
    )


class TextLinear(nn.Module):
    """A linear layer on a text vector, or, for a network that ignores the text, its bias alone."""

    def __init__(self, text_size: int, outputs: int, *, text: bool) -> None:
        super().__init__()
        layer = nn.Linear(text_size, outputs)
        self.weight = layer.weight if text else None
        self.bias = layer.bias

    def forward(self, text: Tensor) -> Tensor:
        """`(item, text_size)` to `(item, outputs)`."""
        if self.weight is None:
            return self.bias.expand(text.shape[0], -1)
        return functional.linear(text, self.weight, self.bias)


class UndersamplingPrompter(nn.Module):
    """Spatial prompt mixed from a bank by the undersampling text.

    The mixture is softmax(linear(text)); the mixed prompt is resized bilinearly (half-pixel centres, no
    antialiasing) to the feature map and passes a 3x3 convolution.
    """

    def __init__(
        self, channels: int, size: int, components: int, text_size: int, *, text: bool, train_bank: bool
    ) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.rand(components, channels, size, size), requires_grad=train_bank)
        self.mixture = TextLinear(text_size, components, text=text)
        self.conv = conv(channels, channels, 3)

    def weights(self, text: Tensor) -> Tensor:
        """`(item, components)` mixture weights, each row sums to 1."""
        return torch.softmax(self.mixture(text).to(self.bank.dtype), dim=-1)

    def forward(self, text: Tensor, shape: tuple[int, int]) -> Tensor:
        """Text `(item, text_size)` to a prompt `(item, channels, *shape)`."""
        mixed = torch.einsum("ik,kcyx->icyx", self.weights(text), self.bank)
        resized = functional.interpolate(mixed, size=shape, mode="bilinear", align_corners=False)
        prompt: Tensor = self.conv(resized.contiguous(memory_format=torch.channels_last))
        return prompt


class MetadataAdapter(nn.Module):
    """Features gated by the metadata text: ``x + CAB((x * gamma + beta) * sigmoid(linear(text)))``.

    gamma and beta start at zero, so an untrained adapter changes nothing.
    """

    def __init__(self, channels: int, reduction: int, text_size: int, *, text: bool) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gate = TextLinear(text_size, channels, text=text)
        self.block = ChannelAttentionBlock(channels, reduction)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Features `(n, channels, y, x)`, text `(item, text_size)`, n a multiple of the items."""
        gate = torch.sigmoid(self.gate(text).to(self.gamma.dtype))
        gate = per_sample(gate, x.shape[0])[:, :, None, None]
        gain, offset = (by_row((one * gate).to(x.dtype), x) for one in (self.gamma, self.beta))
        scaled = torch.addcmul(offset, x, gain)
        out: Tensor = x + self.block(scaled)
        return out
