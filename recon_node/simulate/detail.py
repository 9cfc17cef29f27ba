"""What makes a drawn heart as hard to reconstruct as a real one.

A plain drawn heart is smooth: what moves is a few large shapes that repeat exactly, and methods that look
along time have an easy life with it. Cines of people hold more: trabeculae that slide through the slice,
texture in every muscle, blood whose signal comes and goes with the flow from frame to frame, and the noise
of their own acquisition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon_node.core.errors import ConfigError
from recon_node.simulate.canvas import F32, Texture, coverage

HEARTS = ("plain", "detailed")
"""Of drawn hearts: large smooth shapes, or those with what cines of people hold besides."""
THROUGH_MM = 5.0
"""Distance along the heart's axis over which fine structure becomes another."""
FINE = 1.2
"""How much finer trabeculae and muscle are than the grain of the plain heart."""
JUMP_MM = 97.3
"""Between the flow patterns of two frames in the texture, which repeats after 256 mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How much of it there is."""

    grain: float = 0.11
    """Depth of the texture of muscle."""
    flow: float = 0.15
    """Share of blood's signal that is lost here and there, in each frame elsewhere; half of it at rest."""
    left_mm: float = 3.7
    """How deep trabeculae reach into the left ventricle."""
    right_mm: float = 5.2
    noise: float = 0.008
    """Noise of the images themselves over the signal of blood."""
    seed: int = 0
    """Of that noise."""

    def solid(self, texture: Texture, p: F32, q: F32, h: F32, offset: float) -> F32:
        """Random pattern of unit deviation in three dimensions; arguments in mm, `h` through the slice."""
        turn = h * np.float32(1 / THROUGH_MM)
        one = texture.at(texture.grain, p * np.float32(FINE), q * np.float32(FINE), offset)
        other = texture.at(texture.grain, p * np.float32(FINE), q * np.float32(FINE), offset + 113.0)
        return np.asarray(np.cos(turn) * one + np.sin(turn) * other, np.float32)

    def trabeculae(self, pattern: F32, inside: F32, reach_mm: float, pixel_mm: float) -> F32:
        """Share of each pixel they cover: a ragged rim, and strands that leave it towards the middle.

        Parameters
        ----------
        pattern : ndarray
            `solid`.
        inside : ndarray
            Distance inside the endocardium, mm.
        """
        rim = coverage(reach_mm * (np.float32(0.25) + np.float32(0.45) * pattern) - inside, pixel_mm)
        ridge = np.exp(-((pattern / np.float32(0.35)) ** 2))
        fading = np.exp(-np.maximum(inside, 0) * np.float32(1 / reach_mm))
        return np.asarray(np.maximum(rim, np.float32(0.8) * ridge * fading), np.float32)

    def swirl(self, texture: Texture, p: F32, q: F32, phase: int, speed: float) -> F32:
        """Relative loss of blood's signal where it swirls (spins lose phase), another one in each frame."""
        where = (JUMP_MM * (phase + 1)) % 256.0
        pattern = texture.at(texture.grain, p * np.float32(1.2), q * np.float32(1.2), where)
        depth = np.float32(self.flow * (0.5 + 0.5 * speed))
        return np.asarray(-depth * np.clip(pattern, 0, 2), np.float32)


def draw_detail(rng: np.random.Generator, heart: str) -> Detail | None:
    """The detail of a kind of heart, None for a plain one; `rng` goes on as if nothing had been drawn.

    Raises
    ------
    ConfigError
        For a kind that is not among `HEARTS`.
    """
    if heart not in HEARTS:
        raise ConfigError(f"heart is {heart!r}, expected one of {', '.join(HEARTS)}")
    if heart == "plain":
        return None
    own = rng.spawn(1)[0]
    return Detail(
        grain=float(own.uniform(0.08, 0.14)),
        flow=float(own.uniform(0.12, 0.18)),
        left_mm=float(own.uniform(3.0, 4.5)),
        right_mm=float(own.uniform(4.0, 6.5)),
        noise=float(own.uniform(0.006, 0.010)),
        seed=int(own.integers(2**31)),
    )
