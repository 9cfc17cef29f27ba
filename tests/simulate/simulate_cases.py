"""Small cases that several test files share."""

import numpy as np

from recon_node.simulate import Example, draw_example


def small_cine(seed: int = 1, **options: object) -> Example:
    """A 96 x 96 adult short-axis cine of 10 phases and 6 coils."""
    chosen: dict[str, object] = {
        "matrix": (96, 96),
        "phases": 10,
        "coils": 6,
        "modality": "cine",
        "view": "short-axis",
        "lifespan": "Adult",
        "level": 0.4,
    }
    return draw_example(np.random.default_rng(seed), **(chosen | options))  # type: ignore[arg-type]
