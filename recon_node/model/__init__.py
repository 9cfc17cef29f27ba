"""CardioMM and other reconstructors."""

from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import CardioMMConfig, KtConfig, UNetConfig
from recon_node.model.kt import KtSparse, ViewSharing
from recon_node.model.published import import_published
from recon_node.model.runner import CardioMMReconstructor
from recon_node.model.sense import Sense
from recon_node.model.wavelet import L1Wavelet
from recon_node.model.weights import LoadedWeights, list_weights, load_weights, save_weights, verify_weights
from recon_node.model.zero_filled import ZeroFilled

__all__ = [
    "CardioMM",
    "CardioMMConfig",
    "CardioMMReconstructor",
    "KtConfig",
    "KtSparse",
    "L1Wavelet",
    "LoadedWeights",
    "Sense",
    "UNetConfig",
    "ViewSharing",
    "ZeroFilled",
    "import_published",
    "list_weights",
    "load_weights",
    "save_weights",
    "verify_weights",
]
