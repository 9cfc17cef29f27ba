"""A few attacks on a live node and its files; `python -m benchmarks.faults` has all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "delivery"))

from benchmarks.fault_kinds import KINDS
from benchmarks.fault_node import trouble
from benchmarks.faults import MOST_MB, PORTS_AND_FILES, Row

FEW = (
    "node: header: hostile names of patients, protocols and studies",
    "node: parameters that are hostile",
    "node: bomb: 20,000 lines, each of another contrast",
)


@pytest.mark.parametrize("name", FEW)
def test_a_good_scan_is_served_behind_an_attack(name: str, tmp_path: Path) -> None:
    row = Row(name)
    for verdict in dict(KINDS)[name](tmp_path, True):
        row.add(verdict)
    assert row.faults > 0
    assert (row.lost, row.twice, row.outside, row.dead) == (0, 0, 0, 0)
    assert row.peak_mb < MOST_MB


def test_the_campaign_attacks_every_port_and_kind_of_file() -> None:
    names = [name for name, _ in KINDS if name.startswith(PORTS_AND_FILES)]
    assert len(names) >= 70
    assert {name.partition(":")[0] for name in names} >= {"node", "module", "mutated file"}


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("time=2026-11-30T10:00:00.000Z level=info logger=recon_node message=ok", 0),
        ('time=2026-11-30T10:00:00.000Z level=error logger=recon_node message="scan failed: X"', 1),
        ("forged", 1),
        ("time=2026-11-30T10:00:00.000Z level=info logger=recon_node message=\x1b[2J", 1),
    ],
)
def test_what_should_not_be_in_the_log_is_counted(line: str, count: int) -> None:
    assert trouble(f"{line}\n") == count
