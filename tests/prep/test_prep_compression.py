from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from prep_scanner import block, coil_images, lines_of, make_header, noise_lines, prepare, white

from recon_node.core.errors import CalibrationError, UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import KSpace
from recon_node.prep.compression import compress_coils

SHAPE = (64, 56)
COILS = 12


def whitened(signal: float) -> KSpace:
    """Twelve coils that hold the signal of three, with unit noise."""
    rng = np.random.default_rng(0)
    mix = white(rng, (COILS, 3))
    images = signal * np.einsum("vc,pcyx->pvyx", mix, coil_images(rng, 2, 3, SHAPE))
    kspace = centred_fft(images) + white(rng, (2, COILS, *SHAPE))
    noise = noise_lines(white(rng, (COILS, 65536)), readouts=32)
    sent = [block(noise), block(lines_of(kspace))]
    return prepare(make_header(SHAPE, limits={"phase": 1}), sent, noise="auto")[0]


@pytest.mark.parametrize("method", ["pca", "geometric"])
def test_virtual_coils_keep_the_signal_and_white_noise(method: str) -> None:
    kspace = whitened(20.0)
    small = compress_coils(kspace, 4, method=method)  # type: ignore[arg-type]
    assert small.data.shape == (2, 4, *SHAPE)
    before = np.sqrt((np.abs(centred_ifft(kspace.data)) ** 2).sum(axis=1))
    after = np.sqrt((np.abs(centred_ifft(small.data)) ** 2).sum(axis=1))
    strong = before > 0.3 * before.max()
    np.testing.assert_allclose(after[strong], before[strong], rtol=0.05)
    corner = centred_ifft(small.data)[:, :, :8, :8].swapaxes(0, 1).reshape(4, -1)
    power = np.abs(corner @ corner.conj().T / corner.shape[1] - np.eye(4)).max()
    assert power < 0.6
    assert small.calibration is not None
    assert small.calibration.shape[0] == 4
    assert any("12 coils compressed to 4" in note and "energy kept" in note for note in small.notes)


def test_as_many_coils_stay_as_rise_above_the_noise() -> None:
    assert compress_coils(whitened(20.0)).data.shape[1] == 3


def test_pure_noise_stays_white_to_the_last_digit_of_its_statistics() -> None:
    kspace = whitened(0.0)
    small = compress_coils(kspace, 5)
    flat = small.data.swapaxes(0, 1).reshape(5, -1)
    deviation = np.abs(flat @ flat.conj().T / flat.shape[1] - np.eye(5)).max()
    assert deviation < 0.08


def test_fewer_coils_than_asked_for_are_left_alone() -> None:
    kspace = whitened(20.0)
    assert compress_coils(kspace, 12) is kspace


def test_no_calibration_lines_and_gaps_along_the_readout_are_clear_errors() -> None:
    kspace = whitened(20.0)
    with pytest.raises(CalibrationError, match="calibration"):
        compress_coils(dataclasses.replace(kspace, calibration=None), 4)
    mask = kspace.mask.copy()
    mask[0, 3, 5] = False
    with pytest.raises(UnsupportedScan, match="use 'pca'"):
        compress_coils(dataclasses.replace(kspace, mask=mask), 4, method="geometric")


def test_a_calibration_scan_of_its_own_is_judged_by_its_own_noise() -> None:
    kspace = whitened(20.0)
    assert kspace.calibration is not None
    faint = dataclasses.replace(
        kspace,
        calibration=np.asarray(kspace.calibration * np.float32(0.01)),
        calibration_noise=0.01,
        mask=kspace.mask & (np.arange(SHAPE[0]) % 2 == 0)[:, None],
    )
    assert compress_coils(faint).data.shape[1] == 3


def test_lines_without_samples_stay_empty() -> None:
    kspace = whitened(20.0)
    odd = np.arange(SHAPE[0]) % 2 == 1
    sparse = dataclasses.replace(kspace, mask=kspace.mask & odd[:, None])
    small = compress_coils(sparse, 4)
    assert not small.data[:, :, ~odd].any()
    np.testing.assert_allclose(
        small.data[:, :, odd], compress_coils(kspace, 4).data[:, :, odd], rtol=1e-4, atol=1e-4
    )
