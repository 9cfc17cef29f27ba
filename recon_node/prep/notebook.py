"""What the preparation notices about a scan, each thing once."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 300
"""Characters of a note: the rest helps nobody."""


class Notebook:
    """Notes, doubts (notes that keep a verdict from ``pass``) and counts of acquisitions left out."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._doubts: dict[str, None] = {}
        self._counts: dict[str, int] = {}

    def note(self, *texts: str) -> None:
        """Something assumed or odd that does no harm to the image."""
        self._notes.update(dict.fromkeys(texts))

    def doubt(self, *texts: str) -> None:
        """Something by which the image, its place or its scale may be wrong."""
        self._doubts.update(dict.fromkeys(texts))

    def count(self, what: str, number: int) -> None:
        """Acquisitions that go into no image."""
        self._counts[what] = self._counts.get(what, 0) + number

    @property
    def counts(self) -> dict[str, int]:
        """Acquisitions left out, by what they are."""
        return self._counts

    @property
    def notes(self) -> tuple[str, ...]:
        """Every note, the doubts and the counts included."""
        counts = ", ".join(f"{count} {name}" for name, count in self._counts.items() if count)
        return (*self._doubts, *self._notes, *((f"acquisitions left out: {counts}",) if counts else ()))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Those that keep the verdict from ``pass``."""
        return tuple(self._doubts)


def short(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes as they are told: each once, one line, at most `LONGEST` characters."""
    lines = (" ".join(note.split()) for note in notes)
    return tuple(
        dict.fromkeys(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..." for line in lines)
    )


def listed(numbers: Iterable[int], most: int = 8) -> str:
    """Numbers for a note: runs as ranges, and of many runs only the first."""
    values = sorted(set(numbers))
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    shown = [
        f"{first}" if first == last else f"{first}, {last}" if last == first + 1 else f"{first} to {last}"
        for first, last in runs[:most]
    ]
    return ", ".join(shown) + (f" and {len(runs) - most} more ranges" if len(runs) > most else "")
