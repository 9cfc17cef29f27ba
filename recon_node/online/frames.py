"""Preliminary images while a scan arrives: each frame as soon as its lines are there, the newest first.

They are made in a thread of their own, with what the row has sorted already, and keep nobody waiting: while
one is made, of all frames that come only the newest stays; whoever reads slowly gets fewer; the thread gives
way where there is one processor. Whatever goes wrong with them is logged, and stays with them. An image of a
slice never leaves behind the slice's own images.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol, Self

from recon_node.core.errors import where_it_failed
from recon_node.core.scan import SliceIndex
from recon_node.core.types import ImageSeries
from recon_node.pipeline.frames import FrameLines, FrameMaker, FrameWindow
from recon_node.pipeline.result import Slice
from recon_node.prep.placed import OnLines, PlacedLines
from recon_node.settings import Settings

log = logging.getLogger(__name__)

FRAME_SERIES = 4
"""Image series index of preliminary images, behind those of `recon_node.online.answer`."""
PRELIMINARY = "preliminary"
ATTRIBUTES: Mapping[str, str | tuple[str, ...]] = {
    "Preliminary": "true",
    "ImageType": ("DERIVED", "SECONDARY", "PRELIMINARY"),
    "TrustVerdict": "unchecked",
    "TrustReasons": "preliminary: made before the slice was complete, never checked",
}
"""Meta attributes of preliminary images."""
_NICE = 5
"""How far the thread stands back where there is no second processor."""
_MOST_FAILURES = 3
"""In a row, after which a scan gets no more of them."""
_LINGER_S = 10.0
"""How long the end of a scan waits for the image that is being made."""

Outcome = Literal["sent", "early", "dropped", "failed"]
"""``early``: too few lines had come to calibrate; ``dropped``: a newer frame, or the slice, was there first,
or the peer had not taken the images before."""
OnFrame = Callable[[Outcome, float | None], None]
"""Told of each complete frame: what became of it, and how long after its last line it was sent (s)."""


class Show(Protocol):
    """Sends a preliminary image, where that keeps nobody waiting; False if it was left out."""

    def __call__(
        self,
        images: ImageSeries,
        *,
        series_index: int,
        description: str,
        phases: tuple[int, int],
        attributes: Mapping[str, str | tuple[str, ...]],
    ) -> bool:
        """As `recon_node.mrd.session.ScanSession.show`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Waiting:
    """A complete frame, and when its last line came (`time.monotonic()` seconds)."""

    frame: FrameLines
    arrived: float


class Frames:
    """Makes and sends the preliminary images of one scan, inside a ``with`` block.

    Parameters
    ----------
    settings : Settings
    show : Show
        Called in the thread that makes them.
    on_frame : callable, optional
    last_data : callable
        When the latest line came, `time.monotonic()` seconds.
    """

    def __init__(
        self,
        settings: Settings,
        show: Show,
        *,
        on_frame: OnFrame = lambda outcome, seconds: None,
        last_data: Callable[[], float] = time.monotonic,
    ) -> None:
        self._maker = FrameMaker(settings)
        self._window = FrameWindow()
        self._show = show
        self._on_frame = on_frame
        self._last_data = last_data
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._newest: _Waiting | None = None
        self._over: set[SliceIndex] = set()
        """Slices whose own images leave."""
        self._ended = False
        self._failures = 0
        self.counts: Counter[Outcome] = Counter()
        """Complete frames by what became of them."""
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no thread
            self._failed(error)
            self._ended = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_LINGER_S)

    def watch(self, placed: PlacedLines) -> None:
        """Take lines; neither raises nor waits."""
        if self._ended:
            return
        try:
            for frame in self._window.see(placed):
                self._put(_Waiting(frame=frame, arrived=self._last_data()))
        except Exception as error:  # noqa: BLE001 - the scan goes on without preliminary images
            self._failed(error)
            self._ended = True

    def over(self, index: SliceIndex) -> None:
        """From now on no image of this slice leaves: its own follow."""
        with self._sending:
            self._over.add(index)

    @property
    def told(self) -> str | None:
        """What became of the frames, in a line; None where all is as expected."""
        counts, of = self.counts, self.counts.total()
        if counts["sent"] == of:
            return None
        why: dict[Outcome, str] = {
            "early": "too few lines to calibrate had come",
            "dropped": "a newer frame, or the slice, was there first, or images before had not been read",
            "failed": "could not be made",
        }
        left = "; ".join(f"{counts[name]}: {words}" for name, words in why.items() if counts[name])
        return f"{counts['sent']} preliminary images of {of} frames, without {left}"

    def _put(self, waiting: _Waiting) -> None:
        with self._changed:
            before, self._newest = self._newest, waiting
            self._changed.notify_all()
        if before is not None:
            self._count("dropped")

    def _run(self) -> None:
        if sys.platform == "linux" and len(os.sched_getaffinity(0)) == 1:
            with contextlib.suppress(OSError):  # of this thread alone
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (waiting := self._next()) is not None:
            try:
                self._make(waiting)
                self._failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, it stays with this frame
                self._failed(error)
                if self._failures >= _MOST_FAILURES:
                    log.warning("no more preliminary images of this scan")
                    self._ended = True

    def _next(self) -> _Waiting | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._newest is not None)
            waiting, self._newest = self._newest, None
            ended = self._ended
        if ended and waiting is not None:
            self._count("dropped")
        return None if ended else waiting

    def _make(self, waiting: _Waiting) -> None:
        frame = waiting.frame
        if frame.index in self._over:
            self._count("dropped")
            return
        images = self._maker.make(frame)
        if images is None:
            self._count("early")
            return
        words = (images.header.protocol, images.made_by.method, PRELIMINARY)
        with self._sending:
            sent = (
                not self._ended
                and frame.index not in self._over
                and self._show(
                    images,
                    series_index=FRAME_SERIES,
                    description=" ".join(filter(None, words)),
                    phases=(frame.phase, frame.phases),
                    attributes=ATTRIBUTES,
                )
            )
        self._count("sent" if sent else "dropped", time.monotonic() - waiting.arrived if sent else None)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._count("failed")
        if self.counts["failed"] == 1:
            log.warning("a preliminary image failed (%s): the scan goes on", where_it_failed(error))

    def _count(self, outcome: Outcome, seconds: float | None = None) -> None:
        with self._changed:
            self.counts[outcome] += 1
        self._on_frame(outcome, seconds)


def with_frames(
    settings: Settings,
    rows: Callable[[OnLines | None], Iterator[Slice]],
    show: Show,
    *,
    say: Callable[[str], object],
    on_frame: OnFrame = lambda outcome, seconds: None,
    last_data: Callable[[], float] = time.monotonic,
) -> Iterator[Slice]:
    """The slices of a scan, preliminary images before them where the settings want these.

    Parameters
    ----------
    settings : Settings
    rows : callable
        The row, given who looks on while lines arrive.
    show, on_frame, last_data
        As for `Frames`.
    say : callable
        Told in a line what became of the frames, where some were left out.
    """
    if settings.server.frames == "off":
        yield from rows(None)
        return
    with Frames(settings, show, on_frame=on_frame, last_data=last_data) as frames:
        for done in rows(frames.watch):
            frames.over(replace(done.result.kspace.index, partition=0))
            yield done
    if frames.told is not None:
        say(frames.told)
