from __future__ import annotations

import numpy as np
import pytest
from prep_scanner import Line, block, coil_images, make_header

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import Waveform
from recon_node.core.types import KSpace
from recon_node.prep import Preparation, RetrospectiveGating
from recon_node.prep.heartbeats import TRIGGER_BIT, heartbeats

SHAPE = (16, 12)
TICK = 2.5


def moving(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Static and beating part of k-space `(coil, ky, kx)`."""
    images = coil_images(rng, 2, 2, SHAPE)
    kspace = centred_fft(images)
    return kspace[0], kspace[1]


def at(parts: tuple[np.ndarray, np.ndarray], cardiac: float) -> np.ndarray:
    return np.asarray(parts[0] + np.cos(2 * np.pi * cardiac) * parts[1])


def scan(
    intervals_ms: list[float],
    parts: tuple[np.ndarray, np.ndarray],
    *,
    lines_per_beat: int = 1,
    repetition_ms: float = 20.0,
    physiology: bool = True,
    slice_number: int = 0,
    start_ms: float = 5000.0,
) -> tuple[list[Line], np.ndarray]:
    """Readouts beat after beat, `lines_per_beat` lines in turn all through it; and the R waves in ms."""
    waves = start_ms + np.concatenate([[0.0], np.cumsum(intervals_ms)])
    sent = []
    for beat, interval in enumerate(intervals_ms):
        steps = np.arange(0, interval - repetition_ms / 2, repetition_ms)
        for step, after in enumerate(steps):
            ky = (beat * lines_per_beat + step % lines_per_beat) % SHAPE[0]
            stamp = round((waves[beat] + after) / TICK)
            fields = {"acquisition_time_stamp": stamp}
            if physiology:
                fields["physiology_time_stamp"] = (round(after / TICK), 0, 0)
            samples = at(parts, after / interval)[:, ky]
            sent.append(Line(samples, ky=ky, fields=fields, counters={"slice": slice_number}))
    return sent, waves


def run(
    lines: list[Line], gating: RetrospectiveGating, waveforms: list[Waveform] | None = None
) -> list[KSpace]:
    header = make_header(SHAPE, limits={"slice": 1, "segment": 7})
    preparation = Preparation((header,), noise="none", gating=gating)
    out = [k for waveform in waveforms or [] for k in preparation.feed(waveform)]
    for first in range(0, len(lines), 50):
        out += preparation.feed(block(lines[first : first + 50]))
    return out + preparation.finish()


def error(kspace: KSpace, parts: tuple[np.ndarray, np.ndarray], phases: int) -> float:
    truth = np.stack([at(parts, (phase + 0.5) / phases) for phase in range(phases)])
    truth = np.where(kspace.mask[:, None], truth, 0)
    return float(np.linalg.norm(kspace.data - truth) / np.linalg.norm(truth))


def test_readouts_of_many_beats_become_phases_of_one() -> None:
    parts = moving(np.random.default_rng(0))
    lines, _ = scan([1000.0] * 32, parts)
    (kspace,) = run(lines, RetrospectiveGating(10))
    assert kspace.mask.all()
    assert error(kspace, parts, 10) < 0.08
    assert kspace.trigger_times_ms == pytest.approx([50 + 100 * p for p in range(10)], abs=15)
    assert kspace.rr_interval_ms == pytest.approx(1000, abs=5)
    assert any("32 beats of 1000 ms, 1600 of 1600 readouts used" in note for note in kspace.notes)


def test_calibration_lines_embedded_in_a_free_running_scan_are_gated_with_it() -> None:
    lines, _ = scan([1000.0] * 32, moving(np.random.default_rng(0)))
    (plain,) = run(lines, RetrospectiveGating(10))
    for line in lines[::3]:
        line.flags |= Flag.IS_PARALLEL_CALIBRATION
    header = make_header(SHAPE, limits={"slice": 1, "segment": 7}, calibration_mode="embedded")
    preparation = Preparation((header,), noise="none", gating=RetrospectiveGating(10))
    (kspace,) = preparation.feed(block(lines)) + preparation.finish()
    np.testing.assert_array_equal(kspace.mask, plain.mask)
    np.testing.assert_allclose(kspace.data, plain.data, atol=1e-5)


def test_varying_beats_are_stretched_to_one() -> None:
    rng = np.random.default_rng(1)
    parts = moving(rng)
    lines, _ = scan(rng.uniform(900, 1100, 48).tolist(), parts)
    (kspace,) = run(lines, RetrospectiveGating(10))
    assert error(kspace, parts, 10) < 0.12


def test_an_extrasystole_and_its_pause_are_rejected_and_reported() -> None:
    parts = moving(np.random.default_rng(2))
    intervals = [1000.0] * 40
    intervals[10], intervals[11] = 550.0, 1450.0
    lines, _ = scan(intervals, parts)
    (kspace,) = run(lines, RetrospectiveGating(10))
    assert any("2 beats rejected as irregular (RR 550, 1450 ms)" in note for note in kspace.notes)
    assert error(kspace, parts, 10) < 0.08
    (loose,) = run(lines, RetrospectiveGating(10, tolerance=0.6))
    assert not any("rejected" in note for note in loose.notes)


@pytest.mark.parametrize("waveform_id", [1, 3, 4])
def test_pulse_and_external_triggers_gate_where_the_ecg_has_none(waveform_id: int) -> None:
    parts = moving(np.random.default_rng(3))
    lines, waves = scan([800.0] * 32, parts, physiology=False)
    start = round((waves[0] - 100) / TICK)
    trace = np.zeros((2, 30000), dtype=np.uint32)
    silent = Waveform(waveform_id=0, time_stamp=start, sample_time_us=1000, data=trace.copy())
    trace[1, np.rint(waves - start * TICK).astype(int)] = TRIGGER_BIT
    pulse = Waveform(waveform_id=waveform_id, time_stamp=start, sample_time_us=1000, data=trace)
    (kspace,) = run(lines, RetrospectiveGating(8), [silent, pulse])
    assert error(kspace, parts, 8) < 0.12


def test_an_ecg_with_triggers_gates_where_there_are_no_physiology_stamps() -> None:
    parts = moving(np.random.default_rng(3))
    lines, waves = scan([800.0] * 32, parts, physiology=False)
    start = round((waves[0] - 100) / TICK)
    trace = np.zeros((5, 30000), dtype=np.uint32)
    trace[4, np.rint(waves - start * TICK).astype(int)] = TRIGGER_BIT
    sent = [
        Waveform(
            waveform_id=0, time_stamp=start + 4 * piece, sample_time_us=1000, data=trace[:, at : at + 1000]
        )
        for piece, at in ((at // 10, at) for at in range(0, 30000, 1000))
    ]
    sent.append(Waveform(waveform_id=1, time_stamp=start, sample_time_us=1000, data=trace[:, ::-1].copy()))
    (kspace,) = run(lines, RetrospectiveGating(8), sent)
    assert error(kspace, parts, 8) < 0.12
    assert kspace.trigger_times_ms == pytest.approx([50 + 100 * p for p in range(8)], abs=15)


@pytest.mark.parametrize("fill", ["share", "interpolate"])
def test_lines_that_a_phase_misses_are_filled_when_asked(fill: str) -> None:
    parts = moving(np.random.default_rng(4))
    lines, _ = scan([1000.0] * 8, parts, lines_per_beat=4, repetition_ms=25.0)
    (sparse,) = run(lines, RetrospectiveGating(20))
    assert not sparse.mask.all()
    (kspace,) = run(lines, RetrospectiveGating(20, fill=fill))  # type: ignore[arg-type]
    assert kspace.mask.all()
    assert error(kspace, parts, 20) < (0.2 if fill == "share" else 0.04)
    said = {"share": "shared from the nearest", "interpolate": "interpolated in time"}
    assert any(said[fill] in note for note in kspace.notes)


def test_interpolation_is_closer_than_binning() -> None:
    parts = moving(np.random.default_rng(5))
    lines, _ = scan([1000.0] * 32, parts, repetition_ms=40.0)
    binned, interpolated = (
        run(lines, RetrospectiveGating(10, fill=fill))[0] for fill in ("none", "interpolate")
    )
    assert error(interpolated, parts, 10) < 0.5 * error(binned, parts, 10)


def test_a_slice_leaves_when_the_next_begins() -> None:
    parts = moving(np.random.default_rng(6))
    first, waves = scan([1000.0] * 16, parts)
    second, _ = scan([1000.0] * 16, parts, slice_number=1, start_ms=float(waves[-1]) + 20000)
    header = make_header(SHAPE, limits={"slice": 1})
    preparation = Preparation((header,), noise="none", gating=RetrospectiveGating(5))
    assert preparation.feed(block(first)) == []
    assert [k.index.slice for k in preparation.feed(block(second[:1]))] == [0]
    preparation.feed(block(second[1:]))
    assert [k.index.slice for k in preparation.finish()] == [1]


def test_no_heartbeats_are_a_clear_error() -> None:
    lines, _ = scan([1000.0] * 4, moving(np.random.default_rng(7)), physiology=False)
    with pytest.raises(DataError, match="fewer than two heartbeats"):
        run(lines, RetrospectiveGating(5))


def test_a_pause_of_the_scan_is_no_arrhythmia() -> None:
    beats = heartbeats(np.array([0.0, 1000, 2000, 3000, 60000, 61000, 62000]), 0.2)
    assert beats is not None
    assert beats.regular.all()
    assert beats.median_ms == 1000
