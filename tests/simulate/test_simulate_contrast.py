import numpy as np
import pytest

from recon_node.core.errors import ConfigError
from recon_node.simulate.contrast import (
    BLOOD,
    FAT,
    FIELDS_T,
    LIVER,
    MODALITIES,
    MUSCLE,
    MYOCARDIUM,
    SCAR,
    bssfp,
    contrast,
    inversion,
    null_time_ms,
    relaxation,
    spoiled,
)
from recon_node.simulate.motion import filling


@pytest.mark.parametrize("field_t", FIELDS_T)
def test_bssfp_shows_fat_and_blood_above_myocardium_above_muscle(field_t):
    signal = bssfp(relaxation(field_t), flip_deg=55, tr_ms=3.2)
    assert min(signal[FAT], signal[BLOOD]) > 1.3 * signal[MYOCARDIUM]
    assert signal[MYOCARDIUM] > signal[MUSCLE]


def test_bssfp_approaches_its_limit_for_short_repetition():
    tissue = relaxation(1.5)
    cosine, ratio = np.cos(np.deg2rad(60)), tissue.t1_ms / tissue.t2_ms
    limit = tissue.density * np.sin(np.deg2rad(60)) / ((ratio + 1) - cosine * (ratio - 1))
    assert np.allclose(bssfp(tissue, flip_deg=60, tr_ms=1e-3)[1:], limit[1:], rtol=1e-3)


def test_spoiled_signal_peaks_at_the_ernst_angle():
    tissue = relaxation(3.0)
    ernst = np.degrees(np.arccos(np.exp(-5.0 / tissue.t1_ms[MYOCARDIUM])))
    flips = ernst + np.array([-3.0, 0.0, 3.0])
    signal = [spoiled(tissue, flip_deg=f, tr_ms=5.0, te_ms=0.0)[MYOCARDIUM] for f in flips]
    assert np.argmax(signal) == 1


def test_t1_grows_and_t2_shrinks_with_the_field():
    tissues = [relaxation(f) for f in FIELDS_T]
    assert np.all(np.diff([t.t1_ms[1:] for t in tissues], axis=0) > 0)
    assert np.all(np.diff([t.t2_ms[1:] for t in tissues], axis=0) <= 0)


def test_an_inversion_nulls_a_tissue_at_its_null_time():
    tissue = relaxation(1.5)
    ti = null_time_ms(float(tissue.t1_ms[MYOCARDIUM]))
    assert abs(inversion(tissue, np.array([ti]))[0, MYOCARDIUM]) < 1e-9


def test_contrast_agent_leaves_scar_brightest_in_late_enhancement():
    tissue = relaxation(1.5, gadolinium=1.0)
    signals = contrast("late Gadolinium enhancement", tissue, field_t=1.5, phases=1).signals[0]
    assert signals[SCAR] > 5 * abs(signals[MYOCARDIUM])
    assert tissue.t1_ms[SCAR] < tissue.t1_ms[BLOOD] < relaxation(1.5).t1_ms[BLOOD]


def test_mapping_frames_follow_their_relaxation():
    tissue = relaxation(3.0)
    t1 = contrast("T1 mapping", tissue, field_t=3.0, phases=9)
    assert t1.signals[0, MYOCARDIUM] < 0 < t1.signals[-1, MYOCARDIUM]
    assert np.all(np.diff(t1.ti_ms) >= 0)
    t2 = contrast("T2 mapping", tissue, field_t=3.0, phases=4).signals
    decay = np.log(t2[0, LIVER] / t2[-1, LIVER])
    assert decay == pytest.approx(55 / tissue.t2_ms[LIVER], rel=1e-6)


def test_first_pass_reaches_the_right_heart_before_the_left_before_the_wall():
    frames = contrast("perfusion", relaxation(1.5), field_t=1.5, phases=60)
    right, left = np.argmax(frames.rv_blood), np.argmax(frames.signals[:, BLOOD])
    assert right < left < np.argmax(frames.signals[:, MYOCARDIUM])


@pytest.mark.parametrize("modality", list(MODALITIES))
@pytest.mark.parametrize("phases", [1, 7])
def test_every_modality_gives_one_row_of_signals_per_frame(modality, phases):
    frames = contrast(modality, relaxation(3.0), field_t=3.0, phases=phases)
    assert frames.signals.shape[0] == len(frames.rv_blood) == phases
    assert np.isfinite(frames.signals).all()


def test_filling_starts_full_empties_at_end_systole_and_comes_back():
    t = np.linspace(0, 1, 1001)
    f = filling(t[:-1])
    assert f[0] == pytest.approx(1)
    assert f.min() == pytest.approx(0, abs=1e-12)
    assert 0.36 <= t[np.argmin(f)] <= 0.42
    assert f[-1] == pytest.approx(1, abs=1e-3)
    assert np.ptp(f[(t[:-1] > 0.65) & (t[:-1] < 0.82)]) < 1e-12  # diastasis


@pytest.mark.parametrize("field_t", [0.0, -1.5, 30.0, float("nan")])
def test_a_field_strength_without_tissue_values_is_refused(field_t):
    with pytest.raises(ConfigError, match="field strength"):
        relaxation(field_t)
