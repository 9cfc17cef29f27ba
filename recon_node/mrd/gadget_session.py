"""One scan as Gadgetron hands it to a module: readouts out of its messages, the rest passed on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from recon_node.core.errors import ProtocolError
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.core.types import ImageSeries
from recon_node.mrd.frames import Frame, FrameReader
from recon_node.mrd.gadget_io import ITEMS
from recon_node.mrd.messages import MessageId
from recon_node.mrd.request import ScanConfig
from recon_node.mrd.session import WireSession
from recon_node.mrd.wire import decode

log = logging.getLogger(__name__)

_PASSED_ON = {MessageId.IMAGE, MessageId.IMAGE_ARRAY, MessageId.WAVEFORM}
_SORTED = {MessageId.ACQUISITION, MessageId.BUCKET, MessageId.RECON_DATA}


def as_others_do(images: ImageSeries) -> ImageSeries:
    """Images that lie on a screen as those of gadgets that transform k-space as it comes.

    Where k-space was conjugated, every pixel and both directions are turned by half a turn about the centre:
    the place of each pixel stays what it was. (The others' pixels contradict their directions.)
    """
    geometry = images.geometry
    if not geometry.conjugated:
        return images
    data = images.data[:, ::-1, ::-1]
    even = tuple((1 if size % 2 == 0 else 0) for size in data.shape[1:])  # about pixel n // 2
    read, phase = _opposite(geometry.read_dir), _opposite(geometry.phase_dir)
    return replace(
        images,
        data=np.roll(data, even, axis=(1, 2)),
        geometry=replace(geometry, conjugated=False, read_dir=read, phase_dir=phase),
    )


def _opposite(vector: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = vector
    return 0.0 - x, 0.0 - y, 0.0 - z


class GadgetSession(WireSession):
    """The session of a module inside a Gadgetron chain.

    Parameters
    ----------
    scan_id : str
    reader : FrameReader
        Behind CONFIG and HEADER.
    send : callable
        As for `WireSession`.
    headers : tuple of ScanHeader
    config : ScanConfig
        Properties of the ``<configuration>`` child.
    expects : MessageId
        What the chain is said to send: ACQUISITION, BUCKET or RECON_DATA.
    forward : bool
        Whether the data that is used is passed on as well, for a chain with other gadgets behind.
    first_series : int
        Image series index that the handler's series 1 gets in the chain.
    offer : callable, optional
        As for `WireSession`.
    """

    def __init__(
        self,
        scan_id: str,
        reader: FrameReader,
        send: Callable[[bytes | memoryview], bool],
        *,
        peer: str = "",
        headers: tuple[ScanHeader, ...],
        config: ScanConfig,
        expects: MessageId,
        forward: bool = False,
        first_series: int = 1,
        offer: Callable[[bytes], bool] = lambda data: False,
    ) -> None:
        super().__init__(scan_id, reader, send, peer=peer, offer=offer)
        self.first_series = first_series
        self._headers = headers
        self._config = config
        self._expects = expects
        self._forward = forward

    def reply(self, images: ImageSeries, **options: Any) -> bool:
        """Send images; beside those of other gadgets they lie as these do, directions turned with them."""
        return super().reply(as_others_do(images) if self._forward else images, **options)

    def show(self, images: ImageSeries, **options: Any) -> bool:
        """Send images that are no answer, lying as `reply` has them."""
        return super().show(as_others_do(images) if self._forward else images, **options)

    def text(self, line: str) -> bool:
        """Log a line: Gadgetron refuses TEXT from a module."""
        log.info("%s", line, extra={"scan": self.scan_id})
        return not self.peer_gone

    def _vet(self, message_id: MessageId) -> None:
        """Refuse another gadget's data before any of it is taken in."""
        if message_id in _SORTED and message_id is not self._expects:
            raise ProtocolError(
                f"this chain sends {message_id.name}, but its target takes {self._expects.name}; "
                "targets are acquisitions (ACQUISITION), buckets (BUCKET) and recon_data (RECON_DATA)"
            )

    def _items(self, frame: Frame) -> Collection[Readouts | Waveform]:
        if frame.message_id in _PASSED_ON or (self._forward and frame.message_id in _SORTED):
            self._put(bytes(frame.raw))
        if frame.message_id in ITEMS:
            return list(ITEMS[frame.message_id](frame))
        if frame.message_id in {MessageId.ACQUISITION, MessageId.WAVEFORM}:
            message = decode(frame)
            return [message] if isinstance(message, Readouts | Waveform) else []
        if frame.message_id not in _PASSED_ON:
            self._ignore(frame.message_id.name)
        return []
