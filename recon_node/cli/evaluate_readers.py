"""``recon-node evaluate readers``: images for readers to score, and what their scores say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_node.cli.options import (
    ANY_PATH,
    WARNING,
    json_option,
    method_names,
    network_options,
    numbers,
    print_json,
    progress,
    settings_from,
    words,
)

if TYPE_CHECKING:
    from recon_node.lab.evaluation.heldout import Case
    from recon_node.lab.readers import Shown
    from recon_node.settings import ReconSettings

TRUTH = "truth"


@click.command("readers", short_help="Blinded pairs of images for readers, and their statistics.")
@click.option(
    "--out",
    type=ANY_PATH,
    default=Path("runs/readers"),
    show_default=True,
    help="Gets pairs/ for the readers and key.json, which is not for them.",
)
@click.option(
    "--scores",
    type=ANY_PATH,
    multiple=True,
    metavar="FILE.csv",
    help="A table that a reader filled in: says what the scores mean by OUT/key.json; writes no pairs.",
)
@click.option("--methods", default="cardiomm,kt", callback=method_names, show_default=True)
@click.option("--truth", "with_truth", is_flag=True, help="Also pairs with the fully sampled images.")
@click.option("--patterns", default="random", callback=words, show_default=True)
@click.option("--accelerations", default="8,16", callback=numbers, show_default=True)
@click.option("--scans", type=click.IntRange(1), default=4, show_default=True, help="Drawn hearts.")
@click.option("--phases", type=click.IntRange(2), default=25, show_default=True)
@click.option("--matrix", type=click.IntRange(32), default=128, show_default=True)
@click.option("--coils", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--repeats",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of the pairs that come twice.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--hearts",
    type=ANY_PATH,
    metavar="FOLDER",
    help="Real hearts in place of drawn ones: cines (npz, DICOM, NIfTI).",
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="With --hearts: only clips with this in their name."
)
@network_options
@json_option
def command(
    out: Path,
    scores: tuple[Path, ...],
    hearts: Path | None,
    only: tuple[str, ...],
    repeats: float,
    *,
    config: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the same hearts by two methods, side by side in random order under neutral names, for readers.

    OUT/pairs holds a page, still and moving pictures, and scores.csv to fill in; OUT/key.json tells which
    side is which. With --scores the tables that came back are read: mean scores, paired tests, preferences
    and how far readers agree.
    """
    from recon_node.lab.readers import export_pairs, read_scores, reader_statistics
    from recon_node.lab.readers.statistics import read_key

    if scores:
        found = reader_statistics(read_scores(scores), read_key(out / "key.json"))
        _tell(found, as_json=as_json)
        return
    network = {name: options.pop(name) for name in list(options) if "__" in name}
    recon = settings_from(config, network).recon
    seed = options["seed"]
    shown = _shown(recon, hearts, only, options)
    key = export_pairs(shown, out, repeats=repeats, seed=seed)
    if as_json:
        print_json({"pairs": len(key), "folder": str(out / "pairs"), "key": str(out / "key.json")})
        return
    click.echo(f"{out / 'pairs'}: {len(key)} pairs for readers; {out / 'key.json'} is not for them")
    click.echo(WARNING)


def _shown(
    recon: ReconSettings, hearts: Path | None, only: tuple[str, ...], options: dict[str, Any]
) -> Iterator[Shown]:
    from recon_node.lab.readers import Shown
    from recon_node.methods.registry import make_methods
    from recon_node.prompts import embed

    names = options.pop("methods")
    with_truth = options.pop("with_truth")
    made = {name: make_methods(dataclasses.replace(recon, method=name)) for name in names}
    cases, count = _cases(recon, hearts, only, options, learned="cardiomm" in names)
    with progress("reconstructing", count) as advance:
        for case in cases:
            for name, methods in made.items():
                text = None if methods.encoder is None else embed(case.prompts, methods.encoder)
                images = methods.chosen.reconstruct(case.kspace, case.maps, text).data
                yield Shown(heart=case.scan, condition=case.condition, method=name, images=images)
            if with_truth:
                yield Shown(heart=case.scan, condition=case.condition, method=TRUTH, images=case.truth)
            advance(1, f"{case.scan} {case.condition}")


def _cases(
    recon: ReconSettings,
    hearts: Path | None,
    only: tuple[str, ...],
    options: dict[str, Any],
    *,
    learned: bool,
) -> tuple[Iterator[Case], int]:
    from recon_node.lab.cines import read_cines
    from recon_node.lab.evaluation.hearts import HeartStudy, heart_cases, unseen
    from recon_node.lab.evaluation.heldout import Study, cases

    if hearts is None:
        study = Study(**options)
        return cases(study), study.scans * study.conditions

    def tell(line: str) -> None:
        click.echo(line, err=True)

    cines = read_cines(hearts, only=only, tell=tell)
    conditions = tuple((p, rate) for p in options["patterns"] for rate in options["accelerations"])
    real = HeartStudy(
        cines=tuple(unseen(cines, recon, tell=tell) if learned else cines),
        conditions=conditions,
        coils=options["coils"],
        seed=options["seed"],
    )
    return heart_cases(real), len(real.cines) * len(conditions)


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for one in found["methods"]:
        click.echo(f"{one['method']}: mean {one['mean']:.2f} (sd {one['sd']:.2f}), {one['scores']} scores")
    for one in found["comparisons"]:
        click.echo(
            f"{one['method']} over {one['other']}: {one['mean_difference']:+.2f} on {one['pairs']} pairs"
            f"{_p(one['p'])}; preferred {one['preferred']}, the other {one['other_preferred']}, "
            f"same {one['same']}{_p(one['p_preference'])}"
        )
    for kind, some in found["agreement"].items():
        for one in some:
            kappa = "too little to tell" if one["kappa"] is None else f"weighted kappa {one['kappa']:.2f}"
            with_whom = f" and {one['other']}" if kind == "between" else ", the same pair again"
            click.echo(f"{one['reader']}{with_whom}: {kappa}, {one['images']} images")


def _p(value: float | None) -> str:
    return "" if value is None else f", p = {value:.2g}"
