"""``recon-node evaluate ablation``: whether the texts help."""

from __future__ import annotations

from pathlib import Path

import click

from recon_node.cli.options import ANY_PATH, WARNING, json_option, print_json, progress


@click.command("ablation", short_help="Whether the texts help: networks told apart by them.")
@click.option(
    "--plan",
    type=ANY_PATH,
    default=Path("small"),
    metavar="FILE|NAME",
    show_default=True,
    help="Arms, starts, contrasts, seeds and training (TOML), or the name of a plan that is shipped.",
)
@click.option(
    "--out",
    type=ANY_PATH,
    default=Path("runs/ablation"),
    show_default=True,
    help="Folder for the plan, the networks, results.jsonl, which a stopped run goes on from, and reports.",
)
@click.option(
    "--hearts", type=ANY_PATH, metavar="FOLDER", help="Measure on real hearts as well (npz, DICOM, NIfTI)."
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="With --hearts: only clips with this in their name."
)
@click.option("--leave-out", multiple=True, metavar="NAME", help="With --hearts: without such clips.")
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    help="Begin no new network after so long, and report what is done: the next run goes on.",
)
@json_option
def command(
    plan: Path,
    out: Path,
    hearts: Path | None,
    only: tuple[str, ...],
    leave_out: tuple[str, ...],
    minutes: float | None,
    *,
    as_json: bool,
) -> None:
    """Train networks that differ only in the texts they see, and compare them on the same scans.

    Arms: no text, the undersampling text, the metadata text, both, and both shuffled among the scans. The
    plan is written into OUT before anything is trained, and another is refused there. Networks are trained
    on drawn scans alone, so all real hearts are new to them. OUT/ablation.md has tests and dose-response.
    """
    from recon_node.lab.ablation import load_plan, run, write_reports
    from recon_node.lab.ablation.plan import networks
    from recon_node.lab.cines import read_cines

    chosen = load_plan(plan)
    cines = []
    if hearts is not None:
        cines = read_cines(
            hearts, only=only, leave_out=leave_out, tell=lambda line: click.echo(line, err=True)
        )
    count = len(list(networks(chosen)))
    with progress("training", 1000 * count) as advance:
        done: dict[str, int] = {}

        def report(name: str, fraction: float) -> None:
            share = int(1000 * fraction)
            advance(share - done.get(name, 0), name)
            done[name] = share

        records = run(chosen, out, cines=cines, minutes=minutes, report=report)
    told = write_reports(chosen, records, out)
    if as_json:
        print_json(told)
        return
    click.echo((out / "ablation.md").read_text(encoding="utf-8"))
    click.echo(f"{out / 'ablation.html'}")
    click.echo(WARNING)
