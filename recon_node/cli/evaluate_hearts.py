"""``recon-node evaluate --hearts``: methods side by side on real hearts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from recon_node.cli.options import print_json, progress

if TYPE_CHECKING:
    from recon_node.settings import ReconSettings


def beside(methods: tuple[str, ...], rivals: tuple[str, ...]) -> tuple[str, ...]:
    """Methods, then rivals, then the network: tables end with it."""
    network = tuple(name for name in methods if name == "cardiomm")
    return (*(name for name in methods if name not in network), *dict.fromkeys(rivals), *network)


def compare_real(
    recon: ReconSettings,
    folder: Path,
    clips: dict[str, tuple[str, ...]],
    methods: tuple[str, ...],
    options: dict[str, Any],
    *,
    out: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """The command with ``--hearts``; `options` are those that were given."""
    from recon_node.lab.cines import read_cines

    cines = read_cines(folder, tell=lambda line: click.echo(line, err=True), **clips)
    from recon_node.lab.evaluation.hearts import CONDITIONS, HeartStudy, few, unseen
    from recon_node.lab.evaluation.hearts_report import heart_table, in_words, write_reports
    from recon_node.lab.evaluation.hearts_run import label_of, run_heart_study

    if "cardiomm" in methods:
        cines = unseen(cines, recon, tell=lambda line: click.echo(line, err=True))
    study = HeartStudy(
        cines=few(cines, options.get("scans")),
        methods=methods,
        conditions=tuple(
            (pattern, rate)
            for pattern in options.get("patterns", ("uniform", "random", "radial"))
            for rate in options.get("accelerations", (8, 16))
        )
        if {"patterns", "accelerations"} & set(options)
        else CONDITIONS,
        coils=options.get("coils"),
        snr=options["snr"],
        seed=options["seed"],
    )
    with progress("reconstructing", study.total) as advance:
        results = run_heart_study(
            study,
            recon,
            folder=out,
            report=lambda one: advance(1, f"{one.heart} {one.condition} {one.method}"),
        )
    rows = heart_table(results)
    if out is not None:
        write_reports(results, out, {name: label_of(name) for name in methods})
        click.echo(f"tables: {out / 'hearts.md'}, .csv and .json", err=True)
    if as_json:
        print_json(
            {
                "hearts": [cine.name for cine in study.cines],
                "rows": [dataclasses.asdict(row) for row in rows],
                "results": [dataclasses.asdict(one) for one in results],
            }
        )
    show(
        "Methods compared on real hearts",
        ("condition", "method", "hearts", "heart PSNR dB", "SSIM", "whole PSNR dB", "SSIM", "over kt dB"),
        [
            (
                row.condition,
                row.method,
                str(row.hearts),
                f"{row.heart_psnr:.2f}",
                f"{row.heart_ssim:.4f}",
                f"{row.whole_psnr:.2f}",
                f"{row.whole_ssim:.4f}",
                "" if row.over_kt is None else f"{row.over_kt:+.2f}",
            )
            for row in rows
        ],
        in_words(rows),
        page=page,
        quiet=as_json,
    )


def show(
    title: str,
    headings: tuple[str, ...],
    rows: list[tuple[str, ...]],
    sentences: list[str] | None = None,
    *,
    page: Path | None,
    quiet: bool,
) -> None:
    """A table on the terminal, and the same as a page where one is wanted."""
    if page is not None:
        from recon_node.report import Study, write_study

        write_study(
            page,
            Study(
                title=title,
                subtitle="PSNR, SSIM and NMSE against a known truth, mean over frames and hearts",
                headings=headings,
                rows=rows,
                drawn=3,
                sentences=sentences or (),
            ),
        )
        click.echo(f"page to look at: {page}", err=True)
    if quiet:
        return
    shown = Table(box=None)
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in ("condition", "method") else "right")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    for sentence in sentences or ():
        click.echo(sentence)
