"""Received scans, reconstructed once more: to the pixels and UIDs that were answered then."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recon_node.core.errors import ReconNodeError, SourceError
from recon_node.mrd.captures import Capture
from recon_node.mrd.images import image_messages
from recon_node.mrd.messages import ImageMessage
from recon_node.mrd.wire import read_messages
from recon_node.online.again import Replayed, asked_for
from recon_node.online.received import settings_then
from recon_node.pipeline.row import Pipeline, row
from recon_node.pipeline.summary import summary_entry
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import Settings

Likeness = Literal["equal", "different", "unknown"]
"""Of the images to those that were answered; unknown where none were kept, or another method made them."""


@dataclass(slots=True, kw_only=True)
class Recalled:
    """What came of one received scan."""

    scan_id: str
    series: list[dict[str, Any]] = field(default_factory=list)
    """Entries as in ``summary.json``."""
    images: int = 0
    likeness: Likeness = "unknown"
    note: str = ""
    """Why slices may be missing: its end never came."""
    error: ReconNodeError | None = None


def recall(capture: Capture, settings: Settings, out: Path, *, as_then: bool = True) -> Recalled:
    """Reconstruct a received scan to DICOM, and compare with what was answered.

    Parameters
    ----------
    capture : Capture
    settings : Settings
        As they are now.
    out : Path
        Folder for DICOM.
    as_then : bool
        With the settings that images depended on when it came; else as `settings` are.

    Returns
    -------
    Recalled
        With its error, which is not raised.
    """
    found = Recalled(scan_id=capture.scan_id)
    try:
        wanted = settings_then(capture, settings) if as_then else settings
        if as_then and capture.made_by:
            wanted = wanted.replace("recon", method=capture.made_by)
        made = _made(capture, wanted, out, found)
    except ReconNodeError as error:
        found.error = error
        return found
    found.images = sum(map(len, made.values()))
    found.likeness = _likeness(made, _answered(capture))
    return found


def _made(
    capture: Capture, settings: Settings, out: Path, found: Recalled
) -> dict[tuple[int, ...], list[Any]]:
    asked_for(capture)  # a clear word where there is no header
    writer = SeriesWriter.from_settings(settings, out, fsync=True)
    made: dict[tuple[int, ...], list[Any]] = {}
    with Replayed(capture, threading.Event()) as session:
        try:
            for done in row(session, Pipeline(settings), writer=writer):
                result = done.result
                _collect(made, image_messages(result.images, verdict=result.verdict))
                found.series.append(summary_entry(done, source=capture.scan_id))
        except SourceError as error:
            if capture.whole:
                raise
            found.note = str(error)
    return made


def _answered(capture: Capture) -> dict[tuple[int, ...], list[Any]]:
    """The images that were kept, by slice."""
    kept: dict[tuple[int, ...], list[Any]] = {}
    if capture.images.exists() and capture.images.stat().st_size:
        messages = read_messages(memoryview(capture.images.read_bytes()), close_optional=True)
        _collect(kept, [message for message in messages if isinstance(message, ImageMessage)])
    return kept


def _collect(table: dict[tuple[int, ...], list[Any]], messages: list[ImageMessage]) -> None:
    for message in messages:
        head = message.head
        place = tuple(
            int(np.ravel(head[name])[0]) for name in ("slice", "contrast", "set", "repetition", "phase")
        )
        table.setdefault(place, []).append(np.asarray(message.data))


def _likeness(made: dict[tuple[int, ...], list[Any]], kept: dict[tuple[int, ...], list[Any]]) -> Likeness:
    if not kept:
        return "unknown"
    same = made.keys() == kept.keys() and all(
        len(made[place]) == len(kept[place])
        and all(np.array_equal(a, b) for a, b in zip(made[place], kept[place], strict=True))
        for place in made
    )
    return "equal" if same else "different"
