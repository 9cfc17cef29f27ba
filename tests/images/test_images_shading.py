"""Surface-coil shading: evened out where asked for, anatomy and phase as they were."""

from __future__ import annotations

import numpy as np
import pytest

from recon_node.core.errors import ConfigError
from recon_node.core.types import ImageSeries, MadeBy
from recon_node.images import evened
from recon_node.lab.evaluation.heldout import kspace_of
from recon_node.pipeline import row
from recon_node.settings import Settings
from recon_node.simulate import draw_example, draw_mask


@pytest.fixture(scope="module")
def heart():
    return draw_example(np.random.default_rng(5), matrix=(128, 128), phases=3, coils=8, modality="cine")


def kspace(heart):
    mask = draw_mask("full", 1, shape=(3, 128, 128), rng=np.random.default_rng(0))
    return kspace_of(heart, mask, acs=20)


def series(heart, data) -> ImageSeries:
    scanned = kspace(heart)
    return ImageSeries(
        data=np.asarray(data, np.complex64),
        geometry=scanned.geometry,
        header=scanned.header,
        index=scanned.index,
        made_by=MadeBy(method="sense", version="0"),
    )


def shade() -> np.ndarray:
    """As of an array on the chest: six times brighter in front than at the back."""
    return np.exp(np.linspace(0.9, -0.9, 128))[:, None] * np.exp(np.linspace(-0.3, 0.3, 128))[None]


def slope(image, body) -> float:
    """By how much the anatomy's logarithm falls from front to back."""
    y = np.broadcast_to(np.linspace(-0.5, 0.5, 128)[:, None], body.shape)[body]
    return float(np.polyfit(y, np.log(np.abs(image)[body]), 1)[0])


def test_an_even_and_a_shaded_image_come_out_alike(heart) -> None:
    body = np.abs(heart.images).mean(axis=0)
    body = body > 0.2 * np.quantile(body, 0.98)
    even, shaded = evened(series(heart, heart.images)), evened(series(heart, heart.images * shade()))
    before = abs(slope(heart.images[0] * shade(), body) - slope(heart.images[0], body))
    after = abs(slope(shaded.data[0], body) - slope(even.data[0], body))
    assert before > 1.5
    assert after < 0.35 * before
    ratio = np.abs(shaded.data).mean(axis=0)[body] / np.abs(even.data).mean(axis=0)[body]
    assert np.log(ratio).std() < 0.4 * np.log(np.broadcast_to(shade(), body.shape)[body]).std()


def test_phase_motion_and_fine_contrast_stay(heart) -> None:
    images = series(heart, heart.images * shade())
    found = evened(images)
    lit = np.abs(images.data).min(axis=0) > 0.05 * np.abs(images.data).max()
    gain = np.where(lit, np.abs(found.data) / np.where(lit, np.abs(images.data), 1), 1)
    assert np.ptp(gain[:, lit], axis=0).max() < 1e-3  # one gain for all phases: nothing flickers
    np.testing.assert_allclose(np.angle(found.data)[:, lit], np.angle(images.data)[:, lit], atol=1e-4)
    steps = np.abs(np.diff(np.log(gain[0]), axis=0))[lit[1:] & lit[:-1]]
    assert steps.max() < 0.1  # from one pixel to the next next to nothing


def test_an_empty_image_is_left_alone(heart) -> None:
    nothing = series(heart, 0 * heart.images)
    assert evened(nothing) is nothing


def test_it_is_off_unless_asked_for_and_then_said(heart) -> None:
    plain = row.reconstruct(kspace(heart), method="sense")
    asked = row.reconstruct(
        kspace(heart), method="sense", settings=Settings().replace("recon", shading="even")
    )
    assert not any("shading" in note for note in plain.kspace.notes)
    assert any("surface-coil shading evened out" in note for note in asked.kspace.notes)
    assert asked.images.made_by.settings["shading"] == "evened"
    assert not np.allclose(np.abs(plain.images.data), np.abs(asked.images.data), rtol=0.05)


def test_maps_of_relaxation_times_are_never_made_of_evened_images() -> None:
    mapping = Settings().replace("dicom", images=("magnitude", "t1"))
    with pytest.raises(ConfigError, match=r"shading: found .even., allowed keep, as dicom\.images has t1"):
        mapping.replace("recon", shading="even")
    assert mapping.recon.shading == "keep"
