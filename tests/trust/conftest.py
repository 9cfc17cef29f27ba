"""A small moving object behind four coils, and parallel imaging by plain conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, MadeBy, Prompt, Prompts, Sampling

NY, NX, PHASES, COILS = 48, 40, 6, 4


@dataclass
class Scene:
    kspace: KSpace
    maps: CoilMaps
    truth: np.ndarray
    prompts: Prompts

    def series(self, data, method="test"):
        k = self.kspace
        return ImageSeries(
            data=np.asarray(data, np.complex64),
            geometry=k.geometry,
            header=k.header,
            index=k.index,
            made_by=MadeBy(method=method, version="0"),
        )

    def sense(self, kspace, iterations=15):
        """Conjugate gradients on A^H A + 0.01."""
        s, mask = self.maps.data[0], kspace.mask[:, None]

        def adjoint(k):
            return np.sum(s.conj() * centred_ifft(k * mask), axis=1)

        def normal(x):
            return adjoint(centred_fft(s * x[:, None])) + 0.01 * x

        x = np.zeros((len(kspace.data), NY, NX), np.complex64)
        r = adjoint(kspace.data)
        d, power = r.copy(), np.vdot(r, r).real
        for _ in range(iterations):
            q = normal(d)
            step = power / np.vdot(d, q).real
            x, r = x + step * d, r - step * q
            power, old = np.vdot(r, r).real, power
            d = r + power / old * d
        return self.series(x, "sense")

    def oracle(self, kspace):
        """The truth of the phases that `kspace` has (the middle ones)."""
        n = len(kspace.data)
        first = (PHASES - n) // 2
        return self.series(self.truth[first : first + n], "oracle")


def make_scene(*, by_line=True, seed=0, acs=12, keep=0.4):
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, NY), np.linspace(-1, 1, NX), indexing="ij")
    body = 8.0 * (np.hypot(y / 0.85, x / 0.7) < 1) + 4.0 * (np.hypot(y - 0.2, x + 0.1) < 0.3)
    body += (np.hypot(y, x) < 0.7) * np.repeat(np.repeat(rng.normal(size=(24, 20)), 2, 0), 2, 1)
    beat = 0.3 + 0.08 * np.cos(2 * np.pi * np.arange(PHASES) / PHASES)
    ring = np.hypot(y, x)[None] < beat[:, None, None]
    truth = (4 * (body + 6.0 * ring) * np.exp(1j * (0.5 * x + 0.3 * y))).astype(np.complex64)
    corners = [(-1.3, -1.3), (-1.3, 1.3), (1.3, -1.3), (1.3, 1.3)]
    coils = np.stack(
        [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 2 + 1j * (a * y - b * x) / 3) for a, b in corners]
    )
    coils /= np.sqrt(np.sum(np.abs(coils) ** 2, axis=0))
    full = centred_fft(coils * truth[:, None])
    noise = rng.normal(size=(2, *full.shape)) / np.sqrt(2)
    full = (full + noise[0] + 1j * noise[1]).astype(np.complex64)
    centre = slice(NY // 2 - acs // 2, NY // 2 + acs // 2)
    columns = slice(0, NX) if by_line else slice(NX // 2 - acs // 2, NX // 2 + acs // 2)
    mask = rng.random((PHASES, NY, 1 if by_line else NX)) < keep
    mask = np.broadcast_to(mask, (PHASES, NY, NX)).copy()
    mask[:, centre, columns] = True
    kx = slice(NX // 2 - acs // 2, NX // 2 + acs // 2)
    kspace = KSpace(
        data=np.where(mask[:, None], full, 0).astype(np.complex64),
        mask=mask,
        header=ScanHeader(
            encoded_matrix=(NX, NY, 1),
            encoded_fov_mm=(300.0, 300.0, 8.0),
            recon_matrix=(NX, NY, 1),
            recon_fov_mm=(300.0, 300.0, 8.0),
        ),
        index=SliceIndex(),
        geometry=SliceGeometry(
            position_mm=(0.0, 0.0, 0.0),
            read_dir=(1.0, 0.0, 0.0),
            phase_dir=(0.0, 1.0, 0.0),
            slice_dir=(0.0, 0.0, 1.0),
            fov_mm=(300.0, 300.0, 8.0),
        ),
        sampling=Sampling(
            pattern="random",
            acceleration=1 / keep,
            effective_acceleration=float(mask.size / mask.sum()),
            acs=acs,
            acs_ky=(centre.start, centre.stop),
            acs_kx=(columns.start, columns.stop),
        ),
        calibration=np.ascontiguousarray(full[:, :, centre, kx].mean(axis=0)),
        trigger_times_ms=tuple(40.0 * p for p in range(PHASES)),
        whitened=True,
    )
    metadata = "Adult cardiac MRI reconstruction.Vendor: 3.0T, Siemens, Vida. Modality: cine, short-axis."
    prompts = Prompts(metadata=Prompt(metadata), undersampling=Prompt("Undersampling: 4x random."))
    maps = CoilMaps(data=coils[None].astype(np.complex64), support=np.ones((NY, NX), np.bool_))
    return Scene(kspace=kspace, maps=maps, truth=truth, prompts=prompts)


@pytest.fixture(scope="module", params=[True, False], ids=["lines", "points"])
def any_scene(request):
    return make_scene(by_line=request.param)


@pytest.fixture(scope="module")
def scene():
    return make_scene()


@pytest.fixture(scope="module")
def point_scene():
    return make_scene(by_line=False)


@pytest.fixture
def changed():
    """A scene with some fields of its k-space replaced."""

    def change(scene, **fields):
        return replace(scene, kspace=replace(scene.kspace, **fields))

    return change
