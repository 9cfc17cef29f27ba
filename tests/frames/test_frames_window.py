"""When a frame is complete, what is kept beside it, and what image comes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.frame_order import in_frame_order
from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.scan import Limit, Readouts, SliceIndex
from recon_node.files.open import open_source
from recon_node.methods.sense import Sense
from recon_node.pipeline.frames import FrameLines, FrameMaker, FrameWindow, window
from recon_node.pipeline.row import Pipeline
from recon_node.pipeline.scan import prepare
from recon_node.pipeline.stages import calibrate
from recon_node.prep.expectation import expected_lines
from recon_node.prep.slices import LAST
from recon_node.settings import PrepSettings, Settings
from recon_node.simulate import simulate_scan

PHASES = 6


def complete(scan, settings: PrepSettings | None = None) -> list[tuple[int, FrameLines]]:
    """Frames in the order in which they are complete, with the number of the line that completes each."""
    seen = FrameWindow()
    found: list[tuple[int, FrameLines]] = []
    taken = 0

    def watch(placed) -> None:
        nonlocal taken
        taken += len(placed.rows)
        found.extend((taken, frame) for frame in seen.see(placed))

    for _ in prepare(scan, settings, watch=watch):
        pass
    return found


def lines_of(scan) -> Counter[tuple[int, int]]:
    """Imaging lines by slice and phase."""
    heads = np.concatenate([line.head for line in scan.lines])
    own = heads[heads["flags"] & np.uint64(Flag.IS_NOISE_MEASUREMENT | Flag.IS_PARALLEL_CALIBRATION) == 0]
    return Counter(zip(own["idx"]["slice"].tolist(), own["idx"]["phase"].tolist(), strict=True))


def without_flags(scan):
    def change(head: np.ndarray) -> None:
        head["flags"] &= ~np.uint64(Flag.FIRST_IN_PHASE | Flag.LAST_IN_PHASE | LAST)

    return scan.changed(change)


def own_lines(frame: FrameLines) -> int:
    return sum(len(piece.rows) for piece in frame.own)


@pytest.mark.parametrize("order", ["by_frames", "segmented"])
def test_every_frame_is_complete_once_and_with_all_its_lines(order: str, request) -> None:
    scan = request.getfixturevalue(order)
    found = [frame for _, frame in complete(scan)]
    assert {(f.index.slice, f.phase): own_lines(f) for f in found} == lines_of(scan)
    assert len(found) == 2 * PHASES
    assert {frame.phases for frame in found} == {PHASES}


def test_in_segments_without_flags_the_number_of_lines_tells(segmented) -> None:
    found = [frame for _, frame in complete(without_flags(segmented))]
    announced, lines = expected_lines(segmented.headers[0], 14), lines_of(segmented)
    frames = [(frame.index.slice, frame.phase) for frame in found]
    assert len(set(frames)) == len(frames) > 0
    assert set(frames) <= {frame for frame, count in lines.items() if count >= announced}
    assert all(own_lines(frame) >= announced for frame in found)


def test_frame_after_frame_each_is_there_before_the_next_one_has_all_its_lines(by_frames) -> None:
    found = complete(without_flags(by_frames))
    lines = lines_of(by_frames)
    frames = sorted(lines)
    assert [(frame.index.slice, frame.phase) for _, frame in found] == frames[:-1]
    ends = np.cumsum([lines[frame] for frame in frames[:-1]])
    assert [taken for taken, _ in found] == [int(end) + 1 for end in ends]


def test_in_segments_frames_are_complete_when_their_last_segment_came(segmented) -> None:
    found = [taken for taken, frame in complete(segmented) if frame.index.slice == 0]
    half = sum(count for (number, _), count in lines_of(segmented).items() if number == 0) / 2
    assert len(found) == PHASES
    assert min(found) > half


def test_a_header_that_tells_of_segments_makes_no_frame_of_the_first_of_them(by_frames) -> None:
    limits = {**by_frames.headers[0].limits, "segment": Limit(minimum=0, maximum=3, center=0)}
    headers = (replace(by_frames.headers[0], limits=limits, acceleration=(2.0, 1.0)),)
    assert len(complete(type(by_frames)(headers, without_flags(by_frames).lines))) == 0


def test_repetitions_of_one_phase_serve_each_other(by_frames) -> None:
    def change(head: np.ndarray) -> None:
        head["idx"]["repetition"] = head["idx"]["phase"]
        head["idx"]["phase"] = 0

    header = by_frames.headers[0]
    limits = {name: limit for name, limit in header.limits.items() if name != "phase"}
    limits["repetition"] = header.limits["phase"]
    scan = type(by_frames)((replace(header, limits=limits),), by_frames.changed(change).lines)
    found = [frame for _, frame in complete(scan) if frame.index.slice == 0]
    assert [frame.index for frame in found] == [SliceIndex(repetition=i) for i in range(PHASES)]
    assert [len(frame.around) for frame in found] == list(range(PHASES))
    together = complete(scan, PrepSettings(dynamic="repetition"))
    assert [frame.phase for _, frame in together if frame.index.slice == 0] == list(range(PHASES))


def test_memory_stays_bounded_and_no_frame_is_complete_twice(by_frames, monkeypatch) -> None:
    monkeypatch.setattr(window, "MOST_BYTES", 200_000)
    seen = FrameWindow()
    frames, most = [], 0

    def watch(placed) -> None:
        nonlocal most
        frames.extend((f.index.slice, f.phase) for f in seen.see(placed))
        most = max(most, seen.bytes)

    for _ in prepare(by_frames, watch=watch):
        pass
    assert 0 < most <= 200_000
    assert len(frames) == len(set(frames)) > 0


def test_slabs_are_left_out(by_frames) -> None:
    seen = FrameWindow()

    def watch(placed) -> None:
        deep = replace(placed.header, encoded_matrix=(*placed.header.encoded_matrix[:2], 4))
        assert seen.see(replace(placed, header=deep)) == []

    for _ in prepare(by_frames, watch=watch):
        pass
    assert seen.bytes == 0


def test_a_preliminary_image_is_as_near_to_the_truth_as_sense_on_the_whole_slice(
    by_frames, heart: tuple[Path, Path]
) -> None:
    maker, settings = FrameMaker(Settings()), Settings().replace("recon", method="sense", check_trust=False)
    seen = FrameWindow()
    shown: dict[int, np.ndarray] = {}

    def watch(placed) -> None:
        for frame in seen.see(placed):
            if frame.index.slice == 0:
                images = maker.make(frame)
                assert images is not None
                shown[frame.phase] = np.abs(images.data[0])

    slices = list(prepare(by_frames, watch=watch))
    final = np.abs(Pipeline(settings).run(slices[0].kspace).images.data)
    with h5py.File(heart[1]) as file:
        truth = np.abs(file["images"][0])
    assert sorted(shown) == list(range(PHASES))
    for phase, image in shown.items():
        assert np.mean((image - truth[phase]) ** 2) < 1.2 * np.mean((final[phase] - truth[phase]) ** 2)


def test_frames_share_the_weight_that_suits_their_scan(tmp_path: Path, ordered) -> None:
    """Few coils, far apart lines: a small weight would show more noise than heart."""
    raw, truth = tmp_path / "raw.h5", tmp_path / "truth.h5"
    simulate_scan(
        raw, acceleration=4, pattern="uniform", coils=4, slices=1, phases=4, matrix=64, seed=3, truth=truth
    )
    with h5py.File(truth) as file:
        wanted = np.abs(file["images"][0])
    maker, small = FrameMaker(Settings()), Sense(device="cpu", regularisation=1e-3)
    weights, errors = set(), []
    for _, frame in complete(ordered(raw)):
        image, kspace = maker.make(frame), frame.kspace()
        assert image is not None
        weights.add(image.made_by.settings["regularisation"])
        other = small.reconstruct(kspace, calibrate(kspace))
        errors.append([np.linalg.norm(np.abs(one.data[0]) - wanted[frame.phase]) for one in (image, other)])
    assert len(weights) == 1
    chosen, fixed = np.mean(errors, axis=0)
    assert chosen < 0.9 * fixed


def interleaved(scan, step: int):
    """Every `step`-th line of a fully sampled scan, another set of them in each frame, and no other lines."""

    def wanted(line) -> bool:
        idx = line.head["idx"][0]
        return int(idx["kspace_encode_step_1"]) % step == int(idx["phase"]) % step or bool(
            int(line.head["flags"][0]) & Flag.IS_NOISE_MEASUREMENT
        )

    header = replace(scan.headers[0], acceleration=(float(step), 1.0))
    return type(scan)((header,), [line for line in scan.lines if wanted(line)])


def test_interleaved_frames_calibrate_together_and_borrow_of_each_other(tmp_path: Path, ordered) -> None:
    raw, truth = tmp_path / "full.h5", tmp_path / "truth.h5"
    simulate_scan(
        raw, acceleration=1, pattern="uniform", coils=6, slices=1, phases=8, matrix=64, seed=4, truth=truth
    )
    scan = without_flags(interleaved(ordered(raw), 4))
    maker = FrameMaker(Settings())
    images = [(frame.phase, maker.make(frame)) for _, frame in complete(scan)]
    assert [phase for phase, image in images if image is None] == [0, 1, 2]
    with h5py.File(truth) as file:
        wanted = np.abs(file["images"][0])
    for phase, image in images[3:]:
        assert image is not None
        error = np.abs(image.data[0]) - wanted[phase]
        assert np.linalg.norm(error) < 0.1 * np.linalg.norm(wanted[phase])


def test_the_benchmark_sends_frame_after_frame_at_its_own_pace(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    in_frame_order(heart[0], tmp_path / "ordered.h5", tr_ms=5.0)
    with open_source(tmp_path / "ordered.h5") as source:
        heads = np.concatenate([block.head for block in source if isinstance(block, Readouts)])
    heads = heads[heads["flags"] & np.uint64(Flag.IS_NOISE_MEASUREMENT) == 0]
    frames = list(zip(heads["idx"]["slice"].tolist(), heads["idx"]["phase"].tolist(), strict=True))
    assert frames == sorted(frames)
    assert set(np.diff(heads["acquisition_time_stamp"].astype(int)).tolist()) == {2}
    ends = np.flatnonzero(heads["flags"] & np.uint64(Flag.LAST_IN_PHASE))
    assert [frames[end] for end in ends] == sorted(set(frames))
