from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import DataError
from recon_node.lab.evaluation.metrics import frame_metrics, series_metrics, ssim_map


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    truth = rng.random((20, 24)) + 0.2
    return truth + 0.05 * rng.normal(size=truth.shape), truth


def test_ssim_is_the_formula_written_out_window_by_window(frames):
    a, b = frames
    got = ssim_map(a, b, data_range=b.max())
    c1, c2 = (0.01 * b.max()) ** 2, (0.03 * b.max()) ** 2
    for y, x in ((0, 0), (5, 9), (13, 17)):
        p, q = a[y : y + 7, x : x + 7].ravel(), b[y : y + 7, x : x + 7].ravel()
        cov = np.cov(p, q)
        luminance = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
        assert got[y, x] == pytest.approx(luminance * (2 * cov[0, 1] + c2) / (cov[0, 0] + cov[1, 1] + c2))
    assert got.shape == (14, 18)


def test_psnr_and_nmse_are_their_definitions(frames):
    a, b = frames
    m = frame_metrics(a, b, normalise=False)
    assert m.psnr == pytest.approx(20 * np.log10(b.max() / np.sqrt(np.mean((a - b) ** 2))))
    assert m.nmse == pytest.approx(np.linalg.norm(a - b) ** 2 / np.linalg.norm(b) ** 2)


def test_equal_images_are_perfect(frames):
    m = frame_metrics(frames[1], frames[1])
    assert (m.psnr, m.nmse) == (np.inf, 0)
    assert m.ssim == pytest.approx(1)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 1000), st.floats(0.01, 1000))
def test_normalised_metrics_ignore_scale_and_phase(one, other):
    rng = np.random.default_rng(0)
    a, b = rng.random((12, 12)) + 0.1, rng.random((12, 12)) + 0.1
    m, n = frame_metrics(a, b), frame_metrics(one * a * np.exp(1j), other * b)
    assert n.psnr == pytest.approx(m.psnr)
    assert n.ssim == pytest.approx(m.ssim)
    assert n.nmse == pytest.approx(m.nmse)


def test_more_noise_is_worse_by_every_measure(frames):
    _, truth = frames
    noise = np.random.default_rng(1).normal(size=truth.shape)
    little, much = (frame_metrics(truth + s * noise, truth, normalise=False) for s in (0.02, 0.2))
    assert little.psnr - much.psnr == pytest.approx(20, abs=0.2)
    assert little.ssim > much.ssim
    assert little.nmse < much.nmse


def test_a_series_is_the_mean_over_its_frames(frames):
    a, b = frames
    series = series_metrics(np.stack([a, b * 0.9 + 0.01]), np.stack([b, b]))
    single = [frame_metrics(a, b), frame_metrics(b * 0.9 + 0.01, b)]
    assert series.psnr == pytest.approx(np.mean([m.psnr for m in single]))
    assert series.as_dict()["ssim"] == pytest.approx(np.mean([m.ssim for m in single]))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((8, 8)), np.ones((8, 9)), "expected the same"),
        (np.ones((6, 8)), np.ones((6, 8)), "at least 7"),
        (np.full((8, 8), np.nan), np.ones((8, 8)), "NaN"),
        (np.ones((8, 8)), np.zeros((8, 8)), "zero everywhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, message):
    with pytest.raises(DataError, match=message):
        frame_metrics(a, b)


def test_series_of_different_length_are_refused():
    with pytest.raises(DataError, match="expected the same"):
        series_metrics(np.ones((2, 8, 8)), np.ones((3, 8, 8)))
