"""How long each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Stopwatch(dict[str, float]):
    """Wall time by stage, in seconds."""

    def __call__(self, stage: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, its time added to the stage's, also where it fails."""
        start = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            self[stage] = self.get(stage, 0.0) + time.perf_counter() - start
