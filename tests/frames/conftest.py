"""A small heart whose lines come one by one: frame after frame, or in segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.scan import Readouts, ScanHeader
from recon_node.files.open import open_source
from recon_node.prep.slices import LAST
from recon_node.simulate import simulate_scan

PHASES = 6


class Scan:
    """A source of single readouts, as `recon_node.pipeline.scan.prepare` takes it."""

    def __init__(self, headers: Sequence[ScanHeader], lines: Sequence[Readouts]) -> None:
        self.headers = tuple(headers)
        self.lines = list(lines)

    def __iter__(self) -> Iterator[Readouts]:
        yield from self.lines

    def changed(self, change: Callable[[np.ndarray], None]) -> Scan:
        """The same with other acquisition headers."""
        lines = []
        for line in self.lines:
            head = line.head.copy()
            change(head)
            lines.append(Readouts(head=head, samples=line.samples))
        return Scan(self.headers, lines)


def scan_of(raw: Path, *, segment: int = 1000) -> Scan:
    """Noise first, then slice by slice so many lines of every frame, as often as there are more."""
    with open_source(raw) as source:
        blocks = [block for block in source if isinstance(block, Readouts)]
        lines = [block.select(slice(i, i + 1)) for block in blocks for i in range(len(block))]
        count: Counter[tuple[int, int]] = Counter()
        keyed = []
        for line in lines:
            head = line.head[0]
            imaging = not int(head["flags"]) & Flag.IS_NOISE_MEASUREMENT
            frame = int(head["idx"]["slice"]), int(head["idx"]["phase"])
            keyed.append(((imaging, frame[0], count[frame] // segment, frame[1]), line))
            count[frame] += imaging
        return flagged(Scan(source.headers, [line for _, line in sorted(keyed, key=lambda pair: pair[0])]))


def flagged(scan: Scan) -> Scan:
    """The last line of each frame, and of each slice, marked as such, and no other."""
    last: dict[tuple[int, ...], tuple[int, int]] = {}
    for number, line in enumerate(scan.lines):
        idx = line.head["idx"][0]
        last[int(idx["slice"]),] = number, Flag.LAST_IN_SLICE
        last[int(idx["slice"]), int(idx["phase"])] = number, Flag.LAST_IN_PHASE
    heads = [line.head.copy() for line in scan.lines]
    for head in heads:
        head["flags"] &= ~np.uint64(Flag.LAST_IN_PHASE | LAST)
    for number, flag in last.values():
        heads[number]["flags"] |= np.uint64(flag)
    lines = [Readouts(head=h, samples=line.samples) for h, line in zip(heads, scan.lines, strict=True)]
    return Scan(scan.headers, lines)


@pytest.fixture(scope="session")
def heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Raw data and truth: two slices of six phases."""
    folder = tmp_path_factory.mktemp("frames")
    raw, truth = folder / "heart.h5", folder / "truth.h5"
    shape = {"coils": 6, "slices": 2, "phases": PHASES, "matrix": 64}
    simulate_scan(raw, acceleration=6, pattern="random", acs=14, seed=11, truth=truth, **shape)
    return raw, truth


@pytest.fixture(scope="session")
def ordered() -> Callable[..., Scan]:
    """The function above: test folders are no packages."""
    return scan_of


@pytest.fixture(scope="session")
def by_frames(heart: tuple[Path, Path]) -> Scan:
    return scan_of(heart[0])


@pytest.fixture(scope="session")
def segmented(heart: tuple[Path, Path]) -> Scan:
    return scan_of(heart[0], segment=8)
