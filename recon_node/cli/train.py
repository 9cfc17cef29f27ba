"""``recon-node train``: train a network."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from recon_node.cli.options import ANY_PATH, progress
from recon_node.core.choices import Device
from recon_node.core.errors import ConfigError


@click.command("train", short_help="Train a network.")
@click.option(
    "--config",
    required=True,
    type=ANY_PATH,
    metavar="FILE|NAME",
    help="Settings of the run (TOML), or the name of a recipe that is shipped, for example heart.",
)
@click.option("--device", type=click.Choice(get_args(Device)), default="auto", show_default=True)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="A setting in place of the file's, for example model.metadata_text=false; can be repeated.",
)
def command(config: Path, device: str, changes: tuple[str, ...]) -> None:
    """Train to the end of the run that the settings describe, going on where an earlier start stopped.

    For several GPUs or machines start it with torchrun: torchrun --nproc-per-node 4 -m recon_node train ...
    """
    config = _found(config)
    from recon_node.lab.training.config import load_train_config

    run = load_train_config(config, changes)
    import torch

    from recon_node.lab.training.loop import Progress, Run

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    with progress("training", 1000) as advance:
        shown = 0

        def report(now: Progress) -> None:
            nonlocal shown
            done = int(1000 * now.fraction)
            advance(done - shown, f"step {now.step}, loss {now.loss:.4f}")
            shown = done
            if now.validation is not None:
                measured = ", ".join(f"{name} {value:.3f}" for name, value in now.validation.items())
                click.echo(f"step {now.step}: loss {now.loss:.4f}, {measured}")

        started = Run(run, device=chosen)
        weights = started.train(report)
    if started.rank == 0:
        click.echo(f"weights: {weights}")


def _found(config: Path) -> Path:
    """The file, or the recipe of that name."""
    if config.is_file():
        return config
    recipes = sorted(Path(__file__).parents[1].joinpath("lab", "training", "recipes").glob("*.toml"))
    named = {recipe.stem: recipe for recipe in recipes}
    if str(config) in named:
        return named[str(config)]
    known = ", ".join(named)
    raise ConfigError(f"training settings {config}: no such file, and no recipe of that name ({known})")
