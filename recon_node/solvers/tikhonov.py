r"""Regularised SENSE: :math:`\min_x \|A x - y\|^2 + \lambda\|x - x_0\|^2`, exactly where that is quick.

Pruessmann et al., Magn Reson Med 46:638 (2001). Whole-line masks are solved by factors
(`recon_node.solvers.exact`), others, and those where so many masks differ that factors would take longer,
by conjugate gradients.
"""

from __future__ import annotations

from torch import Tensor

from recon_node.solvers.cg import conjugate_gradients
from recon_node.solvers.exact import LineSystems
from recon_node.solvers.operator import SenseOperator


def tikhonov(
    operator: SenseOperator,
    target: Tensor,
    weight: float,
    *,
    prior: Tensor | None = None,
    iterations: int,
    tolerance: float = 0.0,
    systems: LineSystems | None = None,
) -> Tensor:
    """Minimise.

    Parameters
    ----------
    operator : SenseOperator
        Maps and masks.
    target : Tensor
        `(frame, map, x, y)`: ``A^H y``.
    weight : float
        Of the pull towards `prior`.
    prior : Tensor, optional
        Where the pull goes, and where conjugate gradients start; zero if None. `target` or broadcast to it.
    iterations, tolerance
        Of conjugate gradients, where they are needed.
    systems : LineSystems, optional
        Of the operator, where they were made before.

    Returns
    -------
    Tensor
        Like `target`.

    Raises
    ------
    DataError
        If a matrix cannot be factored, as of coil maps that are far too large.
    """
    goal = target if prior is None else target + weight * prior
    if operator.lines and weight > 0:
        systems = systems or LineSystems.of(operator)
        if systems.pays(iterations):
            return systems.solve(goal, weight)
    return conjugate_gradients(
        lambda x: operator.normal(x) + weight * x,
        goal,
        iterations=iterations,
        start=None if prior is None else prior.expand_as(target),
        tolerance=tolerance,
    )
