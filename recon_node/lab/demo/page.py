"""The demo's page: one slice in motion, all slices in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.lab.demo.data import SliceResult, Truth
from recon_node.lab.evaluation import Metrics, blood_volume_ml
from recon_node.lab.evaluation.report import ReportData, write_report
from recon_node.methods.registry import title_of


def write_demo_report(path: Path, slices: Sequence[SliceResult], truth: Truth) -> None:
    """Write the page about the middle slice; metrics and volumes are over all slices."""
    shown = slices[len(slices) // 2]
    result = shown.result
    made = result.images.made_by
    stored = " / ".join(dict.fromkeys(title_of(part.result.images.made_by.method) for part in slices))
    columns = [_columns(part, stored) for part in slices]
    seconds = {stage: sum(part.result.seconds.get(stage, 0.0) for part in slices) for stage in result.seconds}
    header = result.kspace.header
    weights = "none" if made.weights is None else f"{made.weights} {(made.weights_sha256 or '')[:12]}"
    kspace = result.kspace
    rr = kspace.rr_interval_ms
    data = ReportData(
        title="A simulated heart through recon-node",
        subtitle=(
            f"{len(slices)} slices, {len(result.images.data)} phases, {header.vendor} {header.model}, "
            f"{kspace.sampling.acceleration:.1f}x {kspace.sampling.pattern} undersampling, streamed to the "
            "node, reconstructed and stored in a PACS"
        ),
        images={name: images for name, (images, _) in columns[len(slices) // 2].items()},
        truth=truth.images[shown.number],
        focus=_middle(truth.lv[shown.number]),
        metrics={name: _mean([column[name][1] for column in columns]) for name in columns[0]},
        metrics_of=f"mean over the frames of {len(slices)} slices, against the truth",
        kspace=kspace,
        maps=result.maps,
        prompts=result.prompts,
        verdict=result.verdict,
        seconds=seconds,
        volumes_ml=volume_curves(
            [
                (part.number, {name: images for name, (images, _) in column.items()})
                for part, column in zip(slices, columns, strict=True)
            ],
            truth,
        ),
        volumes_of=f"blood in {len(slices)} slices (ml), measured alike in every image",
        times_ms=tuple(map(float, truth.trigger_times_ms)),
        frame_ms=50.0 if rr is None else rr / len(result.images.data),
        facts={
            "slice shown": f"{shown.number + 1} of {len(slices)}",
            "weights": weights,
            "ejection fraction": f"{truth.lvef_percent:.1f} %, of the whole simulated ventricle",
            "instances in the PACS": str(sum(len(part.done.instances) for part in slices)),
        },
        footer="Simulated data. Images and figures are not for clinical use until validated.",
    )
    write_report(path, data)


def _columns(part: SliceResult, stored: str) -> dict[str, tuple[NDArray[Any], Metrics]]:
    """Images `(phase, y, x)` of one slice and their metrics as the page names them.

    What the node stored comes last as `stored`: where a slice's network image was withheld, its fallback.
    """
    made = part.result.images
    beside = {title_of(name): (images.data, part.metrics[name]) for name, images in part.beside.items()}
    beside.pop(stored, None)
    return {**beside, stored: (made.data, part.metrics[made.made_by.method])}


def _middle(cavity: NDArray[np.float32]) -> tuple[int, int] | None:
    """Row and column of the middle of the ventricle `(phase, y, x)`; None where the slice misses it."""
    seen = cavity.max(axis=0)
    if not seen.any():
        return None
    row, column = np.average(np.indices(seen.shape).reshape(2, -1), axis=1, weights=seen.ravel())
    return round(float(row)), round(float(column))


def _mean(parts: Sequence[Metrics]) -> Metrics:
    return Metrics(
        psnr=float(np.mean([part.psnr for part in parts])),
        ssim=float(np.mean([part.ssim for part in parts])),
        nmse=float(np.mean([part.nmse for part in parts])),
    )


def volume_curves(
    slices: Sequence[tuple[int, Mapping[str, NDArray[Any]]]], truth: Truth
) -> dict[str, NDArray[np.float64]]:
    """Blood in the left ventricle by phase, measured in the true images as in all others.

    Parameters
    ----------
    slices : sequence of (int, mapping)
        Number of the slice, and its images `(phase, y, x)` by name.
    truth : Truth

    Returns
    -------
    dict
        ml `(phase,)` by name, ``Truth`` first: sum over the slices that cut the ventricle.
    """
    curves: dict[str, list[NDArray[np.float64]]] = {}
    for number, images in slices:
        try:
            measured = {
                name: blood_volume_ml(
                    image,
                    cavity=truth.lv[number],
                    wall=truth.myocardium[number],
                    pixel_mm=(truth.pixel_mm, truth.pixel_mm),
                    thickness_mm=truth.slice_spacing_mm,
                )
                for name, image in {"Truth": truth.images[number], **images}.items()
            }
        except DataError:
            continue  # a slice beyond the ventricle adds nothing to its volume
        for name, volume in measured.items():
            curves.setdefault(name, []).append(volume)
    return {name: np.sum(parts, axis=0) for name, parts in curves.items()}
