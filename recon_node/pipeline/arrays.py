"""K-space that somebody has as arrays, with what must be assumed where no scanner says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.coils import calibration_region
from recon_node.core.errors import CalibrationError, DataError
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import KSpace
from recon_node.prep import classify_sampling

ASSUMED = "pixel size and position were assumed: the k-space came as an array"
_CALIBRATION, _LEAST = (32, 32), 6


def kspace_from_arrays(
    data: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    calibration: NDArray[Any] | None = None,
    whitened: bool = False,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    thickness_mm: float = 8.0,
    trigger_times_ms: Sequence[float] | None = None,
    header: ScanHeader | None = None,
    slice_number: int = 0,
) -> KSpace:
    """The k-space of one slice, from arrays, ready for `recon_node.reconstruct`.

    Parameters
    ----------
    data : array_like
        `(phase, coil, ky, kx)` or, for one phase, `(coil, ky, kx)`, complex, zero where not sampled, centre
        at ``n // 2``, readout oversampling removed.
    mask : array_like, optional
        `(phase, ky, kx)`, `(ky, kx)` or `(ky,)`, True where sampled; by default where any coil is not zero.
    calibration : array_like, optional
        `(coil, ay, ax)` complex, fully sampled, centre at ``n // 2``; by default the largest block around
        the centre that the mask samples over all phases together, averaged over them.
    whitened : bool
        Whether `data` is in units of the noise's standard deviation, the coils' noise independent.
    pixel_mm : (float, float)
        Size of a pixel along (x, y), where no `header` says it.
    thickness_mm : float
        Of the slice, where no `header` says it.
    trigger_times_ms : sequence of float, optional
        One a phase, ms after the R wave.
    header : ScanHeader, optional
        What is known of the scan: vendor, field strength, protocol. Its absence makes poor prompts.
    slice_number : int
        Index of the slice.

    Returns
    -------
    KSpace
        Axial, at the origin, marked as of unknown position. Without calibration lines `reconstruct` will
        say so.

    Raises
    ------
    DataError
        Shapes that do not agree, or data that is not complex.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> kspace = kspace_from_arrays(rng.standard_normal((4, 32, 24)) + 0j)
    >>> kspace.data.shape, kspace.sampling.pattern
    ((1, 4, 32, 24), 'full')
    """
    samples = np.asarray(data)
    if samples.dtype.kind != "c" or samples.ndim not in (3, 4):
        raise DataError(
            f"k-space is {samples.dtype} {samples.shape}, expected complex (phase, coil, ky, kx) or "
            "(coil, ky, kx)"
        )
    samples = samples.reshape(-1, *samples.shape[-3:]).astype(np.complex64, copy=False)
    sampled = _mask(samples, mask)
    known = _header(samples.shape, pixel_mm, thickness_mm) if header is None else header
    lines = int(sampled.any(axis=2).sum())
    return KSpace(
        data=samples * sampled[:, None],
        mask=sampled,
        header=known,
        index=SliceIndex(slice=slice_number),
        geometry=_axial(known),
        sampling=classify_sampling(sampled),
        calibration=_calibration(samples, sampled, calibration),
        trigger_times_ms=None if trigger_times_ms is None else tuple(map(float, trigger_times_ms)),
        lines_found=lines,
        lines_expected=lines,
        whitened=whitened,
        notes=(ASSUMED,) if header is None else (),
    )


def _mask(samples: NDArray[np.complex64], mask: NDArray[Any] | None) -> NDArray[np.bool_]:
    shape = (samples.shape[0], *samples.shape[2:])
    if mask is None:
        found: NDArray[np.bool_] = np.any(samples, axis=1)
        return found
    given = np.asarray(mask, np.bool_)
    if given.shape == shape[1:2]:
        given = given[:, None]
    try:
        return np.array(np.broadcast_to(given, shape))
    except ValueError as error:
        raise DataError(
            f"mask has shape {np.shape(mask)}, expected (phase, ky, kx) = {shape}, (ky, kx) or (ky,)"
        ) from error


def _calibration(
    samples: NDArray[np.complex64], mask: NDArray[np.bool_], given: NDArray[Any] | None
) -> NDArray[np.complex64] | None:
    if given is not None:
        return np.asarray(given).astype(np.complex64, copy=False)
    try:
        return calibration_region(samples * mask[:, None], mask, size=_CALIBRATION, smallest=_LEAST)
    except CalibrationError:
        return None  # told when coil maps are wanted


def _header(shape: tuple[int, ...], pixel_mm: tuple[float, float], thickness_mm: float) -> ScanHeader:
    matrix = (shape[3], shape[2], 1)
    fov = (shape[3] * pixel_mm[0], shape[2] * pixel_mm[1], thickness_mm)
    origin = dict.fromkeys(("encoded_fov_mm", "recon_fov_mm"), f"fallback: {ASSUMED}")
    return ScanHeader(
        encoded_matrix=matrix, encoded_fov_mm=fov, recon_matrix=matrix, recon_fov_mm=fov, origin=origin
    )


def _axial(header: ScanHeader) -> SliceGeometry:
    return SliceGeometry(
        position_mm=(0.0, 0.0, 0.0),
        read_dir=(1.0, 0.0, 0.0),
        phase_dir=(0.0, 1.0, 0.0),
        slice_dir=(0.0, 0.0, 1.0),
        fov_mm=header.recon_fov_mm,
        known=False,
    )
