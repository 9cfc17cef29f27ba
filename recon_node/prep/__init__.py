"""Raw readouts to whitened, sorted k-space of one slice at a time."""

from recon_node.prep.compression import compress_coils
from recon_node.prep.gating import RetrospectiveGating
from recon_node.prep.sampling import classify_sampling
from recon_node.prep.sorting import Preparation

__all__ = [
    "Preparation",
    "RetrospectiveGating",
    "classify_sampling",
    "compress_coils",
]
