"""Pages about one's own scans: one a slice, and an overview of all that a folder holds.

Inputs are named as their files are; where those name patients, so do the pages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_node.core import durable
from recon_node.core.scan import SliceIndex
from recon_node.images import finish
from recon_node.methods.record import MethodOptions
from recon_node.methods.registry import stand_in, title_of
from recon_node.offline.layers import layers_of
from recon_node.offline.ledger import FILE, index_of, query
from recon_node.pipeline.result import Slice
from recon_node.report import (
    INDEX,
    Line,
    Overview,
    Report,
    SliceView,
    link_slices,
    thumbnail,
    write_overview,
    write_report,
)

FOLDER = "report"
_USUAL_FRAME_MS = 50.0


def report_slice(done: Slice, out: Path, options: MethodOptions, fallback: str = "sense") -> None:
    """Write a page into ``report`` about one slice, and a small picture for the overview.

    Parameters
    ----------
    done : Slice
        Written to DICOM; nothing is reported without.
    out : Path
        The output folder of the replay.
    options : MethodOptions
        How the methods shown beside the slice's own are made: the settings' section ``recon``.
    fallback : str
        Name of the method that is shown beside, together with the zero-filled image.
    """
    if not done.instances:
        return
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    series = done.instances[0].path.parent
    result = done.result
    kspace, made = result.kspace, result.images.made_by
    header = kspace.header
    known = (
        " ".join(filter(None, (header.vendor, header.model))),
        "" if header.field_strength_t is None else f"{header.field_strength_t:.3g} T",
        f"{kspace.sampling.acceleration:.3g}x {kspace.sampling.pattern}",
        f"{len(result.images.data)} phases",
    )
    report = Report(
        title=f"{header.protocol or 'Scan'}, {label_of(kspace.index.slice)}",
        subtitle=", ".join(filter(None, known)),
        slices=[_view(done, options, fallback)],
        downloads={"DICOM files": f"../{series.relative_to(out).as_posix()}/"},
        sentences=("Held back: nothing of it is delivered before somebody has looked.",)
        if result.held
        else (),
        facts={"series": series.name, "method": made.method, "weights": made.weights or "none"},
        back=INDEX,
    )
    name = name_of(series.relative_to(out).as_posix(), kspace.index)
    write_report(folder / f"{name}.html", report)
    durable.write_bytes(folder / f"{name}.png", thumbnail(result.images.data[0]), sync=False)


def _view(done: Slice, options: MethodOptions, fallback: str) -> SliceView:
    result = done.result
    kspace, images = result.kspace, result.images
    shape = images.data.shape[1:]
    methods = {name: stand_in(name, options) for name in ("zero-filled", fallback)}
    beside = {
        name: finish(method.reconstruct(kspace, result.maps, None), shape=shape).data
        for name, method in methods.items()
        if name != images.made_by.method
    }
    names = {name: title_of(name) for name in (*beside, images.made_by.method)}
    shown = {names[name]: data for name, data in beside.items()}
    if result.withheld is not None:
        shown[f"{title_of(result.withheld.made_by.method)}, withheld"] = result.withheld.data
    shown[names[images.made_by.method]] = images.data
    rr = kspace.rr_interval_ms
    (fov_x, fov_y, _), (rows, columns) = images.geometry.fov_mm, shape
    return SliceView(
        label=label_of(kspace.index.slice),
        images=shown,
        truth=result.reference,
        truth_is="reconstructed from all lines",
        metrics={names[name]: found for name, found in (result.metrics or {}).items() if name in names},
        pixel_mm=(fov_x / columns, fov_y / rows),
        layers=layers_of(result),
        kspace=kspace,
        maps=result.maps,
        prompts=result.prompts,
        verdict=result.verdict,
        seconds=done.seconds,
        times_ms=kspace.trigger_times_ms,
        frame_ms=_USUAL_FRAME_MS if rr is None else rr / len(images.data),
    )


def name_of(folder: str, index: SliceIndex) -> str:
    """Name of a slice's page, by the folder of its series: unique also where slices share one.

    Parameters
    ----------
    folder : str
        Relative to the output folder.
    index : SliceIndex
        Which slice of the series.
    """
    digest = hashlib.sha256(f"{folder}|{dataclasses.astuple(index)}".encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', folder.rpartition('/')[2])[:40].strip('-')}-{digest[:10]}"


def label_of(number: int) -> str:
    """A slice, counted from 1 as people do."""
    return f"slice {number + 1}"


def write_index(out: Path) -> Path:
    """Write ``report/index.html``, every slice that the ledger knows, and let the pages of a scan meet.

    Raises
    ------
    ReconNodeError
        There is no ledger in the folder.
    """
    rows = query(out, "")
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [(row, _line(row, folder)) for row in rows if row["status"] == "done"]
    scans: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
    for row, line in lines:
        if line.page is not None:
            scans[row["input"], row["scan"], row["method"], row["weights_sha256"]].append(line)
    for some in scans.values():
        link_slices([folder / str(one.page) for one in some], [one.label for one in some])
    stacks = sorted(out.glob("nifti/**/*.nii"))
    write_overview(
        folder / INDEX,
        Overview(
            lines=[line for _, line in lines],
            troubles=[
                (Path(row["input"]).name, f"{row['status']}, {row['error']}")
                for row in rows
                if row["status"] != "done"
            ],
            files={
                "summary.json": "../summary.json",
                FILE: f"../{FILE}",
                **{path.name: f"../{path.relative_to(out).as_posix()}" for path in stacks},
            },
        ),
    )
    return folder / INDEX


def has_page(row: Mapping[str, Any], out: Path) -> bool:
    """Whether the page of a slice in the ledger, and its picture, lie in the output folder."""
    page = _page_of(row, out / FOLDER)
    return page is not None and (out / FOLDER / page).with_suffix(".png").is_file()


def _page_of(row: Mapping[str, Any], folder: Path) -> str | None:
    names = [name_of(name, index_of(row)) for name in (row["folders"] or "").split("; ") if name]
    return next((f"{name}.html" for name in names if (folder / f"{name}.html").is_file()), None)


def _line(row: Mapping[str, Any], folder: Path) -> Line:
    page = _page_of(row, folder)
    parts = [f"{name} {row[name] + 1}" for name in ("contrast", "set", "repetition") if row[name] > 0]
    return Line(
        name=Path(row["input"]).name,
        label=", ".join([label_of(row["slice"]), *parts]),
        trust=row["trust"],
        score=row["score"] or 0.0,
        method=row["method"],
        pattern=row["pattern"],
        acceleration=row["acceleration"] or 1.0,
        reasons=row["reasons"] or "",
        field_t=row["field_t"],
        phases=row["phases"],
        seconds=row["seconds"],
        metrics={} if row["psnr"] is None else {name: row[name] for name in ("psnr", "ssim")},
        page=page,
        picture=None if page is None else (folder / page).with_suffix(".png"),
    )
