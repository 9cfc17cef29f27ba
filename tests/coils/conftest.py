from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recon_node.core.fft import centred_fft

DATA = Path(__file__).parent.parent / "data"


def make_scene(*, coils: int = 8, size: int = 64, snr: float = 40.0, acs: int = 24, seed: int = 0):
    """A body seen by a ring of coils; noise of standard deviation one."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    cy, cx = y - 1.3 * np.sin(angle), x - 1.3 * np.cos(angle)
    phase = np.arctan2(cy, cx) + 3 * angle**2
    maps = np.exp(1j * phase) / (cy**2 + cx**2 + 0.3)
    maps /= np.linalg.norm(maps, axis=0)
    body = (x / 0.85) ** 2 + (y / 0.62) ** 2 < 1
    image = body * (1 + 0.2 * rng.standard_normal(y.shape)) * np.exp(0.5j * x)
    image[((x + 0.4) / 0.2) ** 2 + (y / 0.4) ** 2 < 1] *= 0.2
    coil_images = snr * maps * image
    noise = rng.standard_normal((2, *maps.shape)) / np.sqrt(2)
    kspace = (centred_fft(coil_images) + noise[0] + 1j * noise[1]).astype(np.complex64)
    centre = slice(size // 2 - acs // 2, size // 2 - acs // 2 + acs)
    return SimpleNamespace(
        maps=maps, body=body, coil_images=coil_images, kspace=kspace, calibration=kspace[:, centre, centre]
    )


@pytest.fixture(scope="session")
def scene():
    return make_scene()


@pytest.fixture(scope="session")
def new_scene():
    return make_scene


@pytest.fixture(scope="session")
def brain():
    """Measured k-space of eight coils, `(coil, ky, kx)`; licence beside the file."""
    return np.load(DATA / "brain_kspace.npy")
