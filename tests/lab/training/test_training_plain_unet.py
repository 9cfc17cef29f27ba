from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_run import _config

from benchmarks import plain_unet
from benchmarks.study_scans import Scan
from recon_node.lab.evaluation import series_metrics
from recon_node.lab.training.config import train_config_from_dict
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.model import CardioMM

CASE = Scan(7, "random", 4, phases=4, matrix=48, coils=4).case
ZERO_FILLED = ZeroFilled().reconstruct(CASE.kspace, CASE.maps).data


def quality(images: np.ndarray) -> float:
    return series_metrics(images, CASE.truth, normalise=False).psnr


def test_an_untrained_unet_leaves_the_zero_filled_images_as_they_are() -> None:
    net = plain_unet.PlainUNet(3, (4, 4, 4, 4))
    np.testing.assert_allclose(plain_unet.reconstruct(net, CASE), ZERO_FILLED, atol=1e-4)


@pytest.mark.parametrize("shape", [(41, 50), (48, 48), (17, 9)])
def test_any_image_size_keeps_its_size(shape: tuple[int, int]) -> None:
    assert plain_unet.PlainUNet(1, (3, 3, 3, 3)).corrected(torch.zeros(2, 2, *shape)).shape == (2, 2, *shape)


def test_the_rival_has_no_fewer_parameters_than_the_network(tmp_path: Path) -> None:
    config = _config(tmp_path)
    rival = plain_unet.rival_of(config)
    least = plain_unet.parameters(CardioMM(config.model))
    assert least <= plain_unet.parameters(rival) < 1.5 * least


def test_it_learns_what_is_missing_in_its_start() -> None:
    torch.manual_seed(0)
    net = plain_unet.PlainUNet(3, (8, 8, 8, 8))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    given = [
        torch.tensor(array).mT[None] for array in (CASE.kspace.data, CASE.kspace.mask, CASE.maps.data[0])
    ]
    target = torch.tensor(np.abs(CASE.truth)).mT[None]
    for _ in range(60):
        optimizer.zero_grad()
        (net(given[0], given[1], maps=given[2]).abs() - target).square().mean().backward()
        optimizer.step()
    assert quality(plain_unet.reconstruct(net, CASE)) > quality(ZERO_FILLED) + 1


def test_the_loop_of_the_node_trains_it_and_its_weights_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = _config(tmp_path, steps=2).as_dict()
    tree["optim"] |= {"loss": {"ssim": 0.2, "relative": 1.0}}
    monkeypatch.setattr(plain_unet, "load_train_config", lambda path, changes: train_config_from_dict(tree))
    monkeypatch.setattr(sys, "argv", ["plain_unet", "--config", "any.toml", "--out", str(tmp_path)])
    plain_unet.main()
    made = plain_unet.reconstruct(plain_unet.load(tmp_path / "unet.safetensors"), CASE)
    assert 0 < np.abs(made - ZERO_FILLED).max() < np.abs(ZERO_FILLED).max()
