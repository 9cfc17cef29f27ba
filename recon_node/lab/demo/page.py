"""The demo's page: every slice in motion, all of them in numbers and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.lab.demo.data import SliceResult, Truth
from recon_node.lab.evaluation import blood_volume_ml, function_of, series_metrics
from recon_node.methods.registry import title_of
from recon_node.report import Report, SliceView, write_report

Figures = Mapping[str, float]
HEART_MM = 96.0
"""Side of the part around the ventricle in which the heart is judged."""


def write_demo_report(path: Path, slices: Sequence[SliceResult], truth: Truth) -> list[str]:
    """Write the page; metrics and volumes are over all slices. Returns what was found, in words."""
    result = slices[len(slices) // 2].result
    made, kspace, header = result.images.made_by, result.kspace, result.kspace.header
    stored = " / ".join(dict.fromkeys(title_of(part.result.images.made_by.method) for part in slices))
    columns = [_columns(part, stored) for part in slices]
    metrics = {name: _mean([column[name][1] for column in columns]) for name in columns[0]}
    shown = [
        (part.number, {name: images for name, (images, _) in column.items()})
        for part, column in zip(slices, columns, strict=True)
    ]
    curves = volume_curves(shown, truth)
    sentences = gain_in_words(metrics, stored, len(slices), _in_the_heart(shown, truth))
    report = Report(
        title="A simulated heart through recon-node",
        subtitle=(
            f"{len(slices)} slices, {len(result.images.data)} phases, {header.vendor} {header.model}, "
            f"{kspace.sampling.acceleration:.1f}x {kspace.sampling.pattern} undersampling, streamed to the "
            "node, reconstructed and stored in a PACS"
        ),
        slices=[_view(part, column, truth) for part, column in zip(slices, columns, strict=True)],
        shown=len(slices) // 2,
        sentences=sentences,
        metrics=metrics,
        metrics_of=f"mean over the frames of {len(slices)} slices, against the truth",
        curves_ml=curves,
        curves_of=f"blood in {len(slices)} slices (ml), measured alike in every image",
        function={name: _function(curve) for name, curve in curves.items()},
        downloads={"DICOM files": "dicom/", "summary.json": "summary.json"},
        facts={
            "weights": "none"
            if made.weights is None
            else f"{made.weights} {(made.weights_sha256 or '')[:12]}",
            "instances in the PACS": str(sum(len(part.done.instances) for part in slices)),
        },
    )
    write_report(path, report)
    return sentences


def gain_in_words(
    metrics: Mapping[str, Figures], stored: str, count: int, heart: Mapping[str, float] | None = None
) -> list[str]:
    """What the stored images gain over k-t sparse SENSE, as one says it; nothing where they are that.

    `heart` holds PSNR in the heart (dB) of the same images.
    """
    kt = title_of("kt")
    if kt not in metrics or kt == stored:
        return []
    gain = metrics[stored]["psnr"] - metrics[kt]["psnr"]
    side = "above" if gain >= 0 else "BELOW"
    slices = "1 slice" if count == 1 else f"{count} slices"
    found = f"{metrics[stored]['psnr']:.1f} against {metrics[kt]['psnr']:.1f} dB PSNR, mean over {slices}"
    return [
        f"{stored} is {abs(gain):.1f} dB {side} k-t sparse SENSE ({found}){_there(heart, stored, kt)}.",
        "The heart is drawn, and about as hard as real ones for SENSE and k-t (docs/training.md has both).",
    ]


def _there(heart: Mapping[str, float] | None, stored: str, kt: str) -> str:
    if not heart:
        return ""
    gain = heart[stored] - heart[kt]
    side = "above" if gain >= 0 else "BELOW"
    return f", in the heart {abs(gain):.1f} dB {side} it ({heart[stored]:.1f} against {heart[kt]:.1f} dB)"


def _in_the_heart(slices: Sequence[tuple[int, Mapping[str, NDArray[Any]]]], truth: Truth) -> dict[str, float]:
    """Mean PSNR, dB, of `HEART_MM` around the ventricle, over the slices that cut it, by name."""
    half = round(HEART_MM / truth.pixel_mm / 2)
    found: dict[str, list[float]] = {}
    for number, images in slices:
        middle = _middle(truth.lv[number])
        if middle is None:
            continue
        part = (slice(None), *(slice(max(at - half, 0), at + half) for at in middle))
        for name, image in images.items():
            metrics = series_metrics(image[part], truth.images[number][part], normalise=False)
            found.setdefault(name, []).append(metrics.psnr)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _view(part: SliceResult, column: Mapping[str, tuple[NDArray[Any], Figures]], truth: Truth) -> SliceView:
    kspace = part.result.kspace
    rr = kspace.rr_interval_ms
    return SliceView(
        label=f"slice {part.number + 1}",
        images={name: images for name, (images, _) in column.items()},
        truth=truth.images[part.number],
        truth_is="before the scan's noise",
        focus=_middle(truth.lv[part.number]),
        metrics={name: figures for name, (_, figures) in column.items()},
        layers=part.layers,
        kspace=kspace,
        maps=part.result.maps,
        prompts=part.result.prompts,
        verdict=part.result.verdict,
        seconds=part.result.seconds,
        times_ms=tuple(map(float, truth.trigger_times_ms)),
        frame_ms=50.0 if rr is None else rr / len(part.result.images.data),
    )


def _columns(part: SliceResult, stored: str) -> dict[str, tuple[NDArray[Any], Figures]]:
    """Images `(phase, y, x)` of one slice and their metrics as the page names them.

    What the node stored comes last as `stored`: where a slice's network image was withheld, its fallback.
    """
    made = part.result.images
    figures = {name: one.as_dict() for name, one in part.metrics.items()}
    beside = {title_of(name): (images.data, figures[name]) for name, images in part.beside.items()}
    beside.pop(stored, None)
    return {**beside, stored: (made.data, figures[made.made_by.method])}


def _middle(cavity: NDArray[np.float32]) -> tuple[int, int] | None:
    """Row and column of the middle of the ventricle `(phase, y, x)`; None where the slice misses it."""
    seen = cavity.max(axis=0)
    if not seen.any():
        return None
    row, column = np.average(np.indices(seen.shape).reshape(2, -1), axis=1, weights=seen.ravel())
    return round(float(row)), round(float(column))


def _mean(parts: Sequence[Figures]) -> dict[str, float]:
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def _function(curve: NDArray[np.float64]) -> dict[str, float]:
    found = function_of(curve)
    return {
        "EDV (ml)": found.edv_ml,
        "ESV (ml)": found.esv_ml,
        "SV (ml)": found.stroke_volume_ml,
        "EF (%)": found.ejection_fraction_percent,
    }


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
