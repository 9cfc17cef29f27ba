from __future__ import annotations

import math

import pytest

from recon_node.trust import (
    ErrorModel,
    Limits,
    Line,
    Measures,
    Standards,
    doubt,
    judge_reconstruction,
    load_limits,
    save_limits,
)
from recon_node.trust.limits import Limit

MODEL = ErrorModel(
    usual={"predicted_nmse": 0.01, "spike": 3.0},
    lines={
        "psnr": Line(start=-4.0, slopes={"predicted_nmse": 1.0, "spike": 0.5}, spread=0.1),
        "ssim": Line(start=-2.0, slopes={"predicted_nmse": 0.5}, spread=0.05),
    },
    quantiles={"cine 4x random": 2.0, "": 4.0, "rare": math.inf},
)


def measures(**fields):
    return Measures(finite=True, **fields)


def test_usual_measures_expect_the_usual_error_and_worse_ones_more():
    usual = MODEL.expect(measures(predicted_nmse=0.004, spike=2.0))
    assert (usual.psnr, usual.ssim) == pytest.approx((40.0, 0.99))
    worse = MODEL.expect(measures(predicted_nmse=0.1, spike=30.0))
    assert worse.psnr == pytest.approx(25.0)
    assert worse.ssim == pytest.approx(1 - 10**-1.5)


def test_the_bound_is_that_of_the_narrowest_group_that_has_one():
    some = measures(predicted_nmse=0.01)
    narrow = MODEL.expect(some, ("cine 4x random", "cine 4x"))
    assert narrow.psnr_at_least == pytest.approx(38.0)
    assert narrow.sentence == "SSIM at least 0.99, PSNR at least 38 dB (90%)"
    assert MODEL.expect(some, ("cine 8x",)).psnr_at_least == pytest.approx(36.0)
    unbounded = MODEL.expect(some, ("rare",))
    assert unbounded.psnr_at_least is None
    assert unbounded.sentence == "SSIM about 0.99, PSNR about 40 dB"


def test_the_model_lives_in_the_file_of_limits(tmp_path):
    save_limits(Limits(errors=MODEL), tmp_path / "limits.json")
    assert load_limits(tmp_path / "limits.json").errors == MODEL


def test_a_file_of_the_first_version_is_read_and_knows_no_model(tmp_path):
    path = tmp_path / "limits.json"
    path.write_text('{"version": 1, "default": {"consistency": [0.1, 0.2, 0.3]}, "groups": {}}')
    assert load_limits(path).errors is None
    assert load_limits(path).of("cine 8x")["consistency"].warn == 0.2


@pytest.mark.parametrize("calibrated", [True, False])
def test_only_limits_of_its_own_give_a_method_a_bound(scene, calibrated):
    verdict = judge_reconstruction(
        scene.kspace,
        scene.maps,
        scene.oracle(scene.kspace),
        prompts=scene.prompts,
        reconstruct=scene.oracle,
        reference=scene.sense,
        standards=Standards(limits=Limits(errors=MODEL), calibrated=calibrated),
    )
    assert (verdict.expected is not None) == calibrated
    assert calibrated or verdict.verdict != "pass"


def test_a_scan_beyond_a_limit_gets_no_bound(scene):
    def judged(limits):
        return judge_reconstruction(
            scene.kspace,
            scene.maps,
            scene.oracle(scene.kspace),
            prompts=scene.prompts,
            reconstruct=scene.oracle,
            reference=scene.sense,
            standards=Standards(limits=limits),
        )

    tight = {"spike": Limit(typical=1.0, warn=1.5, fallback=math.inf)}
    beyond = judged(Limits(default=tight, errors=MODEL))
    assert (beyond.verdict, beyond.expected) == ("warn", None)
    unfamiliar = judged(Limits(errors=MODEL, weak_patterns=frozenset({"random"})))
    assert unfamiliar.verdict == "warn"
    assert unfamiliar.expected is not None


def test_doubt_orders_images_where_scores_have_ended():
    limits = {"spike": Limit(typical=3.0, warn=30.0, fallback=math.inf)}
    doubts = [doubt(measures(spike=value), limits) for value in (1.0, 3.0, 30.0, 300.0)]
    assert doubts == pytest.approx([0, 0, 1, 2])
    assert doubt(Measures(finite=False), limits) == math.inf
