"""Received images on disk, in the HDF5 layout that Gadgetron's client writes and ismrmrd tools read."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import SourceError
from recon_node.mrd.messages import IMAGE_HEADER, ImageMessage, completed_head

_COMPLEX = {
    np.dtype("<c8"): np.dtype([("real", "<f4"), ("imag", "<f4")]),
    np.dtype("<c16"): np.dtype([("real", "<f8"), ("imag", "<f8")]),
}
_PLAIN = {dtype: plain for plain, dtype in _COMPLEX.items()}


class ImageStore:
    """Appends images to ``GROUP/image_<series>/{data (N, channel, z, y, x), header, attributes}``.

    Parameters
    ----------
    path : Path
        HDF5 file; made on the first image, appended to where it exists.
    group : str
        Name of the group that holds the series.

    Raises
    ------
    SourceError
        The file cannot be written, or an image does not fit the series it says it belongs to.
    """

    def __init__(self, path: Path, *, group: str = "images") -> None:
        self._path = path
        self._group = group
        self._file: h5py.File | None = None
        self.count = 0

    def append(self, image: ImageMessage) -> None:
        """Write one image behind the others of its series."""
        series = f"image_{int(image.head['image_series_index'][0])}"
        pixels = _stored(image.data)
        try:
            if self._file is None:
                self._file = h5py.File(self._path, "a")
            folder = self._file.require_group(f"{self._group}/{series}")
            if "data" not in folder:
                _create(folder, pixels)
            if folder["data"].shape[1:] != pixels.shape or folder["data"].dtype != pixels.dtype:
                raise SourceError(
                    f"{self._path.name}: image of {pixels.shape} {image.data.dtype} does not fit "
                    f"series {series} of {folder['data'].shape[1:]} {folder['data'].dtype}"
                )
            at = folder["data"].shape[0]
            for name, value in (
                ("data", pixels),
                ("header", completed_head(image)[0]),
                ("attributes", image.attributes),
            ):
                folder[name].resize(at + 1, axis=0)
                folder[name][at] = value
            self._file.flush()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{self._path.name}: cannot store images ({error})") from error
        self.count += 1

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_images(path: Path, *, group: str = "images") -> list[ImageMessage]:
    """Images of a file in that layout, series by series.

    Raises
    ------
    SourceError
        The file cannot be read or has another layout.
    """
    images = []
    try:
        with h5py.File(path, "r") as file:
            for series in sorted(file[group], key=lambda name: int(name.rpartition("_")[2])):
                folder = file[group][series]
                heads = folder["header"][()].astype(IMAGE_HEADER)
                data = folder["data"][()]
                texts = folder["attributes"].asstr()[()]
                for at, text in enumerate(texts):
                    pixels = data[at].view(_PLAIN.get(data.dtype, data.dtype))
                    images.append(ImageMessage(head=heads[at : at + 1], attributes=str(text), data=pixels))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path.name}: no images in group {group!r} ({error})") from error
    return images


def _stored(data: NDArray[Any]) -> NDArray[Any]:
    wanted = _COMPLEX.get(data.dtype)
    return data if wanted is None else np.ascontiguousarray(data).view(wanted)


def _create(folder: h5py.Group, pixels: NDArray[Any]) -> None:
    shape = pixels.shape
    folder.create_dataset("data", (0, *shape), pixels.dtype, maxshape=(None, *shape), chunks=(1, *shape))
    folder.create_dataset("header", (0,), IMAGE_HEADER, maxshape=(None,))
    folder.create_dataset("attributes", (0,), h5py.string_dtype(), maxshape=(None,))
