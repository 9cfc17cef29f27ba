"""R waves in the trace of a simulated ECG without trigger marks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prep_scanner import block, coil_images, lines_of, make_header

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import Waveform
from recon_node.prep import Preparation, RetrospectiveGating
from recon_node.prep.ecg import waves_of_ecg

STAMP = 4_000_000
"""Time stamp (2.5 ms) of the first sample."""
LEADS = np.array([[1.0], [-0.6], [0.8], [0.15]])
PQRST = ((-170, 22, 0.12), (-28, 8, -0.12), (0, 10, 1.0), (28, 9, -0.25), (260, 45, 0.28))
"""Time after the R wave and width in ms, height."""


def ecg(
    intervals_ms: Any,
    *,
    rate_hz: float = 400.0,
    noise: float = 0.03,
    wander: float = 0.0,
    flow: float = 0.0,
    sign: float = 1.0,
    ectopic: tuple[int, ...] = (),
    piece: int = 2000,
) -> tuple[np.ndarray, list[Waveform]]:
    """R waves in ms, and the messages; `flow` is the voltage of flowing blood, in heights of an R wave."""
    waves = 500 + np.concatenate([[0.0], np.cumsum(intervals_ms)])
    times = np.arange(int((waves[-1] + 400) * rate_hz / 1000)) * 1000 / rate_hz
    rng = np.random.default_rng(len(waves))
    trace = np.zeros((4, len(times)))
    for number, wave in enumerate(waves):
        odd = number in ectopic
        for after, width, height in PQRST[odd:]:
            wide = 2.5 * width if odd and abs(after) < 50 else width
            high = 1.6 * height if odd else height
            trace += LEADS * high * np.exp(-0.5 * ((times - wave - after) / wide) ** 2)
        trace += LEADS[::-1] * flow * np.exp(-0.5 * ((times - wave - 230) / 60) ** 2)
    trace += wander * np.sin(2 * np.pi * 0.25 * times / 1000) + noise * rng.standard_normal(trace.shape)
    return waves + STAMP * 2.5, messages(2048 + 800 * sign * trace, rate_hz, piece)


def messages(trace: np.ndarray, rate_hz: float, piece: int) -> list[Waveform]:
    """Pieces of a trace `(lead, sample)`, and a channel without triggers."""
    digital = np.rint(np.vstack([trace, np.zeros((1, trace.shape[1]))])).astype(np.int32).view(np.uint32)
    return [
        Waveform(
            waveform_id=0,
            time_stamp=STAMP + round(first * 1000 / rate_hz / 2.5),
            sample_time_us=1e6 / rate_hz,
            data=digital[:, first : first + piece],
        )
        for first in range(0, digital.shape[1], piece)
    ]


def assert_found(found: np.ndarray, waves: np.ndarray, within_ms: float) -> None:
    assert len(found) == len(waves)
    assert np.abs(found - waves).max() < within_ms


def beats(count: int = 30, mean_ms: float = 850.0) -> np.ndarray:
    return np.random.default_rng(count).normal(mean_ms, 0.05 * mean_ms, count)


@pytest.mark.parametrize(
    "trouble",
    [
        {},
        {"noise": 0.2},
        {"wander": 3.0},
        {"sign": -1.0},
        {"flow": 1.5, "noise": 0.1},
        {"rate_hz": 100.0},
        {"rate_hz": 1000.0, "piece": 10},
    ],
    ids=str,
)
def test_every_r_wave_is_found_where_it_is(trouble: dict[str, Any]) -> None:
    waves, sent = ecg(beats(), **trouble)
    assert_found(waves_of_ecg(sent), waves, 12)


def test_ectopic_beats_are_found_with_the_others() -> None:
    intervals = beats()
    intervals[6:8], intervals[14:16] = (520, 1150), (480, 1200)
    waves, sent = ecg(intervals, ectopic=(7, 15))
    assert_found(waves_of_ecg(sent), waves, 30)


@settings(deadline=None, max_examples=25)
@given(
    mean=st.floats(350, 1500),
    noise=st.floats(0, 0.15),
    wander=st.floats(0, 3),
    flow=st.floats(0, 1),
    sign=st.sampled_from([1.0, -1.0]),
)
@example(mean=399.5, noise=0.140625, wander=0.0, flow=0.0, sign=1.0)  # the filter swings in
def test_hearts_of_every_rate_are_followed(
    mean: float, noise: float, wander: float, flow: float, sign: float
) -> None:
    flow = flow if mean > 500 else 0.0
    waves, sent = ecg(beats(20, mean), noise=noise, wander=wander, flow=flow, sign=sign)
    assert_found(waves_of_ecg(sent), waves, 15)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["white", "brown", "sine", "flat", "saturated"]))
def test_a_trace_without_beats_has_none(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((3, 8000))
    traces = {
        "white": 100 * white,
        "brown": 10 * np.cumsum(white, axis=1),
        "sine": 500 * np.sin(np.arange(8000) / rng.uniform(40, 400)) + white,
        "flat": np.full((3, 8000), 2048.0),
        "saturated": np.where(white > 0, 4095.0, 0.0),
    }
    assert len(waves_of_ecg(messages(traces[kind], 400.0, 500))) == 0


def test_messages_may_be_lost_sent_twice_or_come_in_any_order() -> None:
    waves, sent = ecg(beats(40), piece=400)
    del sent[15:18]
    found = waves_of_ecg([*sent[20:], *sent[:25]])
    seen = np.abs(found[:, None] - waves).min(axis=0) < 12
    assert seen.sum() >= len(waves) - 6
    assert len(found) == seen.sum()


@pytest.mark.parametrize("change", [{"rate_hz": 50.0}, {"piece": 200}])
def test_what_is_too_coarse_or_too_short_is_not_read(change: dict[str, Any]) -> None:
    _, sent = ecg(beats(), **change)
    assert len(waves_of_ecg(sent[::3] if "piece" in change else sent)) == 0


def scan(waves: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """A heart of which every beat measures one line of every phase, eight of them; no physiology stamps."""
    kspace = centred_fft(coil_images(np.random.default_rng(1), 8, 2, (16, 12))).astype(np.complex64)
    sent = lines_of(kspace)
    for number, line in enumerate(sent):
        phase, ky = divmod(number, 16)
        after = (phase + 0.5) / 8 * (waves[ky + 1] - waves[ky])
        line.counters["phase"] = 0
        line.fields["acquisition_time_stamp"] = round((waves[ky] + after) / 2.5)
    sent.sort(key=lambda line: line.fields["acquisition_time_stamp"])
    return kspace, sent


@pytest.mark.parametrize("r_waves", ["auto", "ecg"])
def test_a_scan_is_gated_by_its_ecg_trace_and_says_so(r_waves: Any) -> None:
    waves, sent = ecg(beats(17), noise=0.1, wander=1.0)
    kspace, lines = scan(waves)
    gating = RetrospectiveGating(8, r_waves=r_waves)
    preparation = Preparation((make_header((16, 12)),), noise="none", gating=gating)
    for waveform in sent:
        preparation.feed(waveform)
    (found,) = preparation.feed(block(lines)) + preparation.finish()
    np.testing.assert_allclose(found.data, kspace, atol=1e-4)
    assert any("R waves found in the ECG's trace" in note for note in found.notes)


@pytest.mark.parametrize(
    ("r_waves", "message"),
    [
        ("auto", "stamps.*trigger marks, or an ECG trace in which beats stand out"),
        ("ecg", "expected an ECG trace in which beats stand out"),
        ("triggers", "expected a waveform with trigger marks"),
    ],
)
def test_a_scan_whose_ecg_shows_no_beats_is_refused(r_waves: Any, message: str) -> None:
    waves, sent = ecg(beats(17), noise=2.0 if r_waves != "triggers" else 0.03)
    _, lines = scan(waves)
    gating = RetrospectiveGating(8, r_waves=r_waves)
    preparation = Preparation((make_header((16, 12)),), noise="none", gating=gating)
    for waveform in sent:
        preparation.feed(waveform)
    preparation.feed(block(lines))
    with pytest.raises(DataError, match=message):
        preparation.finish()
