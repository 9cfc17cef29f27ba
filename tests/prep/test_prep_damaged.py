"""Some headers of a scan damaged: every line ends where it would have, or a note says what is odd."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_scanner import Line, acquire, block, coil_images, lines_of, make_header, noise_lines, white

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import ReconNodeError
from recon_node.core.types import KSpace
from recon_node.prep import Preparation
from recon_node.prep.noise import NoiseScan

SHAPE = (24, 16)
DIRECTIONS = {"read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1), "position": (5, 6, 7)}
HEADER = make_header(SHAPE, full_x=32, limits={"phase": 1, "slice": 1}, vendor="SIEMENS")


@functools.cache
def measured() -> list[Line]:
    """A noise scan and two slices of two phases, all lines measured."""
    rng = np.random.default_rng(8)
    lines = noise_lines(white(rng, (3, 32 * 40)), readouts=40, dwell_us=2.5)
    for number in range(2):
        images = 40 * coil_images(rng, 2, 3, SHAPE)
        lines += lines_of(acquire(images, 32) + white(rng, (2, 3, 24, 32)), slice=number)
    for line in lines:
        line.fields = DIRECTIONS | line.fields
    return lines


def sent() -> list[Line]:
    """The same, to be damaged."""
    return copy.deepcopy(measured())


def prepared(lines: list[Line], step: int) -> dict[Any, KSpace]:
    preparation = Preparation((HEADER,))
    found = [k for at in range(0, len(lines), step) for k in preparation.feed(block(lines[at : at + step]))]
    return {k.index: k for k in found + preparation.finish()}


WHOLE = prepared(sent(), 1000)


def fields(**values: Any) -> Callable[[Line], None]:
    return lambda line: line.fields.update(values)


def counters(**values: int) -> Callable[[Line], None]:
    return lambda line: line.counters.update(values)


def flags(*values: Flag) -> Callable[[Line], None]:
    def damage(line: Line) -> None:
        line.flags |= sum(values)

    return damage


def moved(line: Line) -> None:
    line.ky = (line.ky + 5) % SHAPE[0]


DAMAGES: dict[str, Callable[[Line], None]] = {
    "no directions": fields(read_dir=(0, 0, 0), phase_dir=(0, 0, 0)),
    "no number for a direction": fields(read_dir=(np.nan, 0, 0)),
    "mirrored": fields(read_dir=(-1, 0, 0)),
    "elsewhere": fields(position=(5, 6, 70)),
    "nowhere": fields(position=(np.nan, np.inf, 0)),
    "another dwell time": fields(sample_time_us=50.0),
    "no dwell time": fields(sample_time_us=0.0),
    "dwell time is no number": fields(sample_time_us=np.nan),
    "no centre": fields(center_sample=0),
    "another centre": fields(center_sample=11),
    "reversed": flags(Flag.IS_REVERSE),
    "noise": flags(Flag.IS_NOISE_MEASUREMENT),
    "navigator": flags(Flag.IS_NAVIGATION_DATA),
    "calibration": flags(Flag.IS_PARALLEL_CALIBRATION),
    "both": flags(Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING),
    "last": flags(Flag.LAST_IN_SLICE, Flag.LAST_IN_MEASUREMENT),
    "another average": counters(average=1),
    "another segment": counters(segment=9),
    "first phase": counters(phase=0),
    "first slice": counters(slice=0),
    "another set": counters(set=1),
    "another repetition": counters(repetition=2),
    "another line": moved,
    "another partition": counters(kspace_encode_step_2=3),
}


def is_right_or_said(found: KSpace, whole: KSpace) -> bool:
    new = set(found.notes) - set(whole.notes)
    if new or found.data.shape != whole.data.shape:
        return bool(new)
    same = np.allclose(found.data, np.where(found.mask[:, None], whole.data, 0), rtol=1e-3, atol=1e-3)
    there = np.allclose(found.geometry.position_mm, whole.geometry.position_mm)
    return same and there and found.geometry.known


@settings(deadline=None, max_examples=60)
@given(
    damage=st.sampled_from(list(DAMAGES)),
    which=st.sets(st.integers(40, 40 + 95), min_size=1, max_size=12),
    step=st.sampled_from([1, 7, 1000]),
)
def test_damaged_headers_of_some_lines_never_spoil_an_image_unsaid(
    damage: str, which: set[int], step: int
) -> None:
    lines = sent()
    for number in which:
        DAMAGES[damage](lines[number])
    try:
        found = prepared(lines, step)
    except ReconNodeError:
        return
    for index, kspace in found.items():
        if index in WHOLE:
            assert is_right_or_said(kspace, WHOLE[index]), damage


def test_a_first_line_without_directions_does_not_decide_for_the_others() -> None:
    lines = sent()
    lines[40].fields |= {"read_dir": (0, 0, 0), "phase_dir": (0, 0, 0)}
    for kspace in prepared(lines, 1000).values():
        np.testing.assert_allclose(kspace.data, WHOLE[kspace.index].data, atol=1e-4)
        assert kspace.geometry.known
    for kspace in prepared(lines, 1).values():
        assert any("may be mirrored" in note for note in kspace.notes)
        assert not kspace.geometry.verified


@pytest.mark.parametrize("step", [1, 1000])
def test_a_calibration_scan_of_another_bandwidth_keeps_its_own_scale(step: int) -> None:
    lines = sent()
    for line in lines[40:]:
        line.fields["sample_time_us"] = 5.0
    reference = [copy.deepcopy(line) for line in lines[40:64]]
    for line in reference:
        line.flags |= Flag.IS_PARALLEL_CALIBRATION
        line.fields["sample_time_us"] = 1.25
    found = prepared(lines[:40] + reference + lines[40:], step)
    for index, kspace in found.items():
        np.testing.assert_allclose(kspace.data, WHOLE[index].data, atol=1e-3)
    assert not any("dwell" in note for kspace in found.values() for note in kspace.notes)


def test_an_echo_in_the_noise_scan_is_left_out_and_counted() -> None:
    lines = sent()
    for line in lines[4:8]:
        line.samples = line.samples.copy()
        line.samples[:, 16] += 500
    found = prepared(lines, 1000)
    for index, kspace in found.items():
        assert any("4 noise with signal in it" in note for note in kspace.notes)
        scale = np.linalg.norm(kspace.data) / np.linalg.norm(WHOLE[index].data)
        assert scale == pytest.approx(1, abs=0.1)


def test_noise_scans_of_two_dwell_times_count_as_one() -> None:
    rng = np.random.default_rng(4)
    scan = NoiseScan()
    scan.add(block(noise_lines(white(rng, (2, 64_000)), readouts=50, dwell_us=4.0)))
    scan.add(block(noise_lines(2 * white(rng, (2, 64_000)), readouts=50, dwell_us=1.0)))
    assert scan.dwell_us == 4.0
    np.testing.assert_allclose(scan.covariance(), np.eye(2), atol=0.02)


def test_noise_is_not_taken_for_an_echo() -> None:
    rng = np.random.default_rng(3)
    scan = NoiseScan()
    gains = 10.0 ** rng.uniform(-3, 3, 16)
    samples = white(rng, (16, 60 * 1024)) * gains[:, None]
    assert scan.add(block(noise_lines(samples, readouts=60))) == 0
    assert scan.samples == 60 * 1024
