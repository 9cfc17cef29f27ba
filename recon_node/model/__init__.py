"""CardioMM and other reconstructors."""

from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import CardioMMConfig, UNetConfig

__all__ = ["CardioMM", "CardioMMConfig", "UNetConfig"]
