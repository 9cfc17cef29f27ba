"""What the heart's numbers lose by undersampling: volumes, ejection fraction, mass and wall thickness."""

from recon_node.lab.biomarkers.segmenters import (
    Segmentation,
    Segmenter,
    SliceImages,
    find_segmenter,
    segmenter_names,
)
from recon_node.lab.biomarkers.stacks import Stack, drawn_stacks, real_stacks
from recon_node.lab.biomarkers.study import BiomarkerStudy, run

__all__ = [
    "BiomarkerStudy",
    "Segmentation",
    "Segmenter",
    "SliceImages",
    "Stack",
    "drawn_stacks",
    "find_segmenter",
    "real_stacks",
    "run",
    "segmenter_names",
]
