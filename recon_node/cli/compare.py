"""``recon-node compare``: two folders of DICOM images, by their place in the patient."""

from __future__ import annotations

from pathlib import Path

import click

from recon_node.cli.options import ANY_PATH, json_option, print_json


@click.command("compare", short_help="Compare two folders of DICOM images.")
@click.argument("a", type=ANY_PATH)
@click.argument("b", type=ANY_PATH)
@click.option("--out", type=ANY_PATH, help="Folder for a page with pictures, a table and summary.json.")
@click.option("--scale/--no-scale", default=True, help="Bring A to the unit of B by a factor [yes].")
@click.option("--least-psnr", type=float, metavar="DB", help="Exit 1 where a pair has less.")
@click.option("--least-ssim", type=click.FloatRange(-1, 1), help="Exit 1 where a pair has less.")
@json_option
def command(
    a: Path,
    b: Path,
    out: Path | None,
    *,
    scale: bool,
    least_psnr: float | None,
    least_ssim: float | None,
    as_json: bool,
) -> int:
    """Compare the images below folder A with those below folder B, the reference.

    Slices meet by position, orientation and pixel size, whoever made them: two reconstructions of one scan,
    or one and the scanner's own series, which is resampled. Numbers of images may differ: they meet by their
    place in the heart's cycle. Exit 1 if nothing meets, or the pixels of a pair cannot be read.
    """
    from recon_node.lab.compare.run import INDEX, below, compare_folders

    found = compare_folders(a, b, out=out, scale=scale)
    if as_json:
        print_json({"pairs": found.rows, "notes": found.notes, "failed": found.failed})
    else:
        for row in found.rows:
            psnr = "equal" if row["psnr"] is None else f"PSNR {row['psnr']:.2f} dB"
            click.echo(
                f"{row['a']} | {row['b']} | {row['location_mm']:g} mm, {row['frames']} images: {psnr}, "
                f"SSIM {row['ssim']:.4f}, NMSE {row['nmse']:.3g}, factor {row['factor']:.4g}"
            )
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if out is not None:
        click.echo(f"page: {out / INDEX}", err=as_json)
    poor = [*found.failed, *below(found, psnr=least_psnr, ssim=least_ssim)]
    for line in poor:
        click.echo(f"recon-node: {line}", err=True)
    return 1 if poor else 0
