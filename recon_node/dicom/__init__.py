"""DICOM instances from finished images: right, honest about how they were made, the same each time."""

from recon_node.dicom.build import build_series
from recon_node.dicom.compress import transfer_syntax
from recon_node.dicom.deidentify import deidentified_file, deidentify
from recon_node.dicom.modules import Site
from recon_node.dicom.provenance import Provenance, read_provenance
from recon_node.dicom.template import EncodedInstance, encode_series
from recon_node.dicom.write import WrittenInstance, write_series

__all__ = [
    "EncodedInstance",
    "Provenance",
    "Site",
    "WrittenInstance",
    "build_series",
    "deidentified_file",
    "deidentify",
    "encode_series",
    "read_provenance",
    "transfer_syntax",
    "write_series",
]
