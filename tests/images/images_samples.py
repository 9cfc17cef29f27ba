"""Small images, shared by the tests of this folder."""

import numpy as np

from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import ImageSeries, MadeBy


def make(data, *, fov=(320.0, 300.0), recon_fov=None, directions=None, known=True):
    """Images over a grid of `fov` (y, x) mm, with a header that asks for `recon_fov` (y, x)."""
    recon_fov = recon_fov or fov
    read, phase = directions or ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    rows, columns = data.shape[1:]
    return ImageSeries(
        data=np.ascontiguousarray(data, np.complex64),
        geometry=SliceGeometry(
            position_mm=(5.0, -7.0, 11.0),
            read_dir=tuple(read),
            phase_dir=tuple(phase),
            slice_dir=tuple(np.cross(read, phase)),
            fov_mm=(fov[1], fov[0], 8.0),
            known=known,
        ),
        header=ScanHeader(
            encoded_matrix=(columns, rows, 1),
            encoded_fov_mm=(fov[1], fov[0], 8.0),
            recon_matrix=(columns, rows, 1),
            recon_fov_mm=(recon_fov[1], recon_fov[0], 8.0),
        ),
        index=SliceIndex(),
        made_by=MadeBy(method="sense", version="0"),
    )
