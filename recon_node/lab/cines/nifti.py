"""Cines in NIfTI files: `(x, y, slice, phase)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.lab.cines.matrix import check_finite, check_size, restored
from recon_node.simulate.cine import Cine

FEW = 12
"""An image with no more different whole numbers than this is a segmentation."""


def read_nifti(path: Path, name: str) -> list[Cine]:
    """Read the slices of one file, each a clip.

    Raises
    ------
    DataError
        ``nibabel`` is missing, the file is damaged or a segmentation, or holds no series over time.
    """
    try:
        import nibabel
    except ImportError as error:
        raise DataError(f"{name}: NIfTI needs nibabel: pip install 'recon-node[nifti]'") from error
    try:
        image: Any = nibabel.load(path)
        check_size(name, image.shape)
        data = np.asarray(image.dataobj)
        zooms = [float(size) for size in image.header.get_zooms()]
        units = image.header.get_xyzt_units()
    except DataError:
        raise
    except Exception as error:  # whatever nibabel stumbles over: codes of types and units, sizes, packing
        raise DataError(
            f"{name}: the NIfTI file cannot be read ({type(error).__name__}): copy it anew"
        ) from error
    return _clips(data, zooms, units, name)


def _clips(data: NDArray[Any], zooms: list[float], units: tuple[str, str], name: str) -> list[Cine]:
    if data.dtype.names is not None:
        raise DataError(f"{name}: found a colour image, expected grey values")
    check_finite(name, data)
    if data.ndim not in (3, 4):
        raise DataError(f"{name}: found a shape of {data.shape}, expected (x, y, slice, phase)")
    if len(np.unique(data[..., 0])) <= FEW and np.array_equal(data[..., 0], np.round(data[..., 0])):
        raise DataError(f"{name}: found a segmentation (few whole numbers), expected images: leave it out")
    if min(zooms[:2]) <= 0:
        raise DataError(f"{name}: no pixel size in the header, expected mm")
    scale = {"meter": 1e3, "micron": 1e-3}.get(units[0], 1.0)
    pixel = (zooms[1] * scale, zooms[0] * scale)
    if data.ndim == 3 or data.shape[3] < 2:
        raise DataError(f"{name}: found one frame, expected a cine of at least 2 frames (x, y, slice, phase)")
    clips = []
    for slice_ in range(data.shape[2]):
        frames = np.abs(data[:, :, slice_].transpose(2, 1, 0)).astype(np.float32)
        label = name if data.shape[2] == 1 else f"{name}_slice{slice_ + 1:02d}"
        images, pixel_mm = restored(frames, pixel)
        clips.append(Cine(images=images, pixel_mm=pixel_mm, name=label))
    return clips
