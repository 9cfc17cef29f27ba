"""What a peer gets of a slice: the images that stand, those withheld beside them, or why there are none."""

from __future__ import annotations

import logging

from recon_node.core.types import ImageSeries, Verdict
from recon_node.mrd.session import ScanSession
from recon_node.pipeline.result import Reconstruction
from recon_node.pipeline.write import WITHHELD, shown_beside

log = logging.getLogger(__name__)

WITHHELD_SERIES = 2
"""Image series index of images that failed the trust check, where both are delivered."""
STAND_IN_SERIES = 3
"""Of a fallback's images among those of the method: a series has one description."""


def answers(result: Reconstruction) -> list[tuple[int, ImageSeries, Verdict, str | None]]:
    """Image series of a slice that leave: index, images, verdict and description (None for the usual one)."""
    if result.held:
        return []
    index = STAND_IN_SERIES if result.verdict.verdict == "fallback" else 1
    found: list[tuple[int, ImageSeries, Verdict, str | None]] = [(index, result.images, result.verdict, None)]
    if result.withheld is not None:
        beside = shown_beside(result, result.withheld)
        made = beside.images
        words = " ".join(filter(None, (made.header.protocol, made.made_by.method, WITHHELD)))
        found.append((WITHHELD_SERIES, made, beside.verdict, words))
    return found


def held_line(result: Reconstruction) -> str:
    """Where a slice is that nobody gets yet."""
    return (
        f"slice {result.kspace.index.slice} is held for review (recon.on_distrust): its DICOM is on this "
        "node's disk only, `recon-node export` delivers it"
    )


def answer(session: ScanSession, result: Reconstruction) -> bool:
    """Send what leaves of one slice; False if the peer is gone.

    Parameters
    ----------
    session : ScanSession
    result : Reconstruction
        Safe on the disk already.
    """
    if result.held:
        log.warning("slice %d is held for review", result.kspace.index.slice, extra={"scan": session.scan_id})
        return session.text(f"WRN {held_line(result)}")
    sent = True
    for index, images, verdict, description in answers(result):
        sent = session.reply(images, series_index=index, verdict=verdict, description=description)
    return sent
