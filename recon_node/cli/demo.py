"""``recon-node demo``: the whole way in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_node.cli.options import ANY_PATH, WARNING, json_option, print_json, recon_options, settings_from


@click.command("demo", short_help="A simulated beating heart from raw data to PACS, with a report.")
@click.option("--out", required=True, type=ANY_PATH, help="Folder for everything the demo makes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, another heart.")
@recon_options
@json_option
def command(out: Path, seed: int, config: Path | None, as_json: bool, **given: Any) -> None:
    """Simulate a beating heart, stream it through the node's own MRD server, deliver DICOM to a PACS.

    Writes OUT/report.html, OUT/summary.json and OUT/dicom/.
    """
    import json

    settings = settings_from(config, given)
    out.mkdir(parents=True, exist_ok=True)
    from recon_node.lab.demo import run_demo

    report = run_demo(out, settings, seed=seed, say=lambda line: click.echo(line, err=as_json))
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(summary)
        return
    for entry in summary["series"]:
        figures = ", ".join(f"{name} {values['psnr']:.1f} dB" for name, values in entry["metrics"].items())
        click.echo(f"slice {entry['slice']}: {figures}; trust {entry['trust']['verdict']}")
        if (expected := entry["trust"]["expected"]) is not None:
            click.echo(f"    {expected['said']}")
    click.echo(f"report: {report.resolve().as_uri()}")
    click.echo(WARNING)
