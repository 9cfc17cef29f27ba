"""Cines of real hearts from a folder: npz, DICOM series and NIfTI, at the matrix they were acquired with."""

from recon_node.lab.cines.folder import fingerprint, named, read_cines
from recon_node.lab.cines.matrix import restored

__all__ = ["fingerprint", "named", "read_cines", "restored"]
