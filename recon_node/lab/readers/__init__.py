"""Reader studies: blinded, randomised pairs of images to score, and what the scores say."""

from recon_node.lab.readers.export import Shown, export_pairs
from recon_node.lab.readers.statistics import read_scores, reader_statistics

__all__ = ["Shown", "export_pairs", "read_scores", "reader_statistics"]
