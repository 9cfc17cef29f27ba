"""Quick images for a scan that is refused: the fallback's, which need neither weights, device nor disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from recon_node.core.errors import ConfigError
from recon_node.core.types import Verdict
from recon_node.mrd.session import ScanSession
from recon_node.pipeline.result import Reconstruction, Slice
from recon_node.pipeline.row import quick
from recon_node.settings import Settings

Configured = Callable[[str, Mapping[str, str]], Settings]
"""Settings of a configuration's name and properties; raises `ConfigError`."""
Slices = Callable[[ScanSession, Settings], Iterator[Slice]]
"""The row for a scan that arrives."""

QUICK_LOOK = "quick look"


def quick_images(session: ScanSession, why: str, *, configured: Configured, slices: Slices) -> None:
    """Answer with the fallback's images, each of which says why there are no others; nothing is written.

    Parameters
    ----------
    session : ScanSession
        None of it has been read.
    why : str
        The scan is refused.
    configured : callable
        What the peer asked for is followed as far as it is understood.
    slices : callable

    Raises
    ------
    ReconNodeError
        The fallback cannot reconstruct it either.
    """
    settings = _understood(session, configured)
    if settings.server.mode in ("retrieve", "echo"):
        return
    for done in slices(session, quick(settings)):
        marked = quick_look(done.result, f"the scan was refused: {why}")
        images = marked.images
        words = " ".join(filter(None, (images.header.protocol, images.made_by.method, QUICK_LOOK)))
        session.reply(images, verdict=marked.verdict, description=words)


def quick_look(result: Reconstruction, why: str) -> Reconstruction:
    """The fallback's images of a slice, saying why there are no others."""
    reasons = (f"{QUICK_LOOK}: {why}", *result.verdict.reasons)
    return replace(result, verdict=Verdict(verdict="fallback", score=0.0, reasons=reasons), held=False)


def _understood(session: ScanSession, configured: Configured) -> Settings:
    name, properties = session.config.name, session.config.properties
    for asked in ((name, properties), (name, {})):
        try:
            return configured(*asked)
        except ConfigError:
            continue
    return configured("default", {})
