"""CardioMM and other reconstructors."""

from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import CardioMMConfig, UNetConfig
from recon_node.model.sense import Sense
from recon_node.model.zero_filled import ZeroFilled

__all__ = ["CardioMM", "CardioMMConfig", "Sense", "UNetConfig", "ZeroFilled"]
