"""A drawn heart as hard as real ones."""

import numpy as np
import pytest
from simulate_cases import small_cine

from recon_node.core.errors import ConfigError
from recon_node.simulate import Example


def left_over(example: Example, harmonics: int = 3) -> float:
    """Share of the heart's signal that its slowest changes over the cycle do not explain."""
    heart = np.maximum(example.lv, np.maximum(example.myocardium, example.rv)).max(axis=0) > 0.5
    signal = np.abs(example.images[:, heart])
    spectrum = np.fft.rfft(signal, axis=0)
    spectrum[: harmonics + 1] = 0
    fast = np.fft.irfft(spectrum, n=len(signal), axis=0)
    return float(np.linalg.norm(fast) / np.linalg.norm(signal))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_detailed_heart_holds_more_that_smooth_motion_does_not_explain(seed: int) -> None:
    still = {"phases": 16, "breathing_mm": 0.0, "arrhythmia": 0.0, "lifespan": "Adult"}
    plain = left_over(small_cine(seed, **still))
    detailed = left_over(small_cine(seed, heart="detailed", **still))
    assert detailed > 1.25 * plain


def test_detail_leaves_the_heart_itself_as_it_was() -> None:
    plain, detailed = small_cine(3), small_cine(3, heart="detailed")
    assert np.array_equal(plain.lv_volume_ml, detailed.lv_volume_ml)
    assert plain.metadata == detailed.metadata
    assert detailed.images.tobytes() == small_cine(3, heart="detailed").images.tobytes()


def test_an_unknown_kind_of_heart_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"heart is 'hard', expected one of plain, detailed"):
        small_cine(1, heart="hard")
