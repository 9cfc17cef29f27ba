import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Sampling
from recon_node.methods.registry import Methods, find_method
from recon_node.methods.zero_filled import ZeroFilled

FOV = (160.0, 160.0, 8.0)


@pytest.fixture(scope="module")
def documented(pytestconfig):
    """Everything that the code blocks of docs/plugins.md define."""
    text = (pytestconfig.rootpath / "docs" / "plugins.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {"__name__": "documented"}
    for block in blocks:
        exec(compile(block, "docs/plugins.md", "exec", dont_inherit=True), names)
    names["first block"] = blocks[0]
    return names


@pytest.fixture
def kspace():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 1, 16, 14)) * np.ones((1, 3, 1, 1)) / np.sqrt(3)
    return KSpace(
        data=centred_fft(image).astype(np.complex64),
        mask=np.ones((2, 16, 14), bool),
        header=ScanHeader(
            encoded_matrix=(14, 16, 1), encoded_fov_mm=FOV, recon_matrix=(14, 16, 1), recon_fov_mm=FOV
        ),
        index=SliceIndex(slice=3),
        geometry=SliceGeometry(
            position_mm=(0.0, 0.0, 0.0),
            read_dir=(1.0, 0.0, 0.0),
            phase_dir=(0.0, 1.0, 0.0),
            slice_dir=(0.0, 0.0, 1.0),
            fov_mm=FOV,
        ),
        sampling=Sampling(pattern="full", acceleration=1.0, effective_acceleration=1.0, acs=16),
        trigger_times_ms=(0.0, 40.0),
    )


@pytest.fixture
def maps():
    data = np.full((1, 3, 16, 14), 1 / np.sqrt(3), np.complex64)
    return CoilMaps(data=data, support=np.ones((16, 14), bool))


def test_the_documented_plugin_is_a_reconstructor_of_forty_lines(documented, kspace, maps):
    lines = [line for line in documented["first block"].splitlines() if line.strip()]
    assert len(lines) <= 40
    images = documented["reconstructor"].reconstruct(kspace, maps, None)
    assert images.data.shape == (2, 16, 14)
    assert images.made_by.method == "denoised"
    assert (images.index, images.trigger_times_ms) == (kspace.index, kspace.trigger_times_ms)


def test_the_documented_plugin_shows_its_network_the_combined_image(documented, kspace, maps):
    seen = []

    def network(channels):
        seen.append(channels)
        return channels

    images = documented["Denoised"](network, version="0").reconstruct(kspace, maps, None)
    truth = np.fft.fftshift(
        np.fft.ifft2(np.fft.ifftshift(kspace.data[:, 0], axes=(1, 2)), norm="ortho"), axes=(1, 2)
    ) * np.sqrt(3)
    np.testing.assert_allclose(images.data, truth, atol=1e-5)
    largest = torch.linalg.vector_norm(seen[0], dim=1).max().item()
    assert largest == pytest.approx(1.0, abs=1e-5)


def test_the_documented_plugin_refuses_what_is_not_finite(documented, kspace, maps):
    broken = KSpace(
        **{
            name: getattr(kspace, name)
            for name in ("mask", "header", "index", "geometry", "sampling", "trigger_times_ms")
        },
        data=np.full_like(kspace.data, np.nan),
    )
    with pytest.raises(DataError, match="NaN"):
        documented["reconstructor"].reconstruct(broken, maps, None)


def test_a_pipelines_method_is_replaced_and_its_fallback_kept(documented):
    fallback = ZeroFilled()
    methods = Methods(record=find_method("sense"), chosen=ZeroFilled(), fallback=fallback)
    pipeline = SimpleNamespace(methods=methods)
    documented["use"](pipeline, documented["reconstructor"])
    assert pipeline.methods.chosen is documented["reconstructor"]
    assert pipeline.methods.fallback is fallback
