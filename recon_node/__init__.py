"""recon-node: raw ISMRMRD in, trustworthy DICOM out. Not for clinical use until validated."""

__version__ = "0.1.0"
