r"""Data consistency on coil-combined images, and the transforms it needs.

The published step works on multi-coil k-space: with :math:`x'` the UNet's image and
:math:`m = F(S x')`, sampled points become :math:`(y + w m)/(1 + w)` and the others :math:`m`. The next
UNet sees only :math:`\sum_c \bar S_c F^{-1}` of that, which is, exactly,

.. math:: \Big(\sum_c |S_c|^2\Big) x' + \frac{A^H y - A^H A x'}{1 + w}, \qquad A = M F S .

So a cascade needs :math:`A^H y` once and one normal operator :math:`A^H A` each, no k-space is kept, and
the centring shifts of the transform drop out of :math:`A^H A` (it is a circular convolution per coil).
Where every row of the mask is equal (lines along the readout) the transform along the rows cancels as
well, and only the one along the columns is left.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recon_node.solvers.exact import LineSystems

BOTH = (-2, -1)
COLUMNS = (-1,)
PROXIMAL_ITERATIONS = 4
_TINY = 1e-20


def centred_fft(image: Tensor) -> Tensor:
    """Image to k-space over the last two axes, centred and orthonormal."""
    shifted = torch.fft.ifftshift(image, dim=BOTH)
    out: Tensor = torch.fft.fftshift(torch.fft.fftn(shifted, dim=BOTH, norm="ortho"), dim=BOTH)
    return out


def centred_ifft(kspace: Tensor) -> Tensor:
    """K-space to image over the last two axes, centred and orthonormal."""
    shifted = torch.fft.ifftshift(kspace, dim=BOTH)
    out: Tensor = torch.fft.fftshift(torch.fft.ifftn(shifted, dim=BOTH, norm="ortho"), dim=BOTH)
    return out


def combine(coil_images: Tensor, maps: Tensor) -> Tensor:
    """``sum_c conj(S_c) x_c`` over axis -3."""
    return torch.sum(coil_images * maps.conj(), dim=-3)


class _Gram(torch.autograd.Function):
    """``A^H A`` is its own adjoint: the backward pass is the forward one, and nothing else is saved."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, maps: Tensor, mask: Tensor, axes: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(maps, mask)
        ctx.axes = axes
        return _gram(images, maps, mask, axes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        maps, mask = ctx.saved_tensors
        return _gram(grads[0], maps, mask, ctx.axes), None, None, None


def _gram(images: Tensor, maps: Tensor, mask: Tensor, axes: tuple[int, ...]) -> Tensor:
    if images.device.type != "cpu":
        return _gram_at_once(images, maps, mask, axes)
    parts = [  # coil images of one frame stay in the cache, and those of all may not fit the memory
        _gram_at_once(images[:, i : i + 1], maps, mask[:, i : i + 1], axes) for i in range(images.shape[1])
    ]
    return torch.cat(parts, dim=1)


def _gram_at_once(images: Tensor, maps: Tensor, mask: Tensor, axes: tuple[int, ...]) -> Tensor:
    kspace = torch.fft.fftn(images.unsqueeze(-3) * maps, dim=axes, norm="ortho")
    kspace = kspace * mask.unsqueeze(-3)
    return combine(torch.fft.ifftn(kspace, dim=axes, norm="ortho"), maps)


class _Proximal(torch.autograd.Function):
    """Minimiser of ``|A x - y|^2 + weight |x - z|^2``, its gradient by the same system of equations.

    With ``H = A^H A + weight`` the solution is ``H^-1 (A^H y + weight z)``, so the gradient `g` of a loss
    becomes ``weight H^-1 g`` for `z` and ``<H^-1 g, z - x>`` for the weight.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        measured: Tensor,
        weight: Tensor,
        maps: Tensor,
        mask: Tensor,
        axes: tuple[int, ...],
        iterations: int,
    ) -> Tensor:
        def system(x: Tensor) -> Tensor:
            return _gram(x, maps, mask, axes) + weight * x

        x = images + _solved(system, measured - _gram(images, maps, mask, axes), iterations)
        ctx.save_for_backward(images - x, weight)
        ctx.system, ctx.iterations = system, iterations
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, None, None, None, None]:
        moved, weight = ctx.saved_tensors
        solved = _solved(ctx.system, grads[0], ctx.iterations)
        by_item = (solved.conj() * moved).real.sum(dim=(1, 2, 3), keepdim=True)
        return weight * solved, None, by_item, None, None, None, None


def _solved(system: Callable[[Tensor], Tensor], target: Tensor, iterations: int) -> Tensor:
    """A few conjugate gradients from zero, for each frame on its own."""
    x, residual = torch.zeros_like(target), target.resolve_conj()
    direction, power = residual, _power(residual)
    for _ in range(iterations):
        image = system(direction)
        length = power / (direction.conj() * image).real.sum(dim=BOTH, keepdim=True).clamp_min(_TINY)
        x = x + length * direction
        residual = residual - length * image
        before, power = power, _power(residual)
        direction = residual + power / before.clamp_min(_TINY) * direction
    return x


def _power(x: Tensor) -> Tensor:
    """Energy of each image, `(..., 1, 1)`."""
    return torch.view_as_real(x).square().sum(dim=-1).sum(dim=BOTH, keepdim=True)


class Physics:
    """The encoding operator ``A = M F S`` of a batch of clips.

    Parameters
    ----------
    maps : Tensor
        `(item, coil, y, x)` complex coil maps, the same for all frames of an item.
    mask : Tensor
        `(item, frame, y, x)` bool, True where sampled.

    Attributes
    ----------
    energy : Tensor
        `(item, 1, y, x)`: ``sum_c |S_c|^2``, 1 inside the support of normalised maps.
    lines : bool
        Whether all rows of the mask are equal, so that one-dimensional transforms do.
    systems : LineSystems or None
        Of the first clip, once `solves_exactly` was asked for them.
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        self.maps = maps.unsqueeze(1)
        self.energy = maps.abs().square().sum(dim=1).unsqueeze(1)
        self.lines = bool((mask == mask[..., :1, :]).all())
        self._axes = COLUMNS if self.lines else BOTH
        shown = mask[..., :1, :] if self.lines else mask
        self.mask = torch.fft.ifftshift(shown, dim=self._axes).to(maps.real.dtype)
        self.systems: LineSystems | None = None

    def of_rows(self, rows: slice) -> Physics:
        """The operator of a run of rows, where all rows of the mask are equal."""
        made = copy.copy(self)
        made.maps, made.energy = self.maps[..., rows, :], self.energy[..., rows, :]
        made.systems = None
        return made

    def of_frames(self, index: Tensor) -> Physics:
        """The operator of some frames, in the order of `index`."""
        made = copy.copy(self)
        made.mask, made.systems = self.mask[:, index], None
        return made

    def adjoint(self, kspace: Tensor) -> Tensor:
        """``A^H y``: masked k-space `(item, frame, coil, y, x)` to images `(item, frame, y, x)`."""
        return combine(centred_ifft(kspace), self.maps)

    def gram(self, images: Tensor, frames: slice = slice(None)) -> Tensor:
        """``A^H A x`` for images `(item, frame, y, x)`; `frames` says which frames of the mask they are."""
        if self.maps.requires_grad:
            return _gram(images, self.maps, self.mask[:, frames], self._axes)
        apply: Callable[..., Tensor] = _Gram.apply
        return apply(images, self.maps, self.mask[:, frames], self._axes)

    def consistent(
        self, images: Tensor, measured: Tensor, weight: Tensor | float, frames: slice = slice(None)
    ) -> Tensor:
        """One step of data consistency.

        Parameters
        ----------
        images : Tensor
            `(item, frame, y, x)`, the UNet's images.
        measured : Tensor
            ``A^H y`` of the same frames.
        weight : Tensor or float
            ``|w|`` >= 0; 0 puts the measured values back as they are.
        frames : slice
            Which frames these are.

        Returns
        -------
        Tensor
            `(item, frame, y, x)`: coil-combined image of the corrected k-space.
        """
        return self.energy * images + (measured - self.gram(images, frames)) / (1 + weight)

    def proximal(
        self,
        images: Tensor,
        measured: Tensor,
        weight: Tensor,
        frames: slice = slice(None),
        *,
        iterations: int = PROXIMAL_ITERATIONS,
    ) -> Tensor:
        r"""The proximal step: minimiser of :math:`\|A x - y\|^2 + \lambda\|x - x'\|^2`.

        A few conjugate gradients from :math:`x'`; zero outside the maps' support.

        Parameters
        ----------
        images : Tensor
            `(item, frame, y, x)`, the UNet's images :math:`x'`.
        measured : Tensor
            ``A^H y`` of the same frames.
        weight : Tensor
            :math:`\lambda` > 0, `(item, 1, 1, 1)`.
        frames : slice
            Which frames these are.
        iterations : int
            Number of conjugate gradients.
        """
        mask = self.mask[:, frames]
        apply: Callable[..., Tensor] = _Proximal.apply
        return apply(self.energy * images, measured, weight, self.maps, mask, self._axes, iterations)

    def solves_exactly(self, *, iterations: int = PROXIMAL_ITERATIONS) -> bool:
        """Whether an exact proximal step of all frames costs less than its conjugate gradients.

        Without gradients only, for one clip of whole lines (`LineSystems`).
        """
        if torch.is_grad_enabled() or not self.lines or len(self.maps) > 1:
            return False
        if self.systems is None:
            self.systems = LineSystems(self.maps[0], self.mask[0, :, 0])
        return self.systems.pays(iterations)

    def exact_proximal(self, images: Tensor, measured: Tensor, weight: Tensor) -> Tensor:
        """`proximal` of all frames of one clip, to the end; where `solves_exactly` holds."""
        if self.systems is None:
            raise ValueError("ask `solves_exactly` first")
        wanted = measured + weight * self.energy * images
        return self.systems.solve(wanted[0].unsqueeze(1), float(weight))[:, 0].unsqueeze(0)

    def coil_images(self, images: Tensor, kspace: Tensor, weight: Tensor | float) -> Tensor:
        """Coil images `(item, frame, coil, y, x)` of the corrected k-space (the published last step)."""
        expanded = images.unsqueeze(-3) * self.maps
        transformed = torch.fft.fftn(expanded, dim=self._axes, norm="ortho") * self.mask.unsqueeze(-3)
        model: Tensor = torch.fft.ifftn(transformed, dim=self._axes, norm="ortho")
        return expanded + (centred_ifft(kspace) - model) / (1 + weight)


def time_average(kspace: Tensor, mask: Tensor) -> Tensor:
    """Density-compensated mean over frames: each point averaged over the frames that sampled it.

    Parameters
    ----------
    kspace : Tensor
        `(item, frame, coil, y, x)`, zero where not sampled.
    mask : Tensor
        `(item, frame, y, x)` bool.

    Returns
    -------
    Tensor
        `(item, coil, y, x)`; zero where no frame sampled.
    """
    count = mask.sum(dim=1, keepdim=True).clamp_min(1)
    return kspace.sum(dim=1) / count
