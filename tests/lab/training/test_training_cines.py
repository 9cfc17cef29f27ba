"""Training on real hearts, and of the last cascade with its gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recon_node.core.errors import ConfigError
from recon_node.lab.cines import fingerprint, read_cines
from recon_node.lab.training.config import TrainConfig, train_config_from_dict
from recon_node.lab.training.loop import Run
from recon_node.lab.training.loss import weighted_loss
from recon_node.lab.training.sources import CineClips
from recon_node.model import CardioMM, CardioMMConfig, load_weights
from recon_node.model.unet import OPEN

UNET = {
    "stem": 4,
    "levels": [4, 4, 4],
    "prompts": [2, 2, 2],
    "bank_sizes": [4, 4, 4],
    "encoder_blocks": [1, 0, 0],
    "decoder_blocks": [0, 0, 0],
    "skip_blocks": [0, 0, 0],
    "bottleneck_blocks": 0,
}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hearts")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:72, :84]
    for name in ("patient_A_1", "patient_A_2", "patient_B_1"):
        radius = 9 + 3 * np.cos(2 * np.pi * np.arange(6) / 6)[:, None, None]
        images = 150.0 + 500 * (np.hypot(y - 34, x - 44) < radius) + rng.uniform(0, 20, (6, 72, 84))
        np.savez(folder / f"{name}.npz", cine=images.astype(np.uint16), pixel_mm=[2.2, 2.0], field_t=1.5)
    return folder


def settings(
    hearts: Path, out: Path, *, gate: bool = True, parts: tuple[str, ...] = ("last",)
) -> TrainConfig:
    return train_config_from_dict(
        {
            "model": {
                "cascades": 2,
                "frames": 3,
                "temporal_mean": True,
                "residual": True,
                "start": "kt",
                "aligned": True,
                "gate": gate,
                "consistency": "proximal",
                "text_features": 384,
                "kt": {"iterations": 3, "unfolding_iterations": 3, "refinements": 2},
                "unet": UNET,
            },
            "data": {
                "source": "cines",
                "cines": str(hearts),
                "leave_out": ["_B"],
                "drawn": 0.0,
                "window": 70,
                "examples": 2,
                "frames": 5,
                "coils": [4, 5],
                "pool": str(out / "pool"),
                "workers": 0,
            },
            "optim": {
                "steps": 6,
                "lr": 1e-3,
                "warmup": 1,
                "parts": list(parts),
                "loss": {"heart": 1.0, "heart_ssim": 0.3, "relative": 0.4},
            },
            "run": {"out": str(out / "run"), "name": "small", "validate_every": 6, "validation_examples": 1},
        }
    )


def test_clips_are_windows_around_hearts_that_are_not_left_out(hearts: Path, tmp_path: Path) -> None:
    config = settings(hearts, tmp_path).data
    training, validation = CineClips(config), CineClips(config, validating=True)
    assert {cine.name for cine in training.cines} == {"patient_A_1", "patient_A_2"}
    assert {cine.name for cine in validation.cines} == {"patient_B_1"}
    clip = training.draw(np.random.default_rng(0))
    assert clip.kspace.shape[0] == 5
    assert clip.kspace.shape[-1] == 70
    assert clip.heart is not None
    rows, columns = clip.heart
    assert (rows.stop - rows.start, columns.stop - columns.start) == (64, 64)
    assert columns.start >= 0
    assert columns.stop <= 70


@pytest.mark.parametrize(
    ("parts", "precision", "trained"),
    [("last", "fp32", {"cascades.1"}), ("last-two", "bf16", {"cascades.0", "cascades.1"})],
)
def test_a_run_on_the_last_cascades_changes_nothing_else_and_its_card_names_the_hearts(
    hearts: Path, tmp_path: Path, parts: str, precision: str, trained: set[str]
) -> None:
    tree = settings(hearts, tmp_path).as_dict()
    tree["optim"] |= {"parts": [parts], "precision": precision}
    run = Run(train_config_from_dict(tree))
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    path = run.train()
    changed = {name for name, value in run.net.state_dict().items() if not torch.equal(value, before[name])}
    assert {".".join(name.split(".")[:2]) for name in changed} == trained
    card = load_weights(str(path)).card
    kept = read_cines(hearts, leave_out=["_B"])
    assert card["hearts"] == {cine.name: fingerprint(cine) for cine in kept}


def test_a_network_without_a_gate_gets_one_that_begins_nearly_open(hearts: Path, tmp_path: Path) -> None:
    config = settings(hearts, tmp_path, gate=False)
    path = Run(config).train()
    grown = settings(hearts, tmp_path / "grown").as_dict()
    grown["run"]["init"] = str(path)
    run = Run(train_config_from_dict(grown))
    first, gated = load_weights(str(path)).net, run.net
    assert isinstance(gated, CardioMM)
    clip = _clip()
    start = clip["first"]
    with torch.no_grad():
        plain, through = first(**clip), gated(**clip)
    share = torch.sigmoid(torch.tensor(OPEN))
    torch.testing.assert_close(through, start + share * (plain - start), rtol=1e-4, atol=1e-4)


def test_a_closed_gate_leaves_the_first_estimate_alone() -> None:
    clip, config = _clip(), _network()
    torch.manual_seed(0)
    net = CardioMM(CardioMMConfig.from_dict(config)).eval()
    head = net.phases[-1].model.unet.head
    with torch.no_grad():
        net.phases[-1].model.unet.stem.weight.abs_()
        torch.nn.init.normal_(head.weight)
        open_images = net(**clip)
        net.phases[-1].model.register_forward_hook(lambda *found: torch.stack([found[2][0], 0 * found[2][1]]))
        closed = net(**clip)
    torch.testing.assert_close(closed, clip["first"])
    assert not torch.allclose(open_images, clip["first"], atol=1e-3)


def test_a_gate_needs_aligned_frames() -> None:
    with pytest.raises(ConfigError, match="gate"):
        CardioMMConfig.from_dict({"gate": True})


def test_the_loss_around_the_heart_looks_nowhere_else() -> None:
    target = torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(0)) + 0.5
    first, heart = target + 0.1, torch.tensor([8, 30, 5, 28])
    outside = target.clone()
    outside[:, 31:] += 5.0
    terms = {"heart": 1.0, "heart_ssim": 1.0}
    assert float(weighted_loss(terms, outside, target, first, heart=heart)) == pytest.approx(0, abs=1e-2)
    assert float(weighted_loss({"heart": 1.0}, first, target, first, heart=heart)) == pytest.approx(
        1, rel=1e-3
    )
    assert float(weighted_loss(terms, first, target, first)) == 0  # where it lies is not known


def _network() -> dict[str, object]:
    return {
        "cascades": 2,
        "frames": 3,
        "start": "kt",
        "aligned": True,
        "residual": True,
        "gate": True,
        "consistency": "proximal",
        "text_features": 384,
        "unet": UNET,
    }


def _clip() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.complex64, generator=rng)

    mask = (torch.rand(1, 4, 1, 32, generator=rng) < 0.5).expand(1, 4, 32, 32).contiguous()
    maps = rand(1, 3, 32, 32)
    return {
        "kspace": rand(1, 4, 3, 32, 32),
        "mask": mask,
        "meta": torch.randn(1, 384, generator=rng),
        "us": torch.randn(1, 384, generator=rng),
        "maps": maps / maps.abs().square().sum(1, keepdim=True).sqrt(),
        "first": rand(1, 4, 32, 32),
    }
