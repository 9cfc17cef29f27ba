"""``recon-node evaluate trust``: the failure benchmark."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_node.cli.options import (
    ANY_PATH,
    WARNING,
    json_option,
    network_options,
    print_json,
    progress,
    settings_from,
    words,
)

if TYPE_CHECKING:
    from recon_node.methods.registry import Methods
    from recon_node.settings import ReconSettings
    from recon_node.simulate.cine import Cine


def _levels(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    """Strengths; none where each heart gets another."""
    if value == "turn":
        return ()
    if not all(part in ("1", "2", "3") for part in value.split(",")):
        raise click.BadParameter(f"{value!r}: expected turn, or some of 1,2,3")
    return tuple(dict.fromkeys(int(part) for part in value.split(",")))


def _conditions(_: click.Context, __: click.Parameter, value: str) -> tuple[tuple[str, float], ...]:
    found = []
    for part in value.split(","):
        pattern, rate = [*part.strip().split(":"), ""][:2]
        try:
            found.append((pattern, float(rate)))
        except ValueError as error:
            raise click.BadParameter(f"{part!r}: expected PATTERN:ACCELERATION, as random:12") from error
    return tuple(found)


@click.command("trust", short_help="Which failures the trust check notices.")
@click.option(
    "--out",
    type=ANY_PATH,
    default=Path("runs/trust"),
    show_default=True,
    help="Folder for cases.jsonl, which a run that was stopped goes on from, and the reports.",
)
@click.option("--kinds", callback=words, help="Kinds of failure, separated by commas [all].")
@click.option(
    "--strengths",
    default="turn",
    callback=_levels,
    show_default=True,
    help="1 (faint) to 3 (strong), separated by commas; turn: each heart another.",
)
@click.option(
    "--conditions",
    default="uniform:8,random:12,radial:16",
    callback=_conditions,
    show_default=True,
    help="PATTERN:ACCELERATION, in turn.",
)
@click.option(
    "--scans", type=click.IntRange(0), default=4, show_default=True, help="Hearts that things happen to."
)
@click.option(
    "--clean", type=click.IntRange(0), default=20, show_default=True, help="More drawn hearts, left alone."
)
@click.option("--size", type=click.IntRange(48), default=144, show_default=True, help="Rows and columns.")
@click.option("--phases", type=click.IntRange(4), default=12, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--beside",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Every so many cases also by local Lipschitz, noise replicas and cascades; 0: never.",
)
@click.option(
    "--hearts", type=ANY_PATH, metavar="FOLDER", help="Real hearts as well: cines (npz, DICOM, NIfTI)."
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="With --hearts: only clips with this in their name."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    help="Begin no new case after so long, and report what is done: the next run goes on.",
)
@click.option(
    "--write-limits",
    type=ANY_PATH,
    metavar="FILE",
    help="Write trust limits and error model made of all hearts of this run.",
)
@click.option(
    "--own-limits",
    is_flag=True,
    help="Judge by the limits that the method has, not by those of this run's other hearts.",
)
@network_options
@json_option
def command(
    out: Path,
    hearts: Path | None,
    only: tuple[str, ...],
    write_limits: Path | None,
    *,
    config: Path | None,
    own_limits: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Let things go wrong with scans whose truth is known, and see which of them the trust check notices.

    An image is bad where its SSIM is more than 0.05 below the median of the clean images of its kind of heart
    and sampling, or its NMSE more than twice that. Every case is judged by limits made of other hearts, or
    by those of the method. Other ways to doubt an image stand beside the node's, with what they cost.
    OUT/report.md has the tables.
    """
    from recon_node.lab.failures import FailureStudy, chosen_kinds, run
    from recon_node.lab.failures.report import write_reports
    from recon_node.methods.registry import make_methods

    network = {name: options.pop(name) for name in list(options) if "__" in name}
    recon = settings_from(config, network).recon
    methods = make_methods(recon)
    if own_limits and methods.limits is None:
        raise click.UsageError("--own-limits: the method has none: leave it out, or write some first")
    minutes = options.pop("minutes")
    study = FailureStudy(
        kinds=chosen_kinds(options.pop("kinds"), learned=methods.weights is not None),
        levels=options.pop("strengths"),
        cines=() if hearts is None else _cines(hearts, only, recon, methods),
        **options,
    )
    with progress("failing", study.total) as advance:
        records = run(
            study,
            methods,
            out,
            minutes=minutes,
            report=lambda one: advance(1, f"{one['kind']} {one['heart']}"[:60]),
        )
    report = write_reports(records, out, limits=methods.limits if own_limits else None)
    if write_limits is not None:
        _write_limits(records, methods, write_limits)
    if as_json:
        print_json(report)
        return
    click.echo((out / "report.md").read_text(encoding="utf-8"))
    click.echo(f"{out / 'report.html'}")
    click.echo(WARNING)


def _cines(folder: Path, only: tuple[str, ...], recon: ReconSettings, methods: Methods) -> tuple[Cine, ...]:
    from recon_node.lab.cines import read_cines
    from recon_node.lab.evaluation.hearts import unseen

    def tell(line: str) -> None:
        click.echo(line, err=True)

    cines = read_cines(folder, only=only, tell=tell)
    return tuple(cines if methods.weights is None else unseen(cines, recon, tell=tell))


def _write_limits(records: list[dict[str, Any]], methods: Methods, path: Path) -> None:
    from recon_node.lab.failures.fit import make_limits
    from recon_node.trust import save_limits

    sha256 = None if methods.weights is None else methods.weights.sha256
    weak = frozenset() if methods.limits is None else methods.limits.weak_patterns
    limits = make_limits(records, weights_sha256=sha256)
    save_limits(dataclasses.replace(limits, weak_patterns=weak), path)
    click.echo(f"{path}: limits and error model of {' and '.join(limits.hearts)}", err=True)
