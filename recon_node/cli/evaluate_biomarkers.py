"""``recon-node evaluate biomarkers``: the heart's numbers from undersampled scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from recon_node.cli.options import (
    ANY_PATH,
    WARNING,
    clip_options,
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
    from recon_node.lab.biomarkers import Stack
    from recon_node.settings import ReconSettings

_SHOWN = ("edv", "esv", "ef", "mass", "thickness", "eda", "fac")


@click.command("biomarkers", short_help="Volumes, ejection fraction and mass at high acceleration.")
@click.option(
    "--out",
    type=ANY_PATH,
    default=Path("runs/biomarkers"),
    show_default=True,
    help="Folder for areas.jsonl, which a run that was stopped goes on from, and the reports.",
)
@click.option(
    "--segmenter",
    metavar="NAME",
    help="What measures: exact (drawn hearts), acdc (real ones), one of an installed package, or module:Class"
    " [exact, with --hearts acdc].",
)
@click.option("--methods", default="sense,kt,cardiomm", callback=method_names, show_default=True)
@click.option("--pattern", "patterns", default="random", callback=words, show_default=True)
@click.option("--acceleration", "accelerations", default="4,8,16,24", callback=numbers, show_default=True)
@click.option("--scans", type=click.IntRange(1), default=4, show_default=True, help="Drawn hearts.")
@click.option("--slices", type=click.IntRange(1), default=6, show_default=True, help="Of a drawn heart.")
@click.option("--phases", type=click.IntRange(2), default=16, show_default=True, help="Of a drawn heart.")
@click.option("--matrix", type=click.IntRange(48), default=96, show_default=True, help="Of a drawn heart.")
@click.option("--coils", type=click.IntRange(1), help="Receive coils [8; of real hearts drawn].")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--hearts",
    type=ANY_PATH,
    metavar="FOLDER",
    help="Real hearts in place of drawn ones: short-axis cines (npz, DICOM, NIfTI).",
)
@clip_options
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --hearts: scan each so often, with other coils, noise and sampling.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    help="Begin no new slice after so long, and report what is done: the next run goes on.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Every number as CSV on stdout.")
@network_options
@json_option
def command(
    out: Path,
    segmenter: str | None,
    hearts: Path | None,
    *,
    config: Path | None,
    as_csv: bool,
    as_json: bool,
    minutes: float | None,
    **options: Any,
) -> None:
    """Measure the left ventricle in undersampled and in fully sampled images, by the same segmenter.

    Volumes are sums of slices; single clips have areas and fractional area change instead. Shown are bias,
    limits of agreement (Bland and Altman) and ICC(2,1) against the fully sampled images, against the experts'
    contours of clips that have them, and for drawn hearts against the ventricle's own volume. OUT gets the
    page with charts.
    """
    from recon_node.lab.biomarkers import BiomarkerStudy, find_segmenter, run
    from recon_node.lab.biomarkers.report import write_reports

    if as_csv and as_json:
        raise click.UsageError("--csv and --json: choose one")
    network = {name: options.pop(name) for name in list(options) if "__" in name}
    recon = settings_from(config, network).recon
    if network["recon__method"] is not None:
        options["methods"] = (network["recon__method"],)
    measuring = find_segmenter(segmenter or ("exact" if hearts is None else "acdc"))
    stacks, told = _stacks(hearts, options, recon)
    study = BiomarkerStudy(
        stacks=tuple(stacks),
        methods=options["methods"],
        patterns=options["patterns"],
        accelerations=options["accelerations"],
        seed=options["seed"],
        words=told,
    )
    with progress("measuring", study.total) as advance:
        records = run(
            study, measuring, recon, out, minutes=minutes, report=lambda said: advance(1, said[:60])
        )
    report = write_reports(records, out, segmenter=measuring.name)
    if as_json:
        print_json(report)
    elif as_csv:
        click.echo((out / "biomarkers.csv").read_text(encoding="utf-8"), nl=False)
    else:
        _show(report["agreement"])
        click.echo(f"all figures and charts: {out / 'biomarkers.html'}")
        click.echo(WARNING)


def _stacks(hearts: Path | None, options: dict[str, Any], recon: ReconSettings) -> tuple[list[Stack], str]:
    """Hearts, and what was chosen of how they are made."""
    from recon_node.lab.biomarkers import drawn_stacks, real_stacks
    from recon_node.lab.cines import read_cines
    from recon_node.lab.evaluation.hearts import unseen

    def tell(line: str) -> None:
        click.echo(line, err=True)

    seed, coils = options["seed"], options["coils"]
    if hearts is None:
        size = {name: options[name] for name in ("slices", "phases", "matrix")}
        made = drawn_stacks(options["scans"], coils=coils or 8, seed=seed, **size)
        return list(made), f"{size} {coils}"
    cines = read_cines(hearts, only=options["only"], leave_out=options["leave_out"], tell=tell)
    if "cardiomm" in options["methods"]:
        cines = unseen(cines, recon, tell=tell)
    size_px = options["size"]
    found = real_stacks(
        cines, hearts, size=size_px, coils=coils, seed=seed, repeats=options["repeats"], tell=tell
    )
    return found, f"{size_px} {coils}"


def _show(rows: list[dict[str, Any]]) -> None:
    from recon_node.lab.biomarkers.report import NAMES

    shown = Table(box=None)
    for heading in ("hearts", "against", "condition", "method", "biomarker"):
        shown.add_column(heading, overflow="fold")
    for heading in ("n", "bias", "limits", "ICC"):
        shown.add_column(heading, justify="right")
    for row in rows:
        if row["biomarker"] in _SHOWN:
            limits = "" if row["low"] is None else f"{row['low']:+.2f} to {row['high']:+.2f}"
            shown.add_row(
                *(row[name] for name in ("source", "reference", "condition", "method")),
                NAMES[row["biomarker"]],
                str(row["count"]),
                f"{row['bias']:+.2f}",
                limits,
                "" if row["icc"] is None else f"{row['icc']:.3f}",
            )
    Console().print(shown)
