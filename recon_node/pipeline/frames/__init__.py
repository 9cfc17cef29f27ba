"""Preliminary images of single frames, while the lines of their slice still arrive."""

from recon_node.pipeline.frames.image import FrameMaker
from recon_node.pipeline.frames.lines import FrameLines
from recon_node.pipeline.frames.window import FrameWindow

__all__ = ["FrameLines", "FrameMaker", "FrameWindow"]
