"""Simulated scans: a beating heart with exact truth, as arrays in memory or as raw data files."""

from recon_node.simulate.contrast import PHASES
from recon_node.simulate.example import Example, draw_example
from recon_node.simulate.masks import ACCELERATIONS, PATTERNS, draw_mask
from recon_node.simulate.scanner import find_models

__all__ = ["ACCELERATIONS", "PATTERNS",
    "PHASES", "Example", "draw_example", "draw_mask", "find_models"]
