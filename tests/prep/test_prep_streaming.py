from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_scanner import Line, block, coil_images, lines_of, make_header

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import LimitReached
from recon_node.core.fft import centred_fft
from recon_node.core.types import KSpace
from recon_node.prep import Preparation
from recon_node.prep.geometry import slice_geometry

SHAPE = (24, 16)
PHASES = 3


def data_of(slices: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([centred_fft(coil_images(rng, PHASES, 2, SHAPE)) for _ in range(slices)])


def feed(preparation: Preparation, lines: list[Line]) -> list[tuple[int, KSpace]]:
    """Line by line; what left after how many lines."""
    return [(n, k) for n, line in enumerate(lines, 1) for k in preparation.feed(block([line]))]


def masks(seed: int) -> np.ndarray:
    mask = np.random.default_rng(seed).random((PHASES, SHAPE[0])) < 0.3
    mask[:, 8:16] = True
    return mask


def flag_every_phase(lines: list[Line]) -> list[Line]:
    """As scanners do that flag the last line of every phase."""
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        if following is None or following.counters["phase"] != line.counters["phase"]:
            line.flags |= Flag.LAST_IN_SLICE
    return lines


@pytest.mark.parametrize("limits", [{"phase": PHASES - 1, "average": 0}, {"phase": PHASES - 1}])
@pytest.mark.parametrize("flagging", ["slice", "phase"])
def test_a_slice_leaves_with_its_last_line(limits: dict[str, int], flagging: str) -> None:
    data = data_of(2)
    sent = [lines_of(data[s], masks(s), slice=s) for s in range(2)]
    if flagging == "phase":
        sent = [flag_every_phase(lines) for lines in sent]
    preparation = Preparation((make_header(SHAPE, limits=limits),), noise="none")
    left = feed(preparation, [line for lines in sent for line in lines])
    assert [(n, k.index.slice) for n, k in left] == [(len(sent[0]), 0), (len(sent[0]) + len(sent[1]), 1)]
    assert preparation.finish() == []


def test_without_any_flag_the_number_of_lines_does_not_end_a_slice() -> None:
    data = data_of(1)
    lines = lines_of(data[0])
    lines[-1].flags = 0
    header = make_header(SHAPE, limits={"phase": PHASES - 2, "average": 0})
    preparation = Preparation((header,), noise="none")
    assert feed(preparation, lines) == []
    (kspace,) = preparation.finish()
    assert kspace.data.shape[0] == PHASES
    assert any("beyond the header's limit" in note for note in kspace.notes)


def test_without_flags_a_slice_leaves_when_the_next_begins() -> None:
    data = data_of(3)
    lines = [line for s in range(3) for line in lines_of(data[s], slice=s)]
    for line in lines:
        line.flags = 0
    preparation = Preparation((make_header(SHAPE, limits={"phase": PHASES - 1}),), noise="none")
    left = feed(preparation, lines)
    each = PHASES * SHAPE[0]
    assert [(n, k.index.slice) for n, k in left] == [(each + 1, 0), (2 * each + 1, 1)]
    assert [k.index.slice for k in preparation.finish()] == [2]


ORDERS = {
    "slices inside phases": ("phase", "slice", "ky"),
    "slices inside lines": ("ky", "phase", "slice"),
    "phases inside lines": ("slice", "ky", "phase"),
    "lines inside": ("slice", "phase", "ky"),
}


@pytest.mark.parametrize("order", ORDERS, ids=list(ORDERS))
@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("limits", [{}, {"phase": PHASES - 1}, {"phase": PHASES - 1, "average": 0}])
def test_every_order_of_acquisition_gives_whole_slices(
    order: str, flagged: bool, limits: dict[str, int]
) -> None:
    data = data_of(3)
    mask = masks(4)
    places = [(s, p, ky) for s in range(3) for p in range(PHASES) for ky in np.flatnonzero(mask[p]).tolist()]
    names = ORDERS[order]
    places.sort(
        key=lambda place: tuple(dict(zip(("slice", "phase", "ky"), place, strict=True))[n] for n in names)
    )
    lines = [Line(data[s, p, :, k], ky=k, counters={"slice": s, "phase": p}) for s, p, k in places]
    if flagged:
        for s in range(3):
            max((n, line) for n, line in enumerate(lines) if line.counters["slice"] == s)[
                1
            ].flags |= Flag.LAST_IN_SLICE
    preparation = Preparation((make_header(SHAPE, limits=limits),), noise="none")
    found = [k for _, k in feed(preparation, lines)] + preparation.finish()
    assert sorted(k.index.slice for k in found) == [0, 1, 2]
    for kspace in found:
        expected = np.where(mask[:, None, :, None], data[kspace.index.slice], 0)
        np.testing.assert_allclose(kspace.data, expected, atol=2e-4)


@settings(deadline=None, max_examples=25)
@given(st.randoms(use_true_random=False), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_any_order_and_any_cut_into_blocks_gives_the_same_when_not_streaming(
    rng: object, cuts: list[int]
) -> None:
    data = data_of(2)
    lines = [line for s in range(2) for line in lines_of(data[s], masks(7), slice=s)]
    rng.shuffle(lines)  # type: ignore[attr-defined]
    header = make_header(SHAPE, limits={"phase": PHASES - 1})
    preparation = Preparation((header,), noise="none", streaming=False)
    position = 0
    while position < len(lines):
        step = cuts[position % len(cuts)]
        assert preparation.feed(block(lines[position : position + step])) == []
        position += step
    for kspace in preparation.finish():
        expected = np.where(masks(7)[:, None, :, None], data[kspace.index.slice], 0)
        np.testing.assert_allclose(kspace.data, expected, atol=2e-4)


def test_a_slice_that_never_ends_leaves_at_the_end_with_what_is_missing() -> None:
    data = data_of(1)
    lines = lines_of(data[0])[:-30]
    preparation = Preparation((make_header(SHAPE, limits={"phase": PHASES - 1}),), noise="none")
    assert feed(preparation, lines) == []
    (kspace,) = preparation.finish()
    assert (kspace.lines_found, kspace.lines_expected) == (PHASES * SHAPE[0] - 30, PHASES * SHAPE[0])
    assert any("missing" in note for note in kspace.notes)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_lines_of_a_slice_that_had_left_are_left_out_and_told_however_they_came(step: int) -> None:
    data = data_of(2)
    lines = lines_of(data[0])
    sent = lines + lines[:2] + lines_of(data[1], slice=1)
    preparation = Preparation((make_header(SHAPE, limits={"phase": PHASES - 1}),), noise="none")
    found = [k for at in range(0, len(sent), step) for k in preparation.feed(block(sent[at : at + step]))]
    found += preparation.finish()
    assert [kspace.index.slice for kspace in found] == [0, 1]
    np.testing.assert_allclose(found[0].data, data[0], atol=2e-4)
    assert preparation.refused == ["2 lines of slice 0 came after it had been complete: left out"]


def test_the_next_repetition_lets_the_last_one_go() -> None:
    data = data_of(1)[0][:1]
    lines = [line for r in range(3) for line in lines_of(data, repetition=r)]
    for line in lines:
        line.flags = 0
    preparation = Preparation((make_header(SHAPE, limits={"repetition": 2}),), noise="none")
    left = feed(preparation, lines)
    assert [k.index.repetition for _, k in left] == [0, 1]
    assert [k.index.repetition for k in preparation.finish()] == [2]


def test_the_place_of_a_slice_is_worked_out_a_few_times_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def counted(*arguments: object) -> object:
        calls.append(1)
        return slice_geometry(*arguments)

    monkeypatch.setattr("recon_node.prep.sorting.slice_geometry", counted)
    data, count = data_of(1)[0], 60
    preparation = Preparation((make_header(SHAPE),), noise="none", streaming=False)
    for number in range(count):
        preparation.feed(block(lines_of(data, contrast=number % 2, slice=number // 2)))
    preparation.finish()
    assert len(calls) <= 4 * count


def test_more_slices_than_a_scan_can_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon_node.prep.collection.MOST_SLICES", 8)
    preparation = Preparation((make_header(SHAPE),), noise="none", streaming=False)
    data = data_of(1)[0]
    for number in range(8):
        preparation.feed(block(lines_of(data, slice=100 * number)))
    with pytest.raises(LimitReached, match="more than 8 slices"):
        preparation.feed(block(lines_of(data, slice=7)))
