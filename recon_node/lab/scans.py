"""Pages about one's own scans: one a slice, and an overview of all that a folder holds.

Plain files that open without a network. No patient data of the header stands in them; inputs are named as
their files are.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from recon_node.core import durable
from recon_node.images import finish
from recon_node.lab.evaluation.report import ReportData, write_report
from recon_node.methods.registry import title_of
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.offline.ledger import query
from recon_node.pipeline.result import Slice

FOLDER = "report"
INDEX = "index.html"
_THUMBNAIL = 96
_WHITE = 0.985
_ORDER = {"fallback": 0, "warn": 1, "pass": 2}
_WARNING = "Not for clinical use until validated."


def report_slice(done: Slice, out: Path) -> None:
    """Write ``report/<series>.html`` about one slice, and a small picture for the overview.

    Parameters
    ----------
    done : Slice
        Written to DICOM; nothing is reported without.
    out : Path
        The output folder of the replay.
    """
    if not done.instances:
        return
    result = done.result
    kspace, made = result.kspace, result.images.made_by
    shape = result.images.data.shape[1:]
    beside = finish(ZeroFilled().reconstruct(kspace, result.maps, None), shape=shape)
    images = {title_of("zero-filled"): beside.data, title_of(made.method): result.images.data}
    if made.method == "zero-filled":
        images = {title_of(made.method): result.images.data}
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = done.instances[0].path.parent.name
    header = kspace.header
    rr = kspace.rr_interval_ms
    data = ReportData(
        title=f"{header.protocol or 'Scan'}, slice {kspace.index.slice + 1}",
        subtitle=", ".join(
            filter(
                None,
                (
                    f"{header.vendor or ''} {header.model or ''}".strip(),
                    None if header.field_strength_t is None else f"{header.field_strength_t:g} T",
                    f"{kspace.sampling.acceleration:.3g}x {kspace.sampling.pattern}",
                    f"{len(result.images.data)} phases",
                ),
            )
        ),
        images=images,
        kspace=kspace,
        maps=result.maps,
        prompts=result.prompts,
        verdict=result.verdict,
        seconds=done.seconds,
        times_ms=kspace.trigger_times_ms,
        frame_ms=50.0 if rr is None else rr / len(result.images.data),
        facts={"series": name, "method": made.method, "weights": made.weights or "none"},
        footer=_WARNING,
    )
    write_report(folder / f"{name}.html", data)
    durable.write_bytes(folder / f"{name}.png", _thumbnail(result.images.data[0]), sync=False)


def write_index(out: Path) -> Path:
    """Write ``report/index.html``: every slice that the ledger knows, the least trusted first.

    Raises
    ------
    ReconNodeError
        There is no ledger in the folder.
    """
    rows = query(out, "")
    slices = [row for row in rows if row["status"] == "done"]
    slices.sort(key=lambda row: (_ORDER.get(row["trust"], 0), row["score"] or 0.0))
    counts = {word: sum(row["trust"] == word for row in slices) for word in ("pass", "warn", "fallback")}
    page = Environment(loader=PackageLoader("recon_node.lab"), autoescape=True).get_template("scans.html")
    text = page.render(
        warning=_WARNING,
        slices=[_line(row, out) for row in slices],
        troubles=[row for row in rows if row["status"] != "done"],
        counts=counts,
        seconds=sum(row["seconds"] or 0.0 for row in slices),
    )
    path = out / FOLDER / INDEX
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable.write_text(path, text)
    return path


def _line(row: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """A row with the names of its page and picture, where they are there."""
    names = [Path(name).name for name in (row["folders"] or "").split("; ") if name]
    page = next((f"{name}.html" for name in names if (out / FOLDER / f"{name}.html").is_file()), None)
    picture = None
    if page is not None:
        data = (out / FOLDER / page).with_suffix(".png").read_bytes()
        picture = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {**row, "name": Path(row["input"]).name, "page": page, "picture": picture}


def _thumbnail(image: np.ndarray) -> bytes:
    magnitude = np.abs(image)
    top = float(np.quantile(magnitude, _WHITE)) or 1.0
    grey = Image.fromarray(np.clip(255 * magnitude / top, 0, 255).astype(np.uint8))
    grey.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    grey.save(stream, "PNG")
    return stream.getvalue()
