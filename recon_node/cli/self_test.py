"""A small scan through a whole node: MRD server, reconstruction, DICOM, queue and a folder as destination."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from recon_node.core.errors import ReconNodeError
from recon_node.offline.send import send_scan
from recon_node.online.serve import serving
from recon_node.settings import Settings, keys
from recon_node.simulate import simulate_scan

SLICES, PHASES = 1, 8
_DELIVERY_S = 20.0


def self_test(settings: Settings) -> str:
    """Reconstruct a drawn heart with these settings' method in a node of its own; what came of it, in words.

    Nothing of the site is touched: ports are free ones of loopback, folders are temporary.

    Raises
    ------
    ReconNodeError
        It did not come through.
    """
    with tempfile.TemporaryDirectory(prefix="recon-node-") as name:
        folder = Path(name)
        raw, share = folder / "heart.h5", folder / "share"
        share.mkdir()
        simulate_scan(
            raw, acceleration=4, pattern="random", coils=4, slices=SLICES, phases=PHASES, matrix=64, seed=1
        )
        began = time.monotonic()
        with serving(_alone(settings, folder)) as running:
            sent = send_scan(raw, port=running.server.port)
            if not sent.ok or sent.images != SLICES * PHASES:
                told = "; ".join(sent.errors) or f"{sent.images} of {SLICES * PHASES} images came back"
                raise ReconNodeError(f"a drawn heart was not reconstructed: {told}")
            verdicts = [series.verdict for series in running.board.series()]
            _wait_for_delivery(share)
        seconds = time.monotonic() - began
    return (
        f"{sent.images} images of a drawn heart by {settings.recon.method} ({', '.join(verdicts)}) came back "
        f"and were delivered in {seconds:.1f} s"
    )


def _alone(settings: Settings, folder: Path) -> Settings:
    """The same methods, in folders and at ports of their own."""
    own = Settings()
    for section in ("prep", "coils", "recon", "prompts", "dicom"):
        own = own.replace(section, **keys(getattr(settings, section)))
    own = own.replace("delivery", spool=str(folder / "spool"), to=(str(folder / "share"),), reserve_mb=0)
    return own.replace("server", port=0, out=str(folder / "images"), deferred=str(folder / "deferred"))


def _wait_for_delivery(share: Path) -> None:
    end = time.monotonic() + _DELIVERY_S
    while len(list(share.rglob("*.dcm"))) < SLICES * PHASES:
        if time.monotonic() > end:
            raise ReconNodeError(f"the images were not delivered within {_DELIVERY_S:.0f} s")
        time.sleep(0.05)
