"""One scan from a pipe to a pipe: raw data in, images out slice by slice, DICOM beside.

For tools that join processes: MRD's own command-line tools, Pingvin, Tyger. Nothing is sought in, memory
holds the slices in flight only, and an error is one line and an exit code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from recon_node.core.errors import ReconNodeError, SourceError
from recon_node.core.types import ImageSeries
from recon_node.mrd.images import image_messages
from recon_node.mrd.messages import ImageMessage
from recon_node.online.answer import answers, held_line
from recon_node.online.frames import with_frames
from recon_node.online.pipes import ImageSink, Protocols, open_pipe, open_sink, with_noise
from recon_node.online.prefetch import Prefetch
from recon_node.pipeline.result import Slice
from recon_node.pipeline.row import Pipeline, row
from recon_node.pipeline.summary import summary_entry
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import Settings


@dataclass(slots=True, kw_only=True)
class StreamSummary:
    """What became of a stream."""

    images: int = 0
    """That left."""
    series: list[dict[str, Any]] = field(default_factory=list)
    """Entries as in ``summary.json``."""
    folders: set[Path] = field(default_factory=set)
    """Of the DICOM that was written and may leave."""
    error: ReconNodeError | None = None
    """Why it did not end well; what was whole before left all the same."""


def reconstruct_stream(
    input: BinaryIO,  # noqa: A002 - the option's name
    output: BinaryIO,
    settings: Settings,
    *,
    protocol: Protocols | None = None,
    noise: Path | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> StreamSummary:
    """Reconstruct the scan in `input` to images in `output`.

    Parameters
    ----------
    input, output : binary streams
        Read once, and written once; left open.
    settings : Settings
        The whole tree.
    protocol : str, optional
        Of the output: ``ismrmrd`` or ``mrd2``; by default that of the input.
    noise : Path, optional
        A noise scan or covariance that came apart, see `recon_node.online.pipes.read_noise`.
    out : Path, optional
        Folder for DICOM.
    say : callable
        Told what goes on, a line at a time.

    Raises
    ------
    ConfigError, WeightsError
        Before anything is read.
    """
    pipeline = Pipeline(settings)
    writer = None if out is None else SeriesWriter.from_settings(settings, out, fsync=True)
    summary = StreamSummary()
    try:
        source = open_pipe(input)
        sink = _Sink(open_sink(output, source, protocol))
        scan = with_noise(source, noise)
        try:
            rows = partial(
                row,
                scan,
                pipeline,
                writer=writer,
                ahead=lambda prepared: Prefetch(prepared, settings.server.slices_ahead),
                hurry=True,
            )
            for done in with_frames(settings, lambda watch: rows(watch=watch), sink.show, say=say):
                summary.images += sink.send(done)
                summary.series.append(summary_entry(done, source="stream"))
                if not done.result.held:
                    summary.folders.update(instance.path.parent for instance in done.instances)
                _tell(done, say)
        finally:
            sink.close()
        sink.check()
    except ReconNodeError as error:
        summary.error = error
    return summary


class _Sink:
    """Images on their way to whoever reads; where nobody does any more, DICOM goes on and the end tells."""

    def __init__(self, sink: ImageSink) -> None:
        self._sink = sink
        self._broken: OSError | None = None
        self._sending = threading.Lock()

    def send(self, done: Slice) -> int:
        """Images of one slice that left."""
        messages = [
            message
            for index, images, verdict, words in answers(done.result)
            for message in image_messages(images, series_index=index, verdict=verdict, description=words)
        ]
        return len(messages) if self._sent(messages) else 0

    def show(self, images: ImageSeries, **options: Any) -> bool:
        """Send a preliminary image, given as `recon_node.mrd.images.image_messages` takes it."""
        return self._sent(image_messages(images, **options))

    def _sent(self, messages: Sequence[ImageMessage]) -> bool:
        with self._sending:
            if self._broken is not None:
                return False
            try:
                for message in messages:
                    self._sink.image(message)
            except OSError as error:
                self._broken = error
                return False
            return True

    def close(self) -> None:
        """End the stream, so that whoever reads has what is whole."""
        try:
            with self._sending:
                if self._broken is None:
                    self._sink.close()
        except OSError as error:
            self._broken = error

    def check(self) -> None:
        """Say so where images got nowhere."""
        if self._broken is not None:
            raise SourceError(f"nobody reads the output any more ({self._broken.strerror})") from self._broken


def _tell(done: Slice, say: Callable[[str], None]) -> None:
    result = done.result
    index, made = result.kspace.index, result.images.made_by
    say(
        f"slice {index.slice}: {len(result.images.data)} images by {made.method}, trust "
        f"{result.verdict.verdict}, {sum(done.seconds.values()):.1f} s of work, "
        f"{time.monotonic() - done.arrived:.1f} s after its last line"
    )
    if result.held:
        say(f"note: {held_line(result)}")
    if result.verdict.expected is not None:
        say(f"slice {index.slice}: {result.verdict.expected.sentence}")
    for reason in (*result.verdict.reasons, *result.kspace.notes):
        say(f"note: slice {index.slice}: {reason}")
