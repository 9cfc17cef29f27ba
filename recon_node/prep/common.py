"""What the lines of a scan have in common: fixed by the first that says it, noted where others disagree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.choices import Orientation
from recon_node.core.scan import ScanHeader
from recon_node.prep.geometry import directions_known, must_conjugate
from recon_node.prep.kinds import Kind, kinds

_SAME_DWELL = 0.01


class Common:
    """Whether k-space is conjugated, and the dwell time that noise is scaled by.

    A line treated unlike its neighbours spoils the image, so that a damaged header must not decide about its
    own line.

    Parameters
    ----------
    orientation : {"auto", "conjugate", "as-is"}
        See `must_conjugate`.
    contrasts_apart : bool
        Whether each contrast is a k-space of its own, with a dwell time of its own.
    """

    def __init__(self, orientation: Orientation, *, contrasts_apart: bool) -> None:
        self._orientation = orientation
        self._contrasts_apart = contrasts_apart
        self._conjugated: dict[int, bool] = {}
        self._dwell_us: dict[tuple[int, int], float] = {}
        self.perhaps_mirrored: set[int] = set()
        """Encodings whose lines were not all treated as their directions want it."""
        self.notes: dict[str, None] = {}

    def conjugated(self, header: ScanHeader, head: NDArray[Any], encoding: int) -> bool:
        """Whether to conjugate lines of `encoding` with these headers `(line,)`."""
        known = directions_known(head)
        wanted = must_conjugate(header, head[int(np.argmax(known))], self._orientation)
        decided = self._conjugated.setdefault(encoding, wanted)
        if wanted and not decided:
            self.perhaps_mirrored.add(encoding)
            self.notes[
                "the first lines give no slice directions, later ones do: the images may be mirrored"
            ] = None
        return decided

    def by_dwell(self, head: NDArray[Any], encoding: int) -> Iterator[tuple[NDArray[np.bool_], float]]:
        """Lines that are scaled alike, `(line,)` bool, and their dwell time in us; 0 where not known."""
        groups = (kinds(head["flags"]) == Kind.CALIBRATION).astype(np.int64)
        if self._contrasts_apart:
            groups += 2 * head["idx"]["contrast"].astype(np.int64)
        times = np.where(np.isfinite(head["sample_time_us"]), head["sample_time_us"], 0)
        for group in np.unique(groups).tolist():
            mine = groups == group
            found = times[mine]
            known = self._dwell_us.setdefault((encoding, group), float(found[int(np.argmax(found > 0))]))
            if np.any(np.abs(found - known) > _SAME_DWELL * known):
                self.notes["lines of one image have several dwell times: scaled alike, by the first"] = None
            yield mine, known
