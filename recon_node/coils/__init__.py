"""Coil sensitivity maps: calibration data, ESPIRiT, coil combination."""

from recon_node.coils.acs import calibration_region
from recon_node.coils.arrays import placed
from recon_node.coils.batch import espirit_slices
from recon_node.coils.combine import combine, combine_sets, expand, root_sum_of_squares
from recon_node.coils.espirit import espirit

__all__ = [
    "calibration_region",
    "combine",
    "combine_sets",
    "espirit",
    "espirit_slices",
    "expand",
    "placed",
    "root_sum_of_squares",
]
