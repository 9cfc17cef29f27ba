"""Lossless compression of pixel data (PS3.5 section 8.2 and annex A.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from recon_node.core.choices import Compression
from recon_node.core.errors import ConfigError, DicomError

TRANSFER_SYNTAX: dict[Compression, UID] = {
    "none": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
}
_PACKAGES = {
    JPEGLSLossless: "pip install pyjpegls",
    JPEG2000Lossless: "pip install pylibjpeg pylibjpeg-openjpeg",
}


def transfer_syntax(compression: Compression) -> UID:
    """Transfer syntax of a compression.

    Raises
    ------
    ConfigError
        Where there is no such compression, or no installed package does it.
    """
    if compression not in TRANSFER_SYNTAX:
        raise ConfigError(f"compression is {compression!r}, expected one of {', '.join(TRANSFER_SYNTAX)}")
    syntax = TRANSFER_SYNTAX[compression]
    if syntax.is_compressed and not get_encoder(syntax).is_available:
        raise ConfigError(
            f"compression {compression} needs a package: {_PACKAGES.get(syntax, 'see pydicom')}"
        )
    return syntax


def compressed_frame(frame: NDArray[np.uint16], syntax: UID) -> bytes:
    """Encapsulated pixel data of one image, without the delimiter that ends it; see `compressed_frames`."""
    return compressed_frames(frame[None], syntax)


def compressed_frames(frames: NDArray[np.uint16], syntax: UID) -> bytes:
    """Encapsulated pixel data of `(frame, y, x)` images, without the delimiter that ends it.

    Raises
    ------
    DicomError
        Where the encoder fails.
    """
    _, rows, columns = frames.shape
    encoder = get_encoder(syntax)
    description = {
        "rows": rows,
        "columns": columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": 16,
        "bits_stored": 16,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
    }
    try:
        encoded = [encoder.encode(frame, **description) for frame in frames]
    except (RuntimeError, ValueError) as error:
        raise DicomError(f"{syntax.name} cannot encode an image of {rows}x{columns}: {error}") from error
    return encapsulate(encoded, has_bot=True)
