"""From reconstructed complex images to pixels as they are stored: matrix, geometry, scale."""

from recon_node.images.finish import finish
from recon_node.images.geometry import image_affine, pixel_size_mm
from recon_node.images.orient import Orientation, display_orientation, orient
from recon_node.images.partial_fourier import covered_part, fill_partial_fourier
from recon_node.images.quantify import LEAST_CONTRASTS, t1_map_ms, t2_map_ms, velocity_cm_s
from recon_node.images.scale import Scaling, StoredPixels, scale_series, store, velocity_scaling
from recon_node.images.shading import evened

__all__ = [
    "LEAST_CONTRASTS",
    "Orientation",
    "Scaling",
    "StoredPixels",
    "covered_part",
    "display_orientation",
    "evened",
    "fill_partial_fourier",
    "finish",
    "image_affine",
    "orient",
    "pixel_size_mm",
    "scale_series",
    "store",
    "t1_map_ms",
    "t2_map_ms",
    "velocity_cm_s",
    "velocity_scaling",
]
