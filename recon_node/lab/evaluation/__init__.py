"""Image quality, biomarkers, studies over many scans, and the report of one."""

from recon_node.lab.evaluation.biomarkers import bland_altman, blood_volume_ml, function_of, mask_volume_ml
from recon_node.lab.evaluation.metrics import Metrics, frame_metrics, series_metrics

__all__ = [
    "Metrics",
    "bland_altman",
    "blood_volume_ml",
    "frame_metrics",
    "function_of",
    "mask_volume_ml",
    "series_metrics",
]
