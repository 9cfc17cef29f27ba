"""The demo's page: one slice in motion, all slices in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.demo.data import SliceResult, Truth
from recon_node.evaluation import Metrics, blood_volume_ml, mask_volume_ml
from recon_node.evaluation.report import ReportData, write_report

NAMES = {
    "zero-filled": "Zero-filled",
    "sense": "CG-SENSE",
    "l1-wavelet": "L1-wavelet",
    "kt": "k-t sparse",
    "view-sharing": "View sharing",
    "cardiomm": "CardioMM",
}
"""Methods as the page names them."""


def write_demo_report(path: Path, slices: Sequence[SliceResult], truth: Truth) -> None:
    """Write the page about the middle slice; metrics and volumes are over all slices."""
    shown = slices[len(slices) // 2]
    result = shown.result
    made = result.images.made_by
    images = {**shown.beside, made.method: result.images}
    methods = list(images)
    seconds = {stage: sum(part.result.seconds.get(stage, 0.0) for part in slices) for stage in result.seconds}
    header = result.kspace.header
    weights = "none" if made.weights is None else f"{made.weights} {(made.weights_sha256 or '')[:12]}"
    data = ReportData(
        title="A simulated heart through recon-node",
        subtitle=(
            f"{len(slices)} slices, {len(result.images.data)} phases, {header.vendor} {header.model}, "
            f"{result.kspace.sampling.acceleration:.1f}x {result.kspace.sampling.pattern} undersampling"
        ),
        images={NAMES[name]: series.data for name, series in images.items()},
        truth=truth.images[result.kspace.index.slice],
        metrics={NAMES[name]: _mean([part.metrics[name] for part in slices]) for name in methods},
        kspace=result.kspace,
        maps=result.maps,
        prompts=result.prompts,
        verdict=result.verdict,
        seconds=seconds,
        volumes_ml=_volumes(slices, methods, truth),
        times_ms=tuple(map(float, truth.trigger_times_ms)),
        facts={
            "Weights": weights,
            "True ejection fraction": f"{truth.lvef_percent:.1f} %",
            "Instances in the PACS": str(sum(len(part.instances) for part in slices)),
        },
        footer="Simulated data. Images and figures are not for clinical use until validated.",
    )
    write_report(path, data)


def _mean(parts: Sequence[Metrics]) -> Metrics:
    return Metrics(
        psnr=float(np.mean([part.psnr for part in parts])),
        ssim=float(np.mean([part.ssim for part in parts])),
        nmse=float(np.mean([part.nmse for part in parts])),
    )


def _volumes(
    slices: Sequence[SliceResult], methods: Sequence[str], truth: Truth
) -> dict[str, NDArray[np.float64]]:
    """Slice-sum volumes of the left ventricle, from images and from the true outline alike."""
    curves: dict[str, list[NDArray[np.float64]]] = {"Truth": []}
    for part in slices:
        number = part.result.kspace.index.slice
        cavity, wall = truth.lv[number], truth.myocardium[number]
        images = {**part.beside, part.result.images.made_by.method: part.result.images}
        try:
            measured = {
                NAMES[name]: blood_volume_ml(
                    images[name].data,
                    cavity=cavity,
                    wall=wall,
                    pixel_mm=(truth.pixel_mm, truth.pixel_mm),
                    thickness_mm=truth.slice_spacing_mm,
                )
                for name in methods
            }
        except DataError:
            continue  # a slice beyond the ventricle adds nothing to its volume
        curves["Truth"].append(
            mask_volume_ml(
                cavity, pixel_mm=(truth.pixel_mm, truth.pixel_mm), thickness_mm=truth.slice_spacing_mm
            )
        )
        for name, volume in measured.items():
            curves.setdefault(name, []).append(volume)
    return {name: np.sum(parts, axis=0) for name, parts in curves.items() if parts}
