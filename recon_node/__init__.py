"""recon-node: raw ISMRMRD in, trustworthy DICOM out. Not for clinical use until validated.

    from recon_node import open_scan, reconstruct, write_dicom

    for kspace in open_scan("scan.h5"):
        result = reconstruct(kspace, method="sense")
        print(result.images.data.shape, result.verdict)
        write_dicom(result, "images")

Names are loaded when they are first used, so that ``import recon_node`` is quick. It sets `OMP_NUM_THREADS`
to 1 where nothing is set: import it before other libraries of numbers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recon_node.core.threads import one_thread_by_default
from recon_node.core.version import __version__

one_thread_by_default()

if TYPE_CHECKING:
    from recon_node.core.errors import (
        CalibrationError,
        ConfigError,
        DataError,
        DeliveryError,
        DeviceError,
        DicomError,
        DiskFull,
        InconsistentReadouts,
        LimitReached,
        ModelError,
        NodeBusy,
        NoKSpace,
        PacsMisconfigured,
        PacsRejected,
        PacsUnreachable,
        ProtocolError,
        ReconNodeError,
        SourceError,
        SpoolCorrupt,
        TruncatedStream,
        UnsupportedScan,
        WeightsError,
    )
    from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding, Verdict
    from recon_node.pipeline.arrays import kspace_from_arrays
    from recon_node.pipeline.result import Reconstruction
    from recon_node.pipeline.row import Pipeline, reconstruct
    from recon_node.pipeline.scan import open_scan
    from recon_node.pipeline.write import write_dicom
    from recon_node.settings import Settings, load_settings
    from recon_node.solvers.noise import g_factor, noise_deviation

__all__ = [
    "CalibrationError",
    "CoilMaps",
    "ConfigError",
    "DataError",
    "DeliveryError",
    "DeviceError",
    "DicomError",
    "DiskFull",
    "ImageSeries",
    "InconsistentReadouts",
    "KSpace",
    "LimitReached",
    "ModelError",
    "NoKSpace",
    "NodeBusy",
    "PacsMisconfigured",
    "PacsRejected",
    "PacsUnreachable",
    "Pipeline",
    "ProtocolError",
    "ReconNodeError",
    "Reconstruction",
    "Settings",
    "SourceError",
    "SpoolCorrupt",
    "TextEmbedding",
    "TruncatedStream",
    "UnsupportedScan",
    "Verdict",
    "WeightsError",
    "__version__",
    "g_factor",
    "kspace_from_arrays",
    "load_settings",
    "noise_deviation",
    "open_scan",
    "reconstruct",
    "write_dicom",
]

_HOMES = {
    "Pipeline": "recon_node.pipeline.row",
    "Reconstruction": "recon_node.pipeline.result",
    "Settings": "recon_node.settings",
    "g_factor": "recon_node.solvers.noise",
    "kspace_from_arrays": "recon_node.pipeline.arrays",
    "load_settings": "recon_node.settings",
    "noise_deviation": "recon_node.solvers.noise",
    "open_scan": "recon_node.pipeline.scan",
    "reconstruct": "recon_node.pipeline.row",
    "write_dicom": "recon_node.pipeline.write",
    **dict.fromkeys(
        ("CoilMaps", "ImageSeries", "KSpace", "TextEmbedding", "Verdict"), "recon_node.core.types"
    ),
}
"""Where a name lives that is no error."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _errors():
        value = _errors()[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*__all__, *_errors()})


def _errors() -> dict[str, Any]:
    """Every error of the tree, those that were added since `__all__` was written as well."""
    tree = vars(import_module("recon_node.core.errors"))
    base = tree["ReconNodeError"]
    return {name: kind for name, kind in tree.items() if isinstance(kind, type) and issubclass(kind, base)}
