r"""The SENSE encoding operator ``A = M F S`` in hybrid space, for the iterative reconstructors.

Whole lines along the readout are sampled or not: one inverse transform along the readout, done once,
leaves an independent problem per image column with a transform along the phase encoding only. Masks
that vary along the readout (pseudo-radial) use the transform along both axes. Either way the centring
shifts are moved into maps, mask and data beforehand, and orthonormal scaling is folded into the mask,
so that an iteration is only: times maps, transform, times mask, transform back, times maps.

Inside, images lie as `(frame, map, x, y)`, phase encoding last and contiguous, shifted so that the
centre pixel comes first. `SenseOperator.to_grid` brings them back.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.solvers.response import response

CACHE_BYTES = 1 << 21
"""Embedded coil images (`response`) that a CPU works on together."""
LINES = (-1,)
POINTS = (-2, -1)


class SenseOperator:
    """``A = M F S`` for one slice: images `(frame, map, x, y)` to samples `(frame, coil, x, y)`.

    Parameters
    ----------
    maps : ndarray
        `(map, coil, y, x)` complex64.
    mask : ndarray
        `(frame, ky, kx)` bool.
    device : torch.device
        Where everything lives.

    Attributes
    ----------
    lines : bool
        Whether the mask consists of whole readout lines: samples then are in hybrid space (x, ky).
    """

    def __init__(self, maps: NDArray[np.complex64], mask: NDArray[np.bool_], device: torch.device) -> None:
        self.lines = bool((mask == mask[:, :, :1]).all())
        self.axes = LINES if self.lines else POINTS
        self.device = device
        self.shape = mask.shape
        """(frame, ky, kx)"""
        self._maps = self.from_grid(maps)
        self._conjugate = self._maps.conj().resolve_conj()
        shown = mask[:, :, :1] if self.lines else mask
        moved = np.fft.ifftshift(shown.swapaxes(1, 2), axes=self.axes)
        self._mask = torch.from_numpy(moved.astype(np.float32)).to(device).unsqueeze(1)
        size = mask.shape[1] if self.lines else mask.shape[1] * mask.shape[2]
        self._scale = float(size) ** -0.5
        self._response = response(self._mask) if self.lines else self._mask
        self._lengths = [self._response.shape[axis] for axis in self.axes]
        self._coils = self._coil_parts()

    @property
    def maps(self) -> Tensor:
        """`(map, coil, x, y)`, laid out as images are."""
        return self._maps

    @property
    def line_mask(self) -> Tensor:
        """`(frame, y)` float32: 1 on sampled lines, in the order of the operator's samples."""
        return self._mask[:, 0, 0]

    def samples(self, kspace: NDArray[np.complex64], frames: slice = slice(None)) -> Tensor:
        """Measured k-space `(frame, coil, ky, kx)` as the operator's samples `(frame, coil, x, y)`."""
        if not self.lines:
            plane: Tensor = self.from_grid(kspace) * self._mask[frames]
            return plane
        shown = self._mask[frames, 0, 0]
        coils, points, width = kspace.shape[1:]
        samples = self._maps.new_zeros(len(kspace), coils, width, points)
        for frame, lines, out in zip(kspace, shown, samples, strict=True):
            rows = torch.nonzero(lines).flatten()
            if len(rows) == 0:
                continue
            measured = frame[:, (rows.cpu().numpy() + points // 2) % points]
            moved = torch.fft.ifftshift(torch.from_numpy(measured).to(self.device), dim=-1)
            out[:, :, rows] = torch.fft.ifft(moved, norm="ortho").transpose(-2, -1)
        return samples

    def matched(self, kspace: NDArray[np.complex64]) -> Tensor:
        """``A^H y`` of measured k-space `(frame, coil, ky, kx)`: `(frame, map, x, y)`.

        Frame by frame, so that memory holds the coil images of one only.
        """
        out = self._maps.new_zeros(len(kspace), self._maps.shape[0], *self._maps.shape[2:])
        for i in range(len(kspace)):
            frame = slice(i, i + 1)
            out[frame] = self._back(self.samples(kspace[frame], frame).mul_(self._scale))
        return out

    def forward(self, images: Tensor, frames: slice = slice(None)) -> Tensor:
        """``A x``: `(frame, map, x, y)` to `(frame, coil, x, y)`."""
        samples: Tensor = self._transformed(images) * (self._mask[frames] * self._scale)
        return samples

    def adjoint(self, samples: Tensor, frames: slice = slice(None)) -> Tensor:
        """``A^H y``: `(frame, coil, x, y)` to `(frame, map, x, y)`."""
        return self._back(samples * (self._mask[frames] * self._scale))

    def normal(self, images: Tensor, frames: slice = slice(None)) -> Tensor:
        """``A^H A x``: `(frame, map, x, y)` to the same, one frame at a time to stay in cache."""
        out = torch.zeros_like(images)
        weights = self._response[frames] / math.prod(self._lengths)
        for coils in self._coils:
            for image, weight, total in zip(images, weights, out, strict=True):
                kspace = self._transformed(image[None], coils, self._lengths)
                kspace *= weight
                total.add_(self._back(kspace, coils)[0])
        return out

    def coverage(self) -> Tensor:
        """``totalc |S_c|^2`` of each map, `(map, x, y)`: 1 inside the support, 0 outside."""
        return self._maps.abs().square().sum(dim=1)

    def to_grid(self, images: Tensor) -> NDArray[np.complex64]:
        """`(..., x, y)` as images lie here to `(..., y, x)` on the usual grid."""
        moved = torch.fft.fftshift(images, dim=(-2, -1)).transpose(-2, -1)
        grid: NDArray[np.complex64] = moved.contiguous().cpu().numpy()
        return grid

    def from_grid(self, array: NDArray[np.complex64]) -> Tensor:
        """`(..., y, x)` on the usual grid to `(..., x, y)` with the centre first; undone by `to_grid`."""
        moved = np.fft.ifftshift(array, axes=(-2, -1)).swapaxes(-2, -1)
        return torch.from_numpy(np.ascontiguousarray(moved)).to(self.device)

    def _coil_parts(self) -> list[slice]:
        """Coils whose embedded transforms stay in a CPU's cache together; elsewhere, and unembedded, all."""
        coils, points = self._maps.shape[1], self._maps.shape[-1]
        if self._lengths[-1] == points or self.device.type != "cpu":
            return [slice(None)]
        one = self._maps.dtype.itemsize * self._maps.shape[-2] * self._lengths[-1]
        step = max(1, CACHE_BYTES // one)
        return [slice(i, i + step) for i in range(0, coils, step)]

    def _transformed(
        self, images: Tensor, coils: slice = slice(None), lengths: list[int] | None = None
    ) -> Tensor:
        coil_images: Tensor = images[:, 0, None] * self._maps[0, coils]
        for i in range(1, self._maps.shape[0]):
            coil_images += images[:, i, None] * self._maps[i, coils]
        kspace: Tensor = torch.fft.fftn(coil_images, s=lengths, dim=self.axes)
        return kspace

    def _back(self, kspace: Tensor, coils: slice = slice(None)) -> Tensor:
        longer: Tensor = torch.fft.ifftn(kspace, dim=self.axes, norm="forward")
        coil_images = longer[..., : self._maps.shape[-2], : self._maps.shape[-1]]
        if self._maps.shape[0] == 1:
            return coil_images.mul_(self._conjugate[0, coils]).sum(dim=1, keepdim=True)
        return torch.stack([(coil_images * c[coils]).sum(dim=1) for c in self._conjugate], dim=1)
