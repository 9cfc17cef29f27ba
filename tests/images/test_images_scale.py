import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from images_samples import make

from recon_node.core.errors import DicomError
from recon_node.images import scale_series


def body(seed=0, shape=(4, 32, 32)):
    rng = np.random.default_rng(seed)
    data = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    data[:, 8:24, 8:24] += 60
    return data


def recovered(pixels):
    return pixels.data * pixels.scaling.slope + pixels.scaling.intercept


@settings(deadline=None, max_examples=40)
@given(
    data=hnp.arrays(np.float32, (2, 4, 5), elements=st.floats(0, 1, width=32)),
    exponent=st.floats(-20, 20),
    quantity=st.sampled_from(["magnitude", "phase"]),
)
def test_stored_values_recover_the_image_within_half_a_step(data, exponent, quantity):
    images = make((data * 10**exponent * np.exp(1j * np.arange(5))).astype(np.complex64))
    pixels = scale_series(images, quantity=quantity)
    truth = np.abs(images.data) if quantity == "magnitude" else np.angle(images.data)
    kept = truth <= pixels.scaling.slope * 65535
    assert np.abs(recovered(pixels) - truth)[kept].max(initial=0) <= 0.50001 * pixels.scaling.slope
    assert np.count_nonzero(~kept) == pixels.clipped


def test_one_hot_pixel_changes_neither_window_nor_resolution_of_the_body():
    clean = make(body())
    spiked = body()
    spiked[1, 3, 3] = 1e7
    plain, hot = scale_series(clean), scale_series(make(spiked))
    assert hot.clipped == 1
    assert hot.scaling.window_width == pytest.approx(plain.scaling.window_width, rel=0.02)
    assert hot.scaling.slope < 60 / 2000
    assert hot.data[1, 3, 3] == 65535


def test_window_spans_the_body():
    scaling = scale_series(make(body())).scaling
    assert scaling.window_center == pytest.approx(scaling.window_width / 2)
    assert 55 < scaling.window_width < 70


def test_slices_share_a_scale_that_is_handed_on():
    first = scale_series(make(body()))
    second = scale_series(make(body(1) * 0.5), scaling=first.scaling)
    assert second.scaling == first.scaling
    np.testing.assert_allclose(
        recovered(second), np.abs(body(1) * 0.5), atol=first.scaling.slope * 0.51, rtol=0
    )
    assert scale_series(make(body() * 100), scaling=first.scaling).clipped > 0


def test_all_zero_images_are_stored_as_zeros():
    pixels = scale_series(make(np.zeros((2, 4, 4))))
    assert not pixels.data.any()
    assert pixels.scaling.slope > 0
    assert pixels.scaling.window_width > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, np.nan)])
def test_pixels_that_are_not_finite_are_refused(bad):
    data = body()
    data[2, 3, 4] = bad
    with pytest.raises(DicomError, match="1 of 4096 pixels are not finite"):
        scale_series(make(data))


def test_nothing_to_store_is_refused():
    with pytest.raises(DicomError, match="nothing to store"):
        scale_series(make(np.zeros((0, 4, 4))))
