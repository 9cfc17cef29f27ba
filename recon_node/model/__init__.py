"""The CardioMM network and its weights."""

from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import CardioMMConfig, UNetConfig
from recon_node.model.published import import_published
from recon_node.model.weights import LoadedWeights, list_weights, load_weights, save_weights, verify_weights

__all__ = [
    "CardioMM",
    "CardioMMConfig",
    "LoadedWeights",
    "UNetConfig",
    "import_published",
    "list_weights",
    "load_weights",
    "save_weights",
    "verify_weights",
]
