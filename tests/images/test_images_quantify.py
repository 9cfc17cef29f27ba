from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import DataError
from recon_node.images import store, t1_map_ms, t2_map_ms, velocity_cm_s, velocity_scaling

TI_MS = (100.0, 180.0, 260.0, 1000.0, 1080.0, 1900.0, 2800.0, 4000.0)
TE_MS = (0.0, 25.0, 55.0)


def recovery(t1_ms: np.ndarray, amplitude: complex = 80 * np.exp(0.7j)) -> np.ndarray:
    """Perfect inversion recovery of `(y, x)` T1 at `TI_MS`, with a phase of its own."""
    return amplitude * (1 - 2 * np.exp(-np.array(TI_MS)[:, None, None] / t1_ms))


@settings(deadline=None, max_examples=20)
@given(t1=st.floats(150, 2200), seed=st.integers(0, 99))
def test_t1_is_found_whatever_the_sign_and_phase_of_the_signal(t1: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = recovery(np.full((4, 5), t1))
    images = images + 0.05 * (rng.standard_normal(images.shape) + 1j * rng.standard_normal(images.shape))
    assert t1_map_ms(images, TI_MS) == pytest.approx(np.full((4, 5), t1), rel=0.02)


def test_t1_of_look_locker_is_corrected_for_the_readout() -> None:
    t1, star = 1200.0, 900.0
    ratio = t1 / star + 1
    images = 50 * (1 - ratio * np.exp(-np.array(TI_MS)[:, None, None] / star)) * np.ones((1, 3, 3))
    assert t1_map_ms(images.astype(complex), TI_MS) == pytest.approx(np.full((3, 3), t1), rel=0.01)


@settings(deadline=None, max_examples=20)
@given(t2=st.floats(25, 250))
def test_t2_is_found(t2: float) -> None:
    images = 70 * np.exp(-np.array(TE_MS)[:, None, None] / t2) * np.ones((1, 3, 4)) * 1j
    assert t2_map_ms(images, TE_MS) == pytest.approx(np.full((3, 4), t2), rel=0.01)


def test_pixels_without_an_object_have_no_number() -> None:
    images = recovery(np.full((8, 8), 1000.0))
    images[:, :2] *= 1e-4
    found = t1_map_ms(images, TI_MS)
    assert not found[:2].any()
    assert (found[2:] > 900).all()


def test_velocity_is_the_phase_between_the_sets_in_units_of_the_encoding() -> None:
    rng = np.random.default_rng(0)
    reference = np.exp(1j * rng.uniform(-3, 3, (2, 6, 7)))
    wanted = rng.uniform(-140, 140, (2, 6, 7))
    encoded = reference * np.exp(1j * np.pi * wanted / 150)
    found = velocity_cm_s(encoded, reference, 150.0)
    assert found == pytest.approx(wanted, abs=1e-9)
    pixels = store(found, "velocity", velocity_scaling(150.0))
    scaling = pixels.scaling
    assert pixels.data * scaling.slope + scaling.intercept == pytest.approx(wanted, abs=scaling.slope)
    assert pixels.clipped == 0


@pytest.mark.parametrize(("images", "times"), [(8, TI_MS[:5]), (3, TI_MS[:3]), (8, (100.0,) * 8)])
def test_times_that_do_not_make_a_map_are_refused(images: int, times: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="different times"):
        t1_map_ms(np.ones((images, 2, 2), complex), times)


def test_velocity_without_its_reference_is_refused() -> None:
    with pytest.raises(DataError, match="two equal sets"):
        velocity_cm_s(np.ones((2, 3, 3), complex), np.ones((1, 3, 3), complex), 150.0)
    with pytest.raises(DataError, match="positive VENC"):
        velocity_cm_s(np.ones((1, 3, 3), complex), np.ones((1, 3, 3), complex), 0.0)
