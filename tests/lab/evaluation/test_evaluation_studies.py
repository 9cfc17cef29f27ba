from __future__ import annotations

import numpy as np
import pytest

from recon_node.core.errors import DataError
from recon_node.lab.evaluation.biomarkers import bland_altman, blood_volume_ml, function_of, mask_volume_ml
from recon_node.lab.evaluation.metrics import Metrics
from recon_node.lab.evaluation.studies import Result, compare, table


def ventricle(shape=(64, 64)):
    """Shares of cavity and wall of a beating ring, by supersampling."""
    fine = np.linspace(-1, 1, 8 * shape[0])
    r = np.hypot(fine[:, None], fine[None])
    radii = 0.35 + 0.1 * np.cos(2 * np.pi * np.arange(10) / 10)

    def shares(inside):
        return inside.reshape(shape[0], 8, shape[1], 8).mean(axis=(1, 3))

    cavity = np.stack([shares(r < radius) for radius in radii])
    wall = np.stack([shares((r >= radius) & (r < 0.65)) for radius in radii])
    return cavity, wall, np.pi * (radii * 32) ** 2


def test_a_mask_has_the_volume_of_its_circle():
    cavity, _, area_pixels = ventricle()
    got = mask_volume_ml(cavity, pixel_mm=(1.5, 1.2), thickness_mm=8.0)
    np.testing.assert_allclose(got, area_pixels * 1.5 * 1.2 * 8 / 1000, rtol=0.01)
    stack = mask_volume_ml(np.stack([cavity, cavity]), pixel_mm=(1.5, 1.2), thickness_mm=8.0)
    np.testing.assert_allclose(stack, 2 * got)


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_blood_is_measured_in_the_image_whatever_its_scale(scale):
    cavity, wall, area = ventricle()
    rng = np.random.default_rng(0)
    images = scale * (4 * cavity + 1 * wall + 0.2 + 0.1 * rng.normal(size=cavity.shape)) * np.exp(0.7j)
    got = blood_volume_ml(images, cavity=cavity, wall=wall, pixel_mm=(1.0, 1.0), thickness_mm=10.0)
    np.testing.assert_allclose(got, area / 100, rtol=0.08)


def test_an_image_that_does_not_beat_has_no_ejection():
    cavity, wall, area = ventricle()
    images = np.broadcast_to((4 * cavity + wall).mean(axis=0), cavity.shape)
    got = blood_volume_ml(images, cavity=cavity, wall=wall, pixel_mm=(1.0, 1.0), thickness_mm=10.0)
    true = function_of(area).ejection_fraction_percent
    assert function_of(got).ejection_fraction_percent < 0.6 * true


def test_function_follows_from_the_extremes_of_the_curve():
    function = function_of(np.array([120.0, 80.0, 50.0, 90.0]))
    assert function.stroke_volume_ml == 70
    assert function.ejection_fraction_percent == pytest.approx(58.333, abs=1e-3)


@pytest.mark.parametrize("curve", [[], [0.0, 0.0], [[1.0]]])
def test_a_curve_without_volume_is_refused(curve):
    with pytest.raises(DataError, match="no positive volume"):
        function_of(np.array(curve))


def test_blood_that_is_not_bright_or_not_there_is_refused():
    cavity, wall, _ = ventricle()
    options = {"pixel_mm": (1.0, 1.0), "thickness_mm": 8.0}
    with pytest.raises(DataError, match="not brighter"):
        blood_volume_ml(cavity + 3 * wall, cavity=cavity, wall=wall, **options)
    with pytest.raises(DataError, match="does not cut"):
        blood_volume_ml(cavity, cavity=0 * cavity, wall=wall, **options)


def test_agreement_is_bias_and_spread():
    got = bland_altman(np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.0, 2.0]))
    assert (got.bias, got.sd) == (1.0, 1.0)
    assert (got.low, got.high) == pytest.approx((-0.96, 2.96))
    with pytest.raises(DataError, match="at least two cases"):
        bland_altman(np.array([1.0]), np.array([1.0]))


def results(gain, n=12, seed=0):
    rng = np.random.default_rng(seed)
    for scan in range(n):
        base = rng.normal(30, 3)
        for method, psnr in (("sense", base), ("cardiomm", base + gain + 0.3 * rng.normal())):
            yield Result(
                scan=str(scan),
                condition="random 8x",
                method=method,
                metrics=Metrics(psnr=psnr, ssim=0.9, nmse=0.01),
            )


def test_a_table_has_a_row_for_each_condition_and_method():
    rows = table(results(2.0))
    assert [row.method for row in rows] == ["sense", "cardiomm"]
    assert all(row.scans == 12 for row in rows)
    assert rows[1].psnr - rows[0].psnr == pytest.approx(2, abs=0.3)
    assert rows[0].psnr_sd > 1


def test_a_gain_hidden_by_the_spread_of_scans_shows_in_the_paired_test():
    got = compare(list(results(1.0)), "cardiomm", "sense")
    assert got.gain_db == pytest.approx(1, abs=0.3)
    assert got.p < 0.01
    assert got.wins == 12


def test_no_difference_is_not_significant():
    assert compare(list(results(0.0, n=30)), "cardiomm", "sense").p > 0.05
    same = [r for r in results(1.0) if r.method == "sense"]
    twins = same + [Result(scan=r.scan, condition=r.condition, method="b", metrics=r.metrics) for r in same]
    assert compare(twins, "sense", "b").p == 1.0


def test_methods_without_common_scans_are_not_compared():
    with pytest.raises(DataError, match="share 0 scans"):
        compare(list(results(1.0)), "cardiomm", "sense", condition="uniform 4x")
