"""A few of each kind of the fault campaign; `python -m benchmarks.faults` runs all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.fault_kinds import KINDS
from benchmarks.tracer import killed_before

ELSEWHERE = ("PACS", "peer", "connection", "disk", "web", "poison", "report port", "private")
"""Kinds with real peers, which the other tests of delivery have by themselves."""
PORTS_AND_FILES = ("node:", "module:", "mutated file:", "hostile file:")
"""See tests/node/test_node_attacked.py."""
SHORT = [k for k in KINDS if not k[0].startswith((*ELSEWHERE, *PORTS_AND_FILES))]


def test_the_campaign_has_many_kinds() -> None:
    assert len({name for name, _ in KINDS}) == len(KINDS) >= 100


def test_the_tracer_kills_before_the_asked_for_system_call(tmp_path: Path) -> None:
    def touch_some() -> None:
        for n in range(5):
            (tmp_path / f"{n}").touch()

    assert killed_before(touch_some, 1)
    assert list(tmp_path.iterdir()) == []
    assert not killed_before(touch_some, 10_000)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_disk_that_really_fills_up_loses_nothing(tmp_path: Path) -> None:
    [experiments] = [e for name, e in KINDS if name == "disk really full (small tmpfs)"]
    verdicts = list(experiments(tmp_path, True))
    if not verdicts:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    assert sum(v.faults for v in verdicts) > 0
    assert [(v.lost, v.twice, v.stuck) for v in verdicts] == [(0, 0, 0)]


@pytest.mark.parametrize(("name", "experiments"), SHORT, ids=[name for name, _ in SHORT])
def test_nothing_is_lost_stored_twice_or_stuck(name: str, experiments, tmp_path: Path) -> None:
    verdicts = list(experiments(tmp_path, True))
    assert verdicts
    assert sum(v.lost for v in verdicts) == 0
    assert sum(v.twice for v in verdicts) == 0
    assert sum(v.stuck for v in verdicts) == 0
    assert sum(v.outside for v in verdicts) == 0
    assert sum(v.dead for v in verdicts) == 0
