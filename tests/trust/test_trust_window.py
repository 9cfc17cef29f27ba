"""Fewer columns of more phases, where every phase samples other lines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon_node.core.fft import centred_fft
from recon_node.core.types import CoilMaps, ImageSeries, MadeBy
from recon_node.methods.asked_again import AskedAgain
from recon_node.methods.kt import KtSparse
from recon_node.methods.sense import Sense
from recon_node.pipeline.arrays import kspace_from_arrays
from recon_node.simulate import draw_example, draw_mask
from recon_node.trust import measure
from recon_node.trust.window import (
    PHASES,
    beyond_window,
    images_within,
    kspace_within,
    maps_within,
    window_of,
)

SIZE, COUNT = 96, 14


@pytest.fixture(scope="module")
def cine():
    """Random lines, others in every phase, and the truth behind them."""
    rng = np.random.default_rng(4)
    heart = draw_example(rng, matrix=(SIZE, SIZE), phases=COUNT, coils=6, modality="cine")
    mask = draw_mask("random", 6, shape=(COUNT, SIZE, SIZE), acs=16, rng=rng)
    kspace = kspace_from_arrays(heart.kspace, mask, whitened=True)
    maps = CoilMaps(data=heart.maps[None], support=np.ones((SIZE, SIZE), np.bool_))
    return kspace, maps, heart.images


def images_of(kspace, data):
    return ImageSeries(
        data=np.asarray(data, np.complex64),
        geometry=kspace.geometry,
        header=kspace.header,
        index=kspace.index,
        made_by=MadeBy(method="test", version="0"),
    )


def test_columns_lie_where_most_moves(cine):
    kspace, _, images = cine
    still = np.repeat(images[:1], COUNT, axis=0)
    still[:, 30:50, 60:70] *= (1 + 0.5 * np.sin(np.arange(COUNT)))[:, None, None]
    window = window_of(kspace, still, 5)
    assert window.stop - window.start == 40  # 96 columns of 5 phases in 12
    assert window.start <= 60
    assert window.stop >= 70


def test_samples_within_are_those_of_the_columns_alone(cine):
    kspace, maps, images = cine
    window = slice(20, 60)
    full = centred_fft(maps.data[0] * images[:, None])
    noiseless = dataclasses.replace(kspace, data=(full * kspace.mask[:, None]).astype(np.complex64))
    part = kspace_within(noiseless, window)
    few, shown = maps_within(maps, window), images_within(images_of(kspace, images), window)
    middle = slice((COUNT - PHASES) // 2, (COUNT - PHASES) // 2 + PHASES)
    expected = centred_fft(few.data[0] * shown.data[middle][:, None]) * part.mask[:, None]
    np.testing.assert_allclose(part.data, expected, atol=1e-4 * np.abs(expected).max())
    assert part.mask.shape == (PHASES, SIZE, 40)


def test_noise_within_keeps_its_variance(cine):
    kspace, _, _ = cine
    rng = np.random.default_rng(1)
    noise = (rng.normal(size=kspace.data.shape) + 1j * rng.normal(size=kspace.data.shape)) / np.sqrt(2)
    noise = (noise * kspace.mask[:, None]).astype(np.complex64)
    part = kspace_within(dataclasses.replace(kspace, data=noise), slice(8, 48))
    sampled = np.broadcast_to(part.mask[:, None], part.data.shape)
    assert np.mean(np.abs(part.data[sampled]) ** 2) == pytest.approx(1, rel=0.03)
    assert not part.data[~sampled].any()


def test_few_phases_still_masks_single_points_and_narrow_images_are_looked_at_whole(cine):
    kspace, _, images = cine
    assert window_of(kspace, images[:5], 5) is None
    still = dataclasses.replace(kspace, mask=np.broadcast_to(kspace.mask[:1], kspace.mask.shape))
    assert window_of(still, images, 5) is None
    points = kspace.mask.copy()
    points[0, 0, 1] ^= True
    assert window_of(dataclasses.replace(kspace, mask=points), images, 5) is None
    narrow = dataclasses.replace(kspace, data=kspace.data[..., :64], mask=kspace.mask[..., :64])
    assert window_of(narrow, images[..., :64], 5) is None


def test_a_map_beside_the_columns_has_the_size_of_its_rows():
    few = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    whole = beyond_window(few, slice(1, 3), 4)
    np.testing.assert_array_equal(whole[:, 1:3], few)
    np.testing.assert_allclose(whole[:, 0], np.sqrt([12.5, 0.5]), rtol=1e-6)
    np.testing.assert_array_equal(whole[:, 0], whole[:, 3])


def test_what_is_measured_in_some_columns_goes_with_the_error_of_all(cine):
    kspace, maps, truth = cine
    found = {}
    for name, method in (("kt", KtSparse(device="cpu")), ("sense", Sense(device="cpu"))):
        images = method.reconstruct(kspace, maps)
        measures = measure(
            kspace,
            maps,
            images,
            reconstruct=AskedAgain(method=method, maps=maps, images=images),
            reference=AskedAgain(method=Sense(device="cpu"), maps=maps),
        )
        error = np.mean(np.abs(images.data - truth) ** 2) / np.mean(np.abs(truth) ** 2)
        found[name] = error, measures
        assert measures.error_map.shape == (SIZE, SIZE)
        assert error / 4 < measures.predicted_nmse < 4 * error
    assert found["kt"][0] < 0.5 * found["sense"][0]
    assert found["kt"][1].predicted_nmse < found["sense"][1].predicted_nmse
    assert found["kt"][1].heldout_ratio < 0.9


def test_a_method_of_somebody_else_is_asked_for_whole_images(cine):
    """It may know the size of its scanner's images only."""
    kspace, maps, truth = cine
    widths = []

    class Foreign:
        name = "foreign"

        def reconstruct(self, part, coil_maps, text=None):
            widths.append(part.data.shape[3])
            first = (COUNT - len(part.data)) // 2
            return images_of(part, truth[first : first + len(part.data)])

    measures = measure(
        kspace,
        maps,
        images_of(kspace, truth),
        reconstruct=AskedAgain(method=Foreign(), maps=maps),
        reference=AskedAgain(method=Sense(device="cpu"), maps=maps),
    )
    assert widths == [SIZE]
    assert measures.heldout_ratio < 0.5
