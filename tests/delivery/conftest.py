from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from delivery_parts import FakeClock, make_instance

from recon_node.delivery import Spool


@pytest.fixture
def instances(tmp_path: Path) -> Callable[..., list[Path]]:
    folder = tmp_path / "instances"
    folder.mkdir()

    def make(count: int, *, start: int = 1, **attributes: object) -> list[Path]:
        return [make_instance(folder / f"{n}.dcm", n, **attributes) for n in range(start, start + count)]

    return make


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path, clock: FakeClock) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", clock=clock) as opened:
        yield opened
