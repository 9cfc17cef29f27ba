"""Any header may come: an image that is right, a note that keeps it from pass, or one clear error."""

from __future__ import annotations

import os
import time
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


@settings(
    deadline=None,
    max_examples=HOW_MANY,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
@given(mutation=mutations())
def test_no_mutated_header_passes_wrong(
    mutation: Mutation, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    found = outcome(mutation, tmp_path_factory.mktemp("mutated"), capsys)
    assert found in ("right", "noted", "error"), (found, mutation.kind)
    assert time.monotonic() - began < 30 * MUCH_LONGER_S
