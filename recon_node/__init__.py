"""recon-node: raw ISMRMRD in, trustworthy DICOM out. Not for clinical use until validated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recon_node.core.version import __version__

if TYPE_CHECKING:
    from recon_node.pipeline.row import reconstruct
    from recon_node.pipeline.scan import open_scan


__all__ = ["__version__", "open_scan", "reconstruct"]


def __getattr__(name: str) -> Any:
    """Load `open_scan` and `reconstruct` when they are first used, so that `import recon_node` is quick."""
    if name == "open_scan":
        from recon_node.pipeline.scan import open_scan

        return open_scan
    if name == "reconstruct":
        from recon_node.pipeline.row import reconstruct

        return reconstruct
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
