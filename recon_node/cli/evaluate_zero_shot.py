"""``recon-node evaluate zero-shot``: a network on scanners and patients it never saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_node.cli.options import (
    ANY_PATH,
    WARNING,
    clip_options,
    json_option,
    network_options,
    numbers,
    print_json,
    progress,
    settings_from,
    words,
)

if TYPE_CHECKING:
    from recon_node.lab.zero_shot.cases import Case
    from recon_node.settings import ReconSettings


@click.command("zero-shot", short_help="A network on scanners and patients it never saw.")
@click.option(
    "--out",
    type=ANY_PATH,
    default=Path("runs/zero-shot"),
    show_default=True,
    help="Folder for cases.jsonl, which a run that was stopped goes on from, and the reports.",
)
@click.option("--vendors", callback=words, help="Of drawn scans, separated by commas [all].")
@click.option("--fields", callback=numbers, metavar="TESLA,...", help="Of drawn scans [all].")
@click.option(
    "--scans", type=click.IntRange(0), default=2, show_default=True, help="Drawn hearts on each scanner."
)
@click.option("--pattern", default="random", show_default=True)
@click.option("--acceleration", type=click.FloatRange(1), default=8, show_default=True)
@click.option("--phases", type=click.IntRange(4), default=12, show_default=True)
@click.option("--matrix", type=click.IntRange(48), default=96, show_default=True)
@click.option("--coils", type=click.IntRange(1), default=8, show_default=True)
@click.option("--trust/--no-trust", default=True, show_default=True, help="Judge every image as well.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--hearts", type=ANY_PATH, metavar="FOLDER", help="Real hearts as well: cines (npz, DICOM, NIfTI)."
)
@clip_options
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    help="Begin no new scan after so long, and report what is done: the next run goes on.",
)
@network_options
@json_option
def command(
    out: Path,
    *,
    config: Path | None,
    as_json: bool,
    minutes: float | None,
    **options: Any,
) -> None:
    """Measure weights on scanners (vendor, field, coil layout) and patients that training left out.

    Each scan is reconstructed three times, with right, wrong and missing metadata, and by k-t sparse SENSE,
    which never learned anything: what that loses on a scanner says how much harder its scans are. Nothing is
    trained. Real clips that the weights were trained on are never used; the report says what training saw.
    """
    from recon_node.lab.zero_shot import ZeroShotStudy, run, write_reports
    from recon_node.model import load_weights

    network = {name: options.pop(name) for name in list(options) if "__" in name}
    recon = settings_from(config, network).recon
    card = load_weights(recon.weights).card
    cases = _cases(recon, card, options)
    kept = ("pattern", "acceleration", "phases", "matrix", "coils", "size", "trust", "seed")
    study = ZeroShotStudy(cases=tuple(cases), **{name: options[name] for name in kept})
    with progress("reconstructing", len(cases)) as advance:
        records = run(study, recon, out, minutes=minutes, report=lambda name: advance(1, name[:60]))
    report = write_reports(records, out, card=card)
    if as_json:
        print_json(report)
        return
    click.echo((out / "zero-shot.md").read_text(encoding="utf-8"))
    click.echo(f"{out / 'zero-shot.html'}")
    click.echo(WARNING)


def _cases(recon: ReconSettings, card: Mapping[str, Any], options: dict[str, Any]) -> list[Case]:
    from recon_node.lab.cines import read_cines
    from recon_node.lab.evaluation.hearts import unseen
    from recon_node.lab.zero_shot.cases import drawn_cases, real_cases, scanners

    def tell(line: str) -> None:
        click.echo(line, err=True)

    vendors, fields, hearts = options["vendors"], options["fields"], options["hearts"]
    data = card.get("training", {}).get("data", {})
    cases = drawn_cases(scanners(vendors, fields), options["scans"], data) if options["scans"] else []
    if hearts is not None:
        cines = read_cines(hearts, only=options["only"], leave_out=options["leave_out"], tell=tell)
        cases += real_cases(unseen(cines, recon, tell=tell))
    if not cases:
        raise click.UsageError("nothing to measure: --scans 0 without --hearts")
    return cases
