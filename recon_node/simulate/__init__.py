"""Simulated scans: a beating heart with exact truth, as arrays in memory or as raw data files."""

from recon_node.simulate.contrast import MODALITIES, PHASES
from recon_node.simulate.example import Example, ExampleDescription, draw_example
from recon_node.simulate.masks import ACCELERATIONS, PATTERNS, draw_mask
from recon_node.simulate.scan import ScanDescription, simulate_scan
from recon_node.simulate.scanner import MODELS, NOMINAL_FIELDS_T, VENDORS, Model, find_models
from recon_node.simulate.subject import LIFESPANS, VIEWS

__all__ = [
    "ACCELERATIONS",
    "LIFESPANS",
    "MODALITIES",
    "MODELS",
    "NOMINAL_FIELDS_T",
    "PATTERNS",
    "PHASES",
    "VENDORS",
    "VIEWS",
    "Example",
    "ExampleDescription",
    "Model",
    "ScanDescription",
    "draw_example",
    "draw_mask",
    "find_models",
    "simulate_scan",
]
