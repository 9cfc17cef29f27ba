from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recon_node.core.errors import ConfigError, WeightsError
from recon_node.lab.training.config import DataConfig, TrainConfig, load_train_config, train_config_from_dict
from recon_node.lab.training.data import ExampleSet, crops
from recon_node.lab.training.example import Example
from recon_node.lab.training.loop import Progress, Run
from recon_node.lab.training.loss import ssim, weighted_loss
from recon_node.lab.training.sources import SimulatorClips
from recon_node.model import load_weights
from recon_node.model.consistency import Physics
from recon_node.solvers.kt import KtConfig


def _config(out: Path, steps: int = 4) -> TrainConfig:
    return train_config_from_dict(
        {
            "model": {
                "cascades": 1,
                "frames": 3,
                "temporal_mean": True,
                "residual": True,
                "start": "kt",
                "aligned": True,
                "consistency": "proximal",
                "text_features": 384,
                "unet": {
                    "stem": 4,
                    "levels": [4, 4, 4],
                    "prompts": [2, 2, 2],
                    "bank_sizes": [4, 4, 4],
                    "encoder_blocks": [1, 0, 0],
                    "decoder_blocks": [0, 0, 0],
                    "skip_blocks": [0, 0, 0],
                    "bottleneck_blocks": 0,
                },
            },
            "data": {
                "matrix": [48, 48],
                "frames": 3,
                "coils": [2, 3],
                "workers": 0,
                "rows": 24,
                "windows": 3,
                "free_breathing": 0.5,
            },
            "optim": {
                "steps": steps,
                "lr": 1e-3,
                "warmup": 1,
                "accumulate": 2,
                "loss": {"ssim": 1.0, "rms": 1.0},
            },
            "run": {
                "out": str(out),
                "name": "tiny",
                "checkpoint_every": 2,
                "validate_every": 4,
                "validation_examples": 1,
            },
        }
    )


def _stopped(config: TrainConfig, after: int) -> None:
    """Train and die after a step, as under kill -9: nothing is written on the way out."""

    def die(progress: Progress) -> None:
        if progress.step > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(config).train(die)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = Run(_config(tmp_path / "whole")).train()
    _stopped(_config(tmp_path / "killed"), after=2)
    told: list[int] = []
    resumed = Run(_config(tmp_path / "killed")).train(lambda now: told.append(now.step))
    assert told == [3, 4]
    first, second = load_weights(whole).net.state_dict(), load_weights(resumed).net.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_remember_what_made_them(tmp_path: Path) -> None:
    loaded = load_weights(Run(_config(tmp_path, steps=1)).train())
    assert loaded.card["training"]["optim"]["accumulate"] == 2
    assert loaded.encoder == "minilm"
    assert loaded.card["validated"] is False


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    Run(_config(tmp_path, steps=1)).train()
    with pytest.raises(WeightsError, match="other settings"):
        Run(_config(tmp_path, steps=2))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"junk")
    with pytest.raises(WeightsError, match="damaged"):
        Run(_config(tmp_path))


def test_ssim_is_one_for_equal_images_and_less_for_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 24, 24, generator=generator)
    assert float(ssim(image, image)) == pytest.approx(1.0, abs=1e-5)
    assert float(ssim(image + torch.rand(2, 24, 24, generator=generator), image)) < 0.9


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ConfigError, match="expected weights of"):
        weighted_loss({"beauty": 1.0}, torch.ones(1, 8, 8), torch.ones(1, 8, 8))


@pytest.mark.parametrize("text", ["[optim]\nspeed = 1\n", "[nothing]\n", "x ="])
def test_a_mistake_in_the_settings_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_train_config(file)


def test_the_recipe_of_the_shipped_weights_is_the_one_in_their_card() -> None:
    recipe = load_train_config(Path("recon_node/lab/training/recipes/real.toml"), ["data.cines=hearts"])
    card = load_weights("default").card["training"]
    assert recipe.model == load_weights("default").config
    assert card["data"]["accelerations"] == list(recipe.data.accelerations)


def _example(pattern: str) -> Example:
    config = DataConfig(
        matrix=(32, 40), frames=4, coils=(3, 3), patterns=(pattern,), accelerations=(4,), acs=8
    )
    examples = ExampleSet(SimulatorClips(config), config, seed=3, salt="test", start=KtConfig(iterations=2))
    return examples[0]


def test_a_window_of_rows_is_a_reconstruction_of_its_own() -> None:
    whole = _example("uniform")
    physics = Physics(whole.maps[None], whole.mask[None])
    expected = physics.adjoint(whole.kspace[None])
    for part in crops(whole, 16, 4, [1]):
        (top,) = [i for i in range(25) if torch.equal(part.target, whole.target[:, i : i + 16])]
        found = Physics(part.maps[None], part.mask[None]).adjoint(part.kspace[None])
        torch.testing.assert_close(found, expected[..., top : top + 16, :], atol=1e-4, rtol=1e-4)
        assert part.first is not None
        assert part.first.shape == part.target.shape


def test_masks_that_are_no_lines_are_cut_in_time_instead() -> None:
    whole = _example("radial")
    for part in crops(whole, 20, 3, [1]):
        assert part.kspace.shape == (2, *whole.kspace.shape[1:])
        assert not part.periodic


def test_the_relative_loss_counts_a_gain_the_same_at_every_error() -> None:
    target = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    for error in (0.1, 0.01):
        loss = weighted_loss({"relative": 1.0}, target + error / 2, target, target + error)
        assert float(loss) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ConfigError, match="k-t estimate"):
        weighted_loss({"relative": 1.0}, target, target)
