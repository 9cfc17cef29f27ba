r"""Exact solves where whole lines are sampled: a small Hermitian system for every image column.

With whole readout lines, :math:`A^H A` couples only the pixels of one column along the phase encoding: it
is the Gram matrix of the coils there, times (element by element) the circulant matrix of the mask's point
spread function. One Cholesky factor a column and mask solves all frames that share the mask; the factor's
inverse gives the noise that parallel imaging amplifies (Pruessmann et al., Magn Reson Med 42:952, 1999,
eqs. 19 to 23).

Maps vanish outside the object's support, so only the shortest cyclic run of pixels that holds it enters
the matrix. Work goes column block by column block: memory holds few matrices, whatever the slice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from recon_node.core.errors import DataError
from recon_node.solvers.operator import SenseOperator

BLOCK_BYTES = 1 << 22
"""Matrices of one block of columns on a CPU, so that they stay in its cache."""
DEVICE_BLOCK_BYTES = 1 << 28
"""The same elsewhere."""
KEPT_BYTES = 1 << 26
"""The coils' products of all columns are kept for the next solve up to this size."""
_VISITS = 100
"""Scalar steps of factoring that cost as much as one coil's pixel in one application of ``A^H A``."""
_AROUND = 150
"""Unknowns beyond which a matrix takes more time to factor than to make, gather and scatter for."""
_STEP = 8
"""Runs begin and end at multiples of this, so that columns form blocks."""
_DOUBLE_BELOW = 1e-4
"""Weights below this are solved in double precision: the condition is one over the weight."""

_WHOLE = 24
"""Matrices up to this size are inverted by their factor."""

Weight: TypeAlias = float | Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """Columns whose unknowns are the same pixels along the phase encoding."""

    columns: Tensor
    """`(column,)` int64"""
    pixels: Tensor
    """`(n,)` int64: the run of pixels."""
    parts: list[tuple[int, int]]
    """The same as first pixel and number, in two parts where it goes round the edge."""
    gram: Tensor
    """`(column, map * n, map * n)` complex: of the coils' sensitivities, the same for every mask."""


class LineSystems:
    """``A^H A + W`` of whole-line masks, `W` diagonal, for solves and inverses.

    Parameters
    ----------
    maps : Tensor
        `(map, coil, x, y)` complex coil maps, phase encoding last.
    rows : Tensor
        `(frame, y)` real: 1 on sampled lines, the centre first.

    Attributes
    ----------
    sets : list of Tensor
        Frames that share a mask: their numbers, `(frame,)` int64.
    bytes : int
        Memory that all inverses take together.
    """

    def __init__(self, maps: Tensor, rows: Tensor) -> None:
        self._maps = maps
        shared, owner = torch.unique(rows, dim=0, return_inverse=True)
        self.sets = [torch.nonzero(owner == i).flatten() for i in range(len(shared))]
        self._responses = torch.fft.ifft(shared.to(self._maps.dtype))
        self._shown = self._maps.abs().amax(dim=(0, 1)) > 0
        self._runs = _runs(self._shown)
        lengths = self._runs[1]
        size = self._maps.dtype.itemsize * self._maps.shape[0] ** 2
        self.bytes = int((lengths**2).sum()) * size * len(self.sets)
        self._kept: list[_Block] = []
        unknowns = self._maps.shape[0] * lengths.double()
        self._steps = float((unknowns**2 * (unknowns + _AROUND)).sum()) * len(self.sets)

    @classmethod
    def of(cls, operator: SenseOperator) -> LineSystems:
        """The systems of an operator.

        Raises
        ------
        DataError
            If its masks vary along the readout.
        """
        if not operator.lines:
            raise DataError("exact solves need whole readout lines, found masks that vary along the readout")
        return cls(operator.maps, operator.line_mask)

    def of_one(self) -> LineSystems:
        """The systems of a single frame, where all share one mask."""
        self._blocks()  # made for both, where they are kept
        made = copy.copy(self)
        made.sets = [self.sets[0][:1]]
        return made

    def pays(self, applications: int) -> bool:
        """Whether factoring costs less than so many applications of ``A^H A`` to all frames."""
        visits = sum(len(one) for one in self.sets) * self._maps.numel()
        return self._steps <= _VISITS * visits * applications

    def solve(self, target: Tensor, weight: Weight) -> Tensor:
        """``(A^H A + W)^-1 target`` for every frame.

        Parameters
        ----------
        target : Tensor
            `(frame, map, x, y)` complex.
        weight : float or Tensor
            The diagonal of `W`, above 0: one number, or `(x, y)`.

        Raises
        ------
        DataError
            If a matrix cannot be factored, as of coil maps that are far too large.
        """
        out = _outside(target, weight)
        for block in self._blocks():
            some = _gathered(target, block)
            for i, frames in enumerate(self.sets):
                factor = self._factor(block, i, weight)
                unknowns = _of_frames(some, frames).to(factor.dtype)
                solved = torch.cholesky_solve(unknowns.mT, factor).to(target.dtype)
                _scatter(out, solved.mT, block, frames)
        return out

    def inverses(self, weight: Weight) -> Inverses:
        """All inverses, kept: for solves that are repeated with one weight."""
        blocks = self._kept = list(self._blocks())
        kept = [
            [_beside(self._checked(_inverse, block, i, weight)) for i in range(len(self.sets))]
            for block in blocks
        ]
        return Inverses(self.sets, blocks, kept, self._shown, weight)

    def noise(self, weight: float) -> Tensor:
        """Noise in the solution, and how much of it undersampling has added.

        Parameters
        ----------
        weight : float
            Tikhonov weight of the solution.

        Returns
        -------
        Tensor
            `(frame, map, x, y)` real: the standard deviation of complex noise in every pixel, where samples
            hold noise of standard deviation 1; 0 where no coil sees anything.
        """
        frames = sum(len(one) for one in self.sets)
        out = self._maps.new_zeros(frames, self._maps.shape[0], *self._maps.shape[2:])
        for block in self._blocks():
            for i, members in enumerate(self.sets):
                inverse = torch.cholesky_inverse(self._factor(block, i, weight))
                # (A^H A + w)^-1 A^H A (A^H A + w)^-1 = inverse - w inverse^2
                power = inverse.diagonal(dim1=-2, dim2=-1).real - weight * inverse.abs().square().sum(-1)
                deviation = power.clamp_min(0).sqrt()[:, None].expand(-1, len(members), -1)
                _scatter(out, deviation.to(out.dtype), block, members)
        return out.real * self._shown

    def _blocks(self) -> Iterable[_Block]:
        """The columns, kept for the next solve where they are small enough."""
        if self._kept:
            return self._kept
        if self.bytes > KEPT_BYTES * len(self.sets):
            return self._cut()
        self._kept = list(self._cut())
        return self._kept

    def _cut(self) -> Iterator[_Block]:
        start, length = self._runs
        points, sets = self._maps.shape[-1], self._maps.shape[0]
        largest = BLOCK_BYTES if self._maps.device.type == "cpu" else DEVICE_BLOCK_BYTES
        places = torch.stack([start, length], dim=1)
        for first, n in torch.unique(places, dim=0).tolist():
            if n == 0:
                continue
            columns = torch.nonzero((start == first) & (length == n)).flatten()
            pixels = (first + torch.arange(n, device=columns.device)) % points
            several = max(1, largest // (self._maps.dtype.itemsize * (sets * n) ** 2))
            for some in torch.split(columns, several):
                coils = self._maps[:, :, some][..., pixels].permute(2, 1, 0, 3).flatten(2)
                over = max(0, first + n - points)
                parts = [(first, n - over), *([(0, over)] if over else [])]
                yield _Block(columns=some, pixels=pixels, parts=parts, gram=coils.mH @ coils)

    def _factor(self, block: _Block, which: int, weight: Weight) -> Tensor:
        return self._checked(torch.linalg.cholesky_ex, block, which, weight)

    def _checked(
        self, worked: Callable[[Tensor], tuple[Tensor, Tensor]], block: _Block, which: int, weight: Weight
    ) -> Tensor:
        """What `worked` makes of ``A^H A + W`` of a block's columns for one mask, where it can."""
        matrix = self._matrix(block, which)
        if isinstance(weight, float) and weight < _DOUBLE_BELOW:
            matrix = matrix.to(torch.complex128)
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        if isinstance(weight, Tensor):
            own = weight[block.columns][:, block.pixels]
            diagonal += own.repeat(1, self._maps.shape[0]).to(diagonal.dtype)
        else:
            diagonal += weight
        largest = float(diagonal.real.max())
        least = float(weight.min()) if isinstance(weight, Tensor) else weight
        found, failed = worked(matrix)
        if bool(failed.any()) or not largest * torch.finfo(matrix.dtype).eps < least:
            raise DataError(
                f"coil maps of a size of about {largest**0.5:.3g} cannot be unfolded with, "
                "expected a root sum of squares of 1: calibrate again"
            )
        return found

    def _matrix(self, block: _Block, which: int) -> Tensor:
        """``A^H A`` of a block's columns for one mask: `(column, map * n, map * n)`."""
        n, points = len(block.pixels), self._maps.shape[-1]
        places = torch.arange(n, device=self._maps.device)
        response = self._responses[which][(places[:, None] - places) % points]
        sets = self._maps.shape[0]
        matrix: Tensor = block.gram * (response if sets == 1 else response.repeat(sets, sets))
        return matrix


class Inverses:
    """Inverses of `LineSystems` for one weight, made by its method `inverses`.

    Kept with their real and imaginary parts beside each other: two real products of matrices take less time
    than a complex one.
    """

    def __init__(
        self,
        sets: list[Tensor],
        blocks: list[_Block],
        kept: list[list[Tensor]],
        shown: Tensor,
        weight: Weight,
    ) -> None:
        self._sets, self._blocks, self._kept = sets, blocks, kept
        self._outside = _outside(torch.ones_like(shown, dtype=torch.float32), weight)
        for block in blocks:  # what the inverses give, takes the place of what they are given
            self._outside[block.columns[:, None], block.pixels] = 1

    def __call__(self, target: Tensor) -> Tensor:
        """As `LineSystems.solve`, of series `(2, frame, map, x, y)` in planes (`planes`); in their place."""
        frames = target.shape[1]
        flat = target.flatten(0, 1)
        flat *= self._outside
        for block, inverses in zip(self._blocks, self._kept, strict=True):
            some = _gathered(flat, block)
            for members, inverse in zip(self._sets, inverses, strict=True):
                both = torch.cat([members, members + frames])
                _scatter(flat, _product(_of_frames(some, both), inverse), block, both)
        return target


def _inverse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of Hermitian matrices `(column, n, n)` by halves, and for each whether it failed.

    Most of the work is then in matrix products, several times as quick as a factor's inverse.
    """
    n = matrix.shape[-1]
    if n <= _WHOLE:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        return torch.cholesky_inverse(factor), failed != 0
    half = n // 2
    first, failed = _inverse(matrix[:, :half, :half])
    beside = matrix[:, half:, :half]
    ahead = beside @ first
    last, failed_too = _inverse(matrix[:, half:, half:] - ahead @ beside.mH)
    out = torch.empty_like(matrix)
    out[:, half:, half:] = last
    across = -(last @ ahead)
    out[:, half:, :half], out[:, :half, half:] = across, across.mH
    out[:, :half, :half] = first - ahead.mH @ across
    return out, failed | failed_too


def _beside(inverse: Tensor) -> Tensor:
    """Transposes of complex `(column, n, n)` as real `(column, n, 2 n)`: real parts, then imaginary ones."""
    return torch.cat([inverse.real.mT, inverse.imag.mT], dim=2)


def _product(unknowns: Tensor, matrix: Tensor) -> Tensor:
    """`(column, 2 frame, n)` in planes times what `_beside` made."""
    frames, n = unknowns.shape[1] // 2, unknowns.shape[2]
    parts = unknowns @ matrix
    out = torch.empty_like(unknowns)
    torch.sub(parts[:, :frames, :n], parts[:, frames:, n:], out=out[:, :frames])
    torch.add(parts[:, :frames, n:], parts[:, frames:, :n], out=out[:, frames:])
    return out


def _outside(target: Tensor, weight: Weight) -> Tensor:
    """The solution where no coil sees anything: there the matrix is the weight alone."""
    if isinstance(weight, Tensor):
        return torch.where(weight > 0, target / weight.clamp_min(1e-30), 0)
    return target / weight if weight > 0 else torch.zeros_like(target)


def _gathered(images: Tensor, block: _Block) -> Tensor:
    """`(frame, map, x, y)` to unknowns `(column, frame, map * n)`."""
    moved = images.permute(2, 0, 1, 3)
    parts = [moved.narrow(3, first, n).index_select(0, block.columns) for first, n in block.parts]
    return torch.cat(parts, dim=3).flatten(2)


def _of_frames(unknowns: Tensor, frames: Tensor) -> Tensor:
    return unknowns if len(frames) == unknowns.shape[1] else unknowns.index_select(1, frames)


def _scatter(out: Tensor, unknowns: Tensor, block: _Block, frames: Tensor) -> None:
    """Unknowns `(column, frame, map * n)` to their place in images `(frame, map, x, y)`."""
    moved = out.permute(2, 0, 1, 3)
    several = unknowns.reshape(*unknowns.shape[:2], out.shape[1], -1)
    made = torch.split(several, [n for _, n in block.parts], dim=3)
    for (first, n), part in zip(block.parts, made, strict=True):
        place = moved.narrow(3, first, n)
        if len(frames) == len(out):
            place.index_copy_(0, block.columns, part)
        else:
            place[block.columns[:, None], frames] = part


def _runs(shown: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest cyclic run that holds all that is shown, for each row of `(x, y)`: start and length."""
    columns, points = shown.shape
    twice = torch.cat([shown, shown], dim=1)
    places = torch.arange(2 * points, device=shown.device).expand(columns, -1)
    last = torch.where(twice, places, -1).cummax(dim=1).values
    gap = torch.where(last >= 0, places - last, 0)[:, points:]  # empty pixels up to here, cyclically
    longest, end = gap.max(dim=1)
    length = torch.where(shown.any(dim=1), points - longest, 0)
    start = (end + 1) % points
    first = start // _STEP * _STEP
    end = (start + length + _STEP - 1) // _STEP * _STEP
    longer = torch.where(start + length <= points, end.clamp_max(points), end) - first
    first = torch.where((longer >= points) | (length == 0), 0, first)
    return first, torch.where(length == 0, 0, longer.clamp_max(points))
