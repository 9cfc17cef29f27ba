r"""ADMM with exact inverses, where the frames of a series share whole lines.

Where one or a few sets of lines serve all frames, :math:`A^H A` is one of a few small matrices for every
image column. Their inverses, made once, take the place of hundreds of gradient steps, which hardly reach
what is badly conditioned. ADMM after Boyd et al., Found Trends Mach Learn 3:1, 2011, sections 3.1.1 (scaled
form) and 3.4.3 (over-relaxation), for

.. math:: \min_x \tfrac12\|A x - y\|^2 + \tfrac12 \sum_r w_r |x_r|^2 + R(x)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recon_node.solvers.air import air_pull
from recon_node.solvers.exact import Inverses, LineSystems
from recon_node.solvers.planes import from_planes, to_planes

PENALTY = 0.012
"""ADMM's penalty, in units of the largest eigenvalue of ``A^H A``."""
REFINING_PENALTY = 0.032
"""The same from an estimate that needs little change."""
RELAXATION = 1.7
"""How far each iteration goes along its step."""
LARGEST_BYTES = 1 << 29
"""Inverses that need more memory than this are not made."""
AIR_AFTER = (4, 9)
"""Iterations after which air is looked for (again): with fewer than the first there is no pull."""


def unfolds(systems: LineSystems | None) -> bool:
    """Whether there are systems, and their inverses fit the memory."""
    return systems is not None and systems.bytes <= LARGEST_BYTES


def unfold(
    systems: LineSystems,
    target: Tensor,
    regulariser: Callable[[float], Callable[[Tensor], Tensor]],
    *,
    air: float,
    iterations: int,
    start: Tensor,
    penalty: float = PENALTY,
    inverses: Inverses | None = None,
) -> Tensor:
    """Minimise.

    Parameters
    ----------
    systems : LineSystems
        Of the maps and masks; `unfolds` holds for them.
    target : Tensor
        `(frame, map, x, y)`, ``A^H y``, laid out as `SenseOperator` does.
    regulariser : callable
        Given a number, the proximal operator of `R` divided by it, on series in planes
        (`recon_node.solvers.planes`).
    air : float
        Strength of the pull towards zero in air, see `air_pull`; 0 leaves it out.
    iterations : int
        Number of ADMM iterations.
    start : Tensor
        First guess, `(frame, map, x, y)`, or one frame for all.
    penalty : float
        In units of the largest eigenvalue of ``A^H A``.
    inverses : Inverses, optional
        What `inverses_with_air` made for this penalty: air is not looked for.

    Raises
    ------
    DataError
        If the matrix cannot be inverted, as of coil maps that are far too large.
    """
    proximal = regulariser(penalty)
    looks = air > 0 and inverses is None
    inverse = inverses or systems.inverses(penalty)
    goal = to_planes(target)
    split, dual, room = to_planes(start).expand_as(goal), torch.zeros_like(goal), torch.empty_like(goal)
    for done in range(1, iterations + 1):
        made = inverse(torch.sub(goal, dual, alpha=penalty, out=room).add_(split, alpha=penalty))
        dual.add_(made, alpha=RELAXATION).add_(split, alpha=1 - RELAXATION)
        split = proximal(dual)
        dual.sub_(split)
        if looks and done in AIR_AFTER and done < iterations:
            inverse = systems.inverses(air_pull(from_planes(split), air) + penalty)
    return from_planes(split)


def inverses_with_air(systems: LineSystems, images: Tensor, *, air: float, penalty: float) -> Inverses:
    """What `unfold` needs where `images`, `(frame, map, x, y)`, show where air is.

    Other arguments and errors as for `unfold`.
    """
    return systems.inverses(air_pull(images, air) + penalty if air > 0 else penalty)
