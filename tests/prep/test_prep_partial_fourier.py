from __future__ import annotations

import numpy as np
import pytest
from prep_scanner import Line, block, make_header, prepare

from recon_node.core.errors import UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import KSpace
from recon_node.prep.partial_fourier import fill_partial_fourier

SHAPE = (64, 48)


def image() -> np.ndarray:
    """Sharp edges with a smooth phase, two coils."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    y, x = (y - SHAPE[0] / 2) / SHAPE[0], (x - SHAPE[1] / 2) / SHAPE[1]
    body = 1.0 * (np.hypot(y / 0.8, x) < 0.4) + 1.0 * ((np.abs(y - 0.1) < 0.07) & (np.abs(x) < 0.2))
    return np.stack([body * np.exp(1j * (1 + 2 * x + y)), body * (1 + x) * np.exp(-1j * y)])[None]


def partial(rows: slice, columns: slice = slice(0, SHAPE[1])) -> KSpace:
    kspace = centred_fft(image())
    width = columns.stop - columns.start
    fields = {"center_sample": SHAPE[1] // 2 - columns.start, "number_of_samples": width}
    sent = [Line(kspace[0, :, ky, columns], ky=ky, fields=fields) for ky in range(rows.start, rows.stop)]
    return prepare(make_header(SHAPE), [block(sent)])[0]


def error(kspace: KSpace) -> float:
    return float(
        np.linalg.norm(np.abs(centred_ifft(kspace.data)) - np.abs(image())) / np.linalg.norm(image())
    )


@pytest.mark.parametrize("method", ["homodyne", "pocs"])
@pytest.mark.parametrize("rows", [slice(0, 44), slice(20, 64)])
def test_the_missing_side_is_filled_from_symmetry(method: str, rows: slice) -> None:
    kspace = partial(rows)
    filled = fill_partial_fourier(kspace, method=method)  # type: ignore[arg-type]
    assert kspace.sampling.partial_fourier < 0.75
    assert error(filled) < 0.75 * error(kspace)
    np.testing.assert_array_equal(filled.mask, kspace.mask)
    assert any(f"missing side of ky filled by {method}" in note for note in filled.notes)


def test_pocs_keeps_what_was_measured() -> None:
    kspace = partial(slice(0, 44))
    filled = fill_partial_fourier(kspace)
    np.testing.assert_array_equal(filled.data[:, :, :44], kspace.data[:, :, :44])


def test_an_asymmetric_echo_is_filled_too() -> None:
    kspace = partial(slice(0, 64), slice(12, 48))
    filled = fill_partial_fourier(kspace)
    assert error(filled) < 0.75 * error(kspace)
    assert any("missing side of kx" in note for note in filled.notes)


def test_complete_kspace_stays_the_same_object() -> None:
    kspace = partial(slice(0, 64))
    assert fill_partial_fourier(kspace) is kspace


def test_gaps_and_a_centre_at_the_edge_are_refused() -> None:
    kspace = centred_fft(image())
    gaps = [Line(kspace[0, :, ky], ky=ky) for ky in range(0, 44, 2)]
    with pytest.raises(UnsupportedScan, match="without gaps"):
        fill_partial_fourier(prepare(make_header(SHAPE), [block(gaps)])[0])
    with pytest.raises(UnsupportedScan, match="both sides"):
        fill_partial_fourier(partial(slice(0, 33)))
