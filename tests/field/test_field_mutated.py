"""Any header may come: an image that is right, a note that keeps it from pass, or one clear error."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from field_mutations import LINES, XML, Mutation, mutations, outcome
from hypothesis import HealthCheck, given, settings

HOW_MANY = int(os.environ.get("FIELD_MUTATIONS", "60"))
"""The full count is `FIELD_MUTATIONS=1000 pytest tests/field/test_field_mutated.py`."""
MUCH_LONGER_S = 2.0


def test_the_scan_itself_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(Mutation("none", XML.encode()), tmp_path, capsys) == "right"


@pytest.mark.parametrize("change", LINES)
def test_what_lines_lose_never_passes_wrong(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(Mutation(change, XML.encode(), change), tmp_path, capsys) in ("right", "noted", "error")


def test_no_mutated_header_passes_wrong(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = min(_seconds(Mutation("none", XML.encode()), tmp_path_factory, capsys)[1] for _ in range(3))
    found: Counter[str] = Counter()
    beyond: list[float] = []

    @settings(
        max_examples=HOW_MANY,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=True,
    )
    @given(mutation=mutations())
    def each(mutation: Mutation) -> None:
        what, seconds = _seconds(mutation, tmp_path_factory, capsys)
        found[what] += 1
        beyond.append(seconds - plain)
        assert what in ("right", "noted", "error"), (what, mutation.kind)

    each()
    with capsys.disabled():
        tally = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
        print(f"\n{sum(found.values())} mutated headers: {tally}; at most {max(beyond):.2f} s of one core "
              f"beyond the scan's own {plain:.2f} s")  # fmt: skip
    assert max(beyond) < MUCH_LONGER_S


def _seconds(
    mutation: Mutation, folders: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> tuple[str, float]:
    """What came of it, and the time of all threads it took: a busy machine does not change that."""
    folder = folders.mktemp("mutated")
    began = time.process_time()
    what = outcome(mutation, folder, capsys)
    return what, time.process_time() - began
