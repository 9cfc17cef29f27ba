"""Raw readouts to whitened, sorted k-space of one slice at a time."""

from recon_node.prep.sampling import classify_sampling

__all__ = ["classify_sampling"]
