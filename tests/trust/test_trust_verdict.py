from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import ConfigError, WeightsError
from recon_node.core.fft import centred_fft
from recon_node.core.types import Prompt, Prompts, Sampling
from recon_node.trust import (
    DEFAULTS,
    Limit,
    Limits,
    Measures,
    Standards,
    TrainedOn,
    calibrate,
    conformal_quantile,
    group_of,
    judge,
    judge_reconstruction,
    load_limits,
    novelty,
    save_limits,
)

LIMIT = Limit(typical=1.0, warn=2.0, fallback=4.0)
GOOD = Measures(finite=True, heldout_ratio=0.8, consistency=0.1)


def prompts(field="3.0T", modality="cine", acceleration="8x"):
    text = (
        f"Adult cardiac MRI reconstruction.Vendor: {field}, Siemens, Vida. Modality: {modality}, short-axis."
    )
    return Prompts(metadata=Prompt(text), undersampling=Prompt(f"Undersampling: {acceleration} random."))


def sampling(acceleration):
    return Sampling(pattern="random", acceleration=acceleration, effective_acceleration=3.0, acs=20)


@pytest.mark.parametrize(
    ("ratio", "verdict", "score"),
    [(0.5, "pass", 1.0), (1.5, "pass", 0.75), (3.0, "warn", 0.25), (4.5, "fallback", 0.0)],
)
def test_the_worst_measure_decides_verdict_and_score(ratio, verdict, score):
    measures = Measures(finite=True, heldout_ratio=ratio, consistency=0.0)
    got = judge(measures, {"heldout_ratio": LIMIT, "consistency": LIMIT})
    assert got.verdict == verdict
    assert got.score == pytest.approx(score)
    assert bool(got.reasons) == (verdict != "pass")


def test_the_reason_says_what_was_found_and_where_the_limit_is():
    reason = judge(Measures(finite=True, heldout_ratio=3.0), {"heldout_ratio": LIMIT}).reasons[0]
    assert "held-out lines are predicted 3.00 times as badly as by parallel imaging" in reason
    assert "limit 2.00" in reason


def test_values_that_are_no_numbers_are_never_believed():
    verdict = judge(Measures(finite=False))
    assert (verdict.verdict, verdict.score) == ("fallback", 0.0)


def test_one_measure_beyond_fallback_outweighs_a_later_warning():
    measures = Measures(finite=True, heldout_ratio=5.0, peak_ratio=3.0)
    assert judge(measures, {"heldout_ratio": LIMIT, "peak_ratio": LIMIT}).verdict == "fallback"


def test_unfamiliar_scans_are_warned_of_but_not_withheld():
    verdict = judge(GOOD, unfamiliar=("field 7.0T was not in the training data",))
    assert verdict.verdict == "warn"
    assert verdict.score == 0.5
    assert verdict.reasons == ("field 7.0T was not in the training data",)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 100), st.floats(0, 100))
def test_a_worse_measure_never_gets_a_better_score(one, other):
    for limit in (
        LIMIT,
        Limit(typical=1.0, warn=2.0, fallback=math.inf),
        Limit(typical=1, warn=1, fallback=1),
    ):
        low, high = sorted((one, other))
        assert 0 <= limit.score(high) <= limit.score(low) <= 1


def test_what_the_training_data_lacked_is_named():
    trained = TrainedOn(
        max_acceleration=24, words={"field": frozenset({"1.5T", "3.0T"}), "modality": frozenset({"cine"})}
    )
    assert novelty(prompts(), sampling(8.0), trained) == ()
    assert novelty(prompts(), sampling(25.0), trained) == ()
    said = novelty(prompts(field="5.0T", modality="tagging"), sampling(40.0), trained)
    assert len(said) == 3
    assert "acceleration 40.0 is above the 24" in said[0]
    assert novelty(prompts(), sampling(math.inf), trained)


def test_unknown_words_are_not_new_but_knowing_nothing_is_said():
    trained = TrainedOn(words={"field": frozenset({"3.0T"})})
    assert novelty(prompts(field="unknown"), sampling(8.0), trained) == ()
    assert "neither modality nor field" in novelty(prompts("unknown", "unknown"), sampling(8.0), trained)[0]


def test_a_group_is_modality_and_acceleration():
    assert group_of(prompts(modality="T1 mapping post")) == "T1 mapping post 8x"


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_a_new_value_stays_within_the_conformal_limit_as_often_as_promised(level):
    rng = np.random.default_rng(5)
    draws = rng.exponential(size=(4000, 100))
    inside = [draw[-1] <= conformal_quantile(list(draw[:-1]), level) for draw in draws]
    assert level - 0.015 < np.mean(inside) < level + 0.025


def test_too_few_values_have_no_finite_limit():
    assert conformal_quantile([1.0] * 18, 0.95) == math.inf
    assert conformal_quantile([1.0] * 19, 0.95) == 1.0


def calibration_set(n=40):
    rng = np.random.default_rng(0)
    for group, scale in (("cine 8x", 1.0), ("cine 16x", 2.0)):
        for value in scale * (0.5 + 0.1 * rng.random(n)):
            yield group, Measures(finite=True, heldout_ratio=value, consistency=0.1 * value)
    yield "rare 4x", Measures(finite=True, heldout_ratio=0.7)


def test_each_group_gets_its_own_limits_and_rare_ones_the_common_ones():
    limits = calibrate(calibration_set())
    assert set(limits.groups) == {"cine 8x", "cine 16x"}
    assert 0.5 < limits.of("cine 8x")["heldout_ratio"].warn <= 0.6
    assert 1.0 < limits.of("cine 16x")["heldout_ratio"].warn <= 1.2
    assert limits.of("rare 4x") == limits.of("never seen")
    assert limits.of("rare 4x")["heldout_ratio"].warn > 1.0
    assert limits.of("cine 8x")["peak_ratio"] == DEFAULTS["peak_ratio"]


def test_measures_of_the_heart_share_one_limit_beyond_which_fewer_good_scans_lie():
    shares = {}
    for name in ("consistency", "fit_ratio"):
        rng = np.random.default_rng(3)
        drawn = [Measures(finite=True, **{name: value}) for value in rng.exponential(size=1400)]
        limits = calibrate(zip(["cine 4x", "cine 8x"] * 200, drawn, strict=False))
        assert all((name in group) == (name == "fit_ratio") for group in limits.groups.values())
        beyond = [one for one in drawn[400:] if getattr(one, name) > limits.of("cine 4x")[name].warn]
        shares[name] = len(beyond) / 1000
    assert shares["consistency"] < 0.03 < shares["fit_ratio"] < 0.08


def test_withholding_needs_more_than_being_the_worst_of_the_good_ones():
    limit = calibrate(calibration_set(200)).of("cine 8x")["heldout_ratio"]
    assert limit.fallback >= 1.25 * limit.warn


@pytest.mark.parametrize(
    ("scans", "levels", "message"),
    [
        ([("a", GOOD)] * 5, {}, "5 scans are too few"),
        ([], {}, "0 scans are too few"),
        ([("a", GOOD)] * 50, {"warn_level": 1.0}, "expected 0 < warn"),
        ([("a", GOOD)] * 50, {"warn_level": 0.9, "fallback_level": 0.8}, "expected 0 < warn"),
    ],
)
def test_a_calibration_that_promises_nothing_is_refused(scans, levels, message):
    with pytest.raises(ConfigError, match=message):
        calibrate(scans, **levels)


def test_limits_survive_writing_and_reading(tmp_path):
    limits = Limits(
        default={"consistency": LIMIT},
        groups={"cine 8x": {"heldout_ratio": Limit(typical=1.0, warn=2.0, fallback=math.inf)}},
    )
    save_limits(limits, tmp_path / "t.json")
    again = load_limits(tmp_path / "t.json")
    assert again.of("cine 8x") == limits.of("cine 8x")
    assert again.of("x") == limits.of("x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 3, "default": {}, "groups": {}}',
        '{"version": 2, "default": {}, "groups": {}, "errors": {"usual": {"beauty": 1}}}',
        '{"version": 1, "default": {"beauty": [1, 2, 3]}, "groups": {}}',
        '{"version": 1, "default": {"consistency": [3, 2, 1]}, "groups": {}}',
        '{"version": 1, "default": {"consistency": [1, 2]}, "groups": {}}',
    ],
)
def test_a_damaged_table_of_limits_is_one_clear_error(tmp_path, text):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=r"t\.json"):
        load_limits(path)


def test_a_missing_table_of_limits_is_one_clear_error(tmp_path):
    with pytest.raises(WeightsError, match="no table of trust limits"):
        load_limits(tmp_path / "absent.json")


def test_a_faithful_reconstruction_passes_and_an_invented_one_is_withheld(scene):
    kspace, maps = scene.kspace, scene.maps
    truth = judge_reconstruction(
        kspace,
        maps,
        scene.oracle(kspace),
        prompts=scene.prompts,
        reconstruct=scene.oracle,
        reference=scene.sense,
    )
    assert truth.verdict == "pass"
    assert truth.score > 0.9

    def invents(part):
        return scene.series(np.abs(scene.oracle(part).data[:, ::-1]) * np.exp(1j * np.angle(part.data[0, 0])))

    wrong = judge_reconstruction(
        kspace,
        maps,
        invents(kspace),
        prompts=scene.prompts,
        reconstruct=invents,
        reference=scene.sense,
    )
    assert wrong.verdict == "fallback"
    assert wrong.reasons


def test_an_image_that_may_be_mirrored_is_never_passed(scene):
    geometry = dataclasses.replace(scene.kspace.geometry, verified=False)
    kspace = dataclasses.replace(scene.kspace, geometry=geometry)
    verdict = judge_reconstruction(kspace, scene.maps, scene.oracle(kspace), prompts=scene.prompts)
    assert verdict.verdict == "warn"
    assert any("may be mirrored" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("folded", "sets", "weights", "reason"),
    [
        (0.3, 1, None, "folds into 30% of the object: coils.maps = 2 (or auto) tells them apart"),
        (0.3, 2, None, "method oracle knows one of 2 coil map sets only"),
        (0.01, 1, "default", None),
        (None, 2, "default", None),
    ],
)
def test_an_object_beyond_the_field_of_view_is_never_passed(scene, folded, sets, weights, reason):
    data = np.concatenate([scene.maps.data] + [0 * scene.maps.data] * (sets - 1))
    maps = dataclasses.replace(scene.maps, data=data, folded=folded)
    images = scene.oracle(scene.kspace)
    images = dataclasses.replace(images, made_by=dataclasses.replace(images.made_by, weights=weights))
    verdict = judge_reconstruction(scene.kspace, maps, images, prompts=scene.prompts)
    assert verdict.verdict == ("pass" if reason is None else "warn")
    assert reason is None or any(reason in said for said in verdict.reasons)


def test_limits_keep_the_patterns_the_weights_are_weak_at(tmp_path):
    save_limits(Limits(weak_patterns=frozenset({"uniform"})), tmp_path / "limits.json")
    assert load_limits(tmp_path / "limits.json").weak_patterns == {"uniform"}


@pytest.mark.parametrize(
    ("weak", "verdict"), [({"random"}, "warn"), ({"random 4x"}, "warn"), ({"random 8x", "uniform"}, "pass")]
)
def test_a_weak_pattern_is_never_passed_alone_or_with_its_acceleration(scene, weak, verdict):
    kspace = scene.kspace
    found = judge_reconstruction(
        kspace,
        scene.maps,
        scene.oracle(kspace),
        prompts=scene.prompts,
        reconstruct=scene.oracle,
        reference=scene.sense,
        standards=Standards(limits=Limits(weak_patterns=frozenset(weak))),
    )
    assert found.verdict == verdict


def test_an_image_that_nothing_vouches_for_is_doubted_not_withheld():
    verdict = judge(Measures(finite=True, heldout_ratio=0.9, heldout_share=0.99))
    assert verdict.verdict == "warn"
    assert verdict.reasons == (
        "of held-out lines 99 % are missed, almost as if nothing were known of them (limit 0.95)",
    )


def test_a_calibration_never_loosens_what_is_measured_against_parallel_imaging():
    poor = [
        ("cine 8x", Measures(finite=True, heldout_ratio=3.0 + i / 100, peak_ratio=9.0)) for i in range(99)
    ]
    limits = calibrate(poor).of("cine 8x")
    assert limits["heldout_ratio"] == Limit(typical=1.1, warn=1.1, fallback=1.6)
    assert limits["peak_ratio"].warn == 9.0


@pytest.mark.parametrize(("folded", "said"), [(0.05, 0), (0.2, 1)])
def test_two_layers_that_a_method_knows_still_lie_over_each_other(scene, folded, said):
    data = np.concatenate([scene.maps.data, 0 * scene.maps.data])
    maps = dataclasses.replace(scene.maps, data=data, folded=folded)
    images = scene.oracle(scene.kspace)
    both = dataclasses.replace(images, parts=np.stack([images.data, 0 * images.data], axis=1))
    verdict = judge_reconstruction(scene.kspace, maps, both, prompts=scene.prompts)
    found = [reason for reason in verdict.reasons if "two signals lie over each other" in reason]
    assert len(found) == said
    assert (verdict.verdict == "warn") == bool(said)


@pytest.mark.parametrize(("less", "said"), [(1, 0), (20, 1)])
def test_an_image_of_little_more_than_noise_is_said_to_be_one(scene, less, said):
    noise = scene.kspace.data - scene.kspace.mask[:, None] * centred_fft(
        scene.maps.data[0] * scene.truth[:, None]
    )
    data = (scene.kspace.data - noise) / less + noise
    kspace = dataclasses.replace(scene.kspace, data=data.astype(np.complex64))
    images = scene.series(scene.truth / less)
    verdict = judge_reconstruction(kspace, scene.maps, images, prompts=scene.prompts)
    assert len([one for one in verdict.reasons if "noise alone is" in one]) == said
