"""Two folders compared, pair by pair, with a page about it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon_node.core import durable
from recon_node.core.errors import DataError, DicomError
from recon_node.core.names import printable
from recon_node.dicom.read import read_slices
from recon_node.lab.compare.figures import Compared, compare_pair
from recon_node.lab.compare.register import pairs
from recon_node.report.pixels import grey, mosaic, png_uri
from recon_node.report.render import render

INDEX, TABLE, SUMMARY = "index.html", "table.csv", "summary.json"
ERROR_TIMES = 5
"""How many times brighter differences are shown than images."""
_WHITE = 0.995
_MOST_PICTURES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    """A row for each pair (`Compared.as_dict`), with the name of its picture."""
    notes: list[str] = field(default_factory=list)
    """What has no partner, or no place."""
    failed: list[str] = field(default_factory=list)
    """Pairs whose pixels could not be compared."""


def compare_folders(a: Path, b: Path, *, out: Path | None = None, scale: bool = True) -> Comparison:
    """Compare every slice of A with the slice of B at the same place.

    Parameters
    ----------
    a, b : Path
        Folders with DICOM images, searched through; B is the reference.
    out : Path, optional
        Folder for ``index.html``, ``table.csv``, ``summary.json`` and a picture of each pair; made if absent.
    scale : bool
        As for `compare_pair`.

    Raises
    ------
    DicomError
        A folder holds no DICOM images, or they cannot be read.
    DataError
        No slice of A has a partner in B, or no pair can be compared.
    """
    (ones, notes), (others, more) = read_slices(a), read_slices(b)
    found, alone = pairs(ones, others)
    matched = {id(other) for _, other in found}
    notes = [f"A: {note}" for note in notes] + [f"B: {note}" for note in more]
    notes += [f"A: {one.description}: nothing in B lies there" for one in alone]
    notes += [f"B: {one.description}: nothing in A lies there" for one in others if id(one) not in matched]
    if not found:
        if not ones or not others:
            raise DataError(notes[0])
        raise DataError(
            f"none of {len(ones)} slices of A lies where one of {len(others)} of B does: expected images of "
            "the same patient in one position"
        )
    rows: list[Mapping[str, Any]] = []
    failed: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, (one, other) in enumerate(found, 1):
        try:
            compared = compare_pair(one, other, scale=scale)
        except (DataError, DicomError) as trouble:
            if len(failed) == len(found) - 1:
                raise
            failed.append(f"{one.description} and {other.description}: {trouble}")
            continue
        name = f"pair-{number:03d}.png"
        if out is not None and number <= _MOST_PICTURES:
            pictures[name] = picture(compared)
        shown = {"worst_frame": compared.worst + 1, "picture": name if name in pictures else None}
        rows.append({**compared.as_dict(), **shown})
    comparison = Comparison(rows=rows, notes=notes, failed=failed)
    if out is not None:
        _write(comparison, pictures, out, folders=(printable(a), printable(b)))
    return comparison


def picture(compared: Compared) -> bytes:
    """PNG of the frame that differs most: A, B, and the difference, brighter."""
    frame = compared.worst
    image, reference = compared.images[frame], compared.reference[frame]
    top = float(np.quantile(np.abs(compared.reference), _WHITE)) or 1.0
    error = np.where(compared.inside, image - reference, 0)
    tiles = [
        grey(image, top=top),
        grey(np.where(compared.inside, reference, 0), top=top),
        grey(error, top=top / ERROR_TIMES),
    ]
    canvas = mosaic([[np.repeat(tile[..., None], 3, axis=2) for tile in tiles]])
    stream = io.BytesIO()
    Image.fromarray(canvas).save(stream, "PNG")
    return stream.getvalue()


def _write(
    comparison: Comparison, pictures: Mapping[str, bytes], out: Path, *, folders: tuple[str, str]
) -> None:
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, data in pictures.items():
        durable.write_bytes(out / name, data, sync=False)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(comparison.rows[0]))
    writer.writeheader()
    writer.writerows(comparison.rows)
    durable.write_text(out / TABLE, text.getvalue(), sync=False)
    whole = {"pairs": comparison.rows, "notes": comparison.notes, "failed": comparison.failed}
    durable.write_text(out / SUMMARY, json.dumps(whole, indent=2), sync=False)
    render(
        out / INDEX,
        "compare.html",
        script="overview.js",
        rows=sorted(comparison.rows, key=_likeness),
        notes=[*comparison.failed, *comparison.notes],
        pictures={name: png_uri(data) for name, data in pictures.items()},
        times=ERROR_TIMES,
        folders=folders,
        files=[TABLE, SUMMARY],
    )


def _likeness(row: Mapping[str, Any]) -> float:
    return float("inf") if row["psnr"] is None else float(row["psnr"])


def below(comparison: Comparison, *, psnr: float | None = None, ssim: float | None = None) -> Iterator[str]:
    """A line for each pair that is less alike than asked for."""
    for row in comparison.rows:
        where = f"{row['a']} at {row['location_mm']} mm"
        if psnr is not None and _likeness(row) < psnr:
            yield f"{where}: PSNR {row['psnr']:.2f} dB, expected {psnr:g} or more"
        if ssim is not None and row["ssim"] < ssim:
            yield f"{where}: SSIM {row['ssim']:.4f}, expected {ssim:g} or more"
