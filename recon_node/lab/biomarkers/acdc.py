"""The segmenter of real hearts: a network trained on ACDC, run by ONNX Runtime.

The file comes with package myopari (MIT licence); any other network of the same form, named by
``RECON_NODE_SEGMENTER_ONNX``, does as well: input `(batch, 1, side, side)` float32 between 0 and 1, output
`(batch, 4, side, side)` scores of background, right ventricle, myocardium and left ventricle.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, map_coordinates

from recon_node.core.errors import ConfigError, DataError
from recon_node.lab.biomarkers.continuity import continuous
from recon_node.lab.biomarkers.segmenters import F32, Segmentation, SliceImages

VARIABLE = "RECON_NODE_SEGMENTER_ONNX"
PACKAGE, FILE = "myopari", "Resources/tiramisu_acdc_fp32.onnx"
FIELD_MM = 320.0
"""Side of the square around the heart that the network sees: chosen by the experts' contours of Sunnybrook
SCD2 and SCD3. 240 mm is as near to them, but loses a basal slice in end systole where the image is turned by
20 or 90 degrees, and without turning where the image ends before that."""
LOST = 0.5
"""Of the slice's median cavity, and of that of the frames around: what is smaller may be a ventricle that the
network lost in that frame."""
PERCENTILES = (0.05, 99.05)
"""Of a frame's pixels, which become 0 and 1."""
MYOCARDIUM, CAVITY = 2, 3
CLASSES = 4
_HOW = (
    "pip install 'recon-node[segmentation]' and pip install --no-deps 'myopari>=0.1.6', "
    f"or name a network's file in {VARIABLE}"
)


class AcdcNetwork:
    """Cavity and wall by an ONNX network, frame by frame.

    Parameters
    ----------
    path : Path, optional
        The network; by default the file that `VARIABLE` names, else the one of package myopari.

    Raises
    ------
    ConfigError
        ONNX Runtime or the file is missing, or it is a network of another form.
    """

    name = "acdc"

    def __init__(self, path: Path | None = None) -> None:
        where = path or network_file()
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"segmenter acdc needs ONNX Runtime: {_HOW}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(where), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ConfigError(
                f"segmenter acdc: {where.name} is no network that ONNX Runtime reads"
            ) from error
        taken = self._session.get_inputs()[0]
        self._input, shape = taken.name, list(taken.shape)
        if len(shape) != 4 or shape[1] != 1 or shape[2] != shape[3] or not isinstance(shape[2], int):
            raise ConfigError(
                f"segmenter acdc: the network takes {shape}, expected (batch, 1, side, side), sides fixed"
            )
        self.side = shape[2]

    def segment(self, images: SliceImages) -> Segmentation:
        """Shares are 0 or 1, on the network's grid of `FIELD_MM` around the heart.

        Of several parts, the largest of cavity and wall together counts. A frame whose cavity is below
        `LOST` of the slice's median is looked at again in four directions; where the ventricle stays lost,
        though the frames around it have it, it is taken from these (`recon_node.lab.biomarkers.continuity`).

        Raises
        ------
        DataError
            The network's answer has another form.
        """
        seen = around(images, self.side)
        kept = np.stack([_largest(self._scores(frame)) for frame in seen])
        areas = (kept == CAVITY).sum(axis=(1, 2))
        for place in np.flatnonzero(areas < LOST * np.median(areas)):
            kept[place] = _largest(self._from_all_sides(seen[place]))
        cavity, wall = continuous(kept == CAVITY, kept == MYOCARDIUM, least=LOST)
        pixel = FIELD_MM / self.side
        return Segmentation(
            cavity=cavity.astype(np.float32),
            wall=wall.astype(np.float32),
            pixel_mm=(pixel, pixel),
        )

    def _from_all_sides(self, frame: F32) -> F32:
        """Mean scores of the frame turned by 0, 90, 180 and 270 degrees, turned back."""
        turned = (self._scores(np.ascontiguousarray(np.rot90(frame, turn))) for turn in range(4))
        back = [np.rot90(scores, -turn, axes=(1, 2)) for turn, scores in enumerate(turned)]
        return np.asarray(np.mean(back, axis=0), np.float32)

    def _scores(self, frame: F32) -> F32:
        """Scores `(class, side, side)` of a frame."""
        scores: Any = self._session.run(None, {self._input: frame[None, None]})[0]
        if scores.shape != (1, CLASSES, self.side, self.side):
            raise DataError(
                f"segmenter acdc: the network answered {scores.shape}, expected 1 x {CLASSES} classes of "
                f"{self.side} x {self.side}"
            )
        return np.asarray(scores[0], np.float32)


def network_file() -> Path:
    """Where the network lies.

    Raises
    ------
    ConfigError
        Nowhere.
    """
    named = os.environ.get(VARIABLE)
    spec = None if named else find_spec(PACKAGE)  # found, not imported: it would want a desktop
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = Path(named) if named else Path(folders[0], FILE) if folders else None
    if path is None or not path.is_file():
        missing = f"{VARIABLE} names no file" if named else f"found no package {PACKAGE}"
        raise ConfigError(f"segmenter acdc: {missing}: {_HOW}")
    return path


def around(images: SliceImages, side: int) -> F32:
    """`(phase, side, side)` the square of `FIELD_MM` around the heart, each frame between 0 and 1."""
    steps = (np.arange(side) - (side - 1) / 2) * (FIELD_MM / side)
    grid = np.meshgrid(
        *(c + steps / p for c, p in zip(images.centre, images.pixel_mm, strict=True)), indexing="ij"
    )
    seen = np.stack([map_coordinates(frame, grid, order=1, mode="constant") for frame in images.images])
    low, high = (np.percentile(seen, p, axis=(1, 2), keepdims=True) for p in PERCENTILES)
    scaled = (np.clip(seen, low, high) - low) / np.maximum(high - low, 1e-12)
    return np.asarray(scaled, np.float32)


def _largest(scores: F32) -> NDArray[np.intp]:
    """Best classes in the largest connected part of the ventricle; 0 elsewhere."""
    classes: NDArray[np.intp] = scores.argmax(axis=0)
    parts, count = label(np.isin(classes, (MYOCARDIUM, CAVITY)))
    if count == 0:
        return np.zeros_like(classes)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.where(parts == sizes.argmax(), classes, 0)
