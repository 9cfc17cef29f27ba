"""The parts of the report, each a piece of HTML; what there is no data for is empty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, KSpace, Prompt, Prompts, Verdict
from recon_node.lab.evaluation import pictures
from recon_node.lab.evaluation.biomarkers import function_of
from recon_node.lab.evaluation.charts import line_chart
from recon_node.lab.evaluation.metrics import Metrics

COLOURS = ("#e6edf3", "#8b98a9", "#f5b83d", "#4cc2ff", "#4ad295", "#c792ea")
_VERDICTS = {"pass": "Trust: pass", "warn": "Trust: look twice", "fallback": "Trust: network withheld"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One column of pictures."""

    name: str
    image: NDArray[np.float32]
    """`(phase, y, x)` magnitudes, 1 is white."""
    colour: str
    metrics: Metrics | None = None
    is_truth: bool = False


def text(value: object) -> str:
    """Any value as HTML text."""
    return escape(str(value), quote=True)


def head(title: str, subtitle: str, verdict: Verdict | None) -> str:
    """Title, and the verdict beside it."""
    pill = ""
    if verdict is not None:
        said = _VERDICTS[verdict.verdict]
        pill = f'<div class="pill {verdict.verdict}">{said}</div>'
    return f'<header><div><h1>{text(title)}</h1><div class="sub">{text(subtitle)}</div></div>{pill}</header>'


def figures(panels: Sequence[Panel], kspace: KSpace | None, seconds: Mapping[str, float]) -> str:
    """The few numbers one looks for first."""
    found: list[tuple[str, str, str]] = []
    if kspace is not None:
        s, count = kspace.sampling, len(kspace.data)
        found.append((f"{s.acceleration:.1f}", "x", f"{s.pattern} undersampling, {s.acs} ACS lines"))
        found.append(
            (f"{100 / s.effective_acceleration:.0f}", " %", f"of k-space measured in {count} phases")
        )
    last = panels[-1]
    if last.metrics is not None:
        found.append((f"{last.metrics.psnr:.1f}", " dB", f"PSNR of {last.name}"))
        found.append((f"{last.metrics.ssim:.3f}", "", f"SSIM of {last.name}"))
    if seconds:
        found.append((f"{sum(seconds.values()):.1f}", " s", "from raw data to DICOM, all slices"))
    cards = (
        f'<div class="figure"><b>{text(value)}<small>{text(unit)}</small></b><span>{text(said)}</span></div>'
        for value, unit, said in found
    )
    return f'<div class="figures">{"".join(cards)}</div>' if found else ""


def quality(panels: Sequence[Panel], metrics: Mapping[str, Metrics], said: str) -> str:
    """PSNR, SSIM and NMSE of every method; the best PSNR stands out."""
    if not metrics:
        return ""
    colours = {p.name: p.colour for p in panels}
    best = max(metrics, key=lambda name: metrics[name].psnr)
    rows = "".join(
        f"<tr{' class=best' if name == best else ''}>"
        f'<td><span class="key" style="--c:{colours.get(name, "#3a4757")}">{text(name)}</span></td>'
        f'<td class="n">{m.psnr:.2f}</td><td class="n">{m.ssim:.4f}</td><td class="n">{m.nmse:.5f}</td></tr>'
        for name, m in metrics.items()
    )
    return (
        f"<section><h2>Image quality<small>{text(said)}</small></h2><table><tr>"
        '<th>method</th><th class="n">PSNR (dB)</th><th class="n">SSIM</th><th class="n">NMSE</th></tr>'
        f"{rows}</table></section>"
    )


def volumes(
    panels: Sequence[Panel],
    curves: Mapping[str, NDArray[np.float64]],
    times_ms: tuple[float, ...] | None,
    said: str,
) -> str:
    """Left ventricular volume over the cycle."""
    if not curves:
        return ""
    colours = _curve_colours(panels, curves)
    count = len(next(iter(curves.values())))
    x = times_ms if times_ms is not None and len(times_ms) == count else tuple(map(float, range(count)))
    unit = "time after the R wave (ms)" if x is times_ms else "phase"
    chart = line_chart(x, curves, colours, x_label=unit, y_label="volume (ml)", dashed=frozenset({"Truth"}))
    legend = "".join(f'<span style="--c:{colours[name]}">{text(name)}</span>' for name in curves)
    return (
        f"<section><h2>Left ventricle<small>{text(said)}</small></h2>{chart}"
        f'<div class="legend">{legend}</div></section>'
    )


def function(panels: Sequence[Panel], curves: Mapping[str, NDArray[np.float64]]) -> str:
    """What a reader takes from the volume curves: end-diastole, end-systole, ejection fraction."""
    if not curves:
        return ""
    colours = _curve_colours(panels, curves)
    rows = "".join(
        f'<tr><td><span class="key" style="--c:{colours[name]}">{text(name)}</span></td>'
        f'<td class="n">{f.edv_ml:.0f}</td><td class="n">{f.esv_ml:.0f}</td>'
        f'<td class="n">{f.stroke_volume_ml:.0f}</td>'
        f'<td class="n">{f.ejection_fraction_percent:.1f}</td></tr>'
        for name, f in ((name, function_of(curve)) for name, curve in curves.items())
    )
    return (
        "<section><h2>Ventricular function<small>from the curves beside</small></h2><table>"
        '<tr><th>method</th><th class="n">EDV (ml)</th><th class="n">ESV (ml)</th><th class="n">SV (ml)</th>'
        f'<th class="n">EF (%)</th></tr>{rows}</table></section>'
    )


def _curve_colours(panels: Sequence[Panel], curves: Iterable[str]) -> dict[str, str]:
    colours = {p.name: p.colour for p in panels}
    return colours | {n: COLOURS[i % len(COLOURS)] for i, n in enumerate(curves) if n not in colours}


def prompts(both: Prompts | None) -> str:
    """Both sentences and where each word came from."""
    if both is None:
        return ""
    parts = "".join(_prompt(sentence) for sentence in (both.metadata, both.undersampling))
    title = "Prompts<small>what the network was told, and how it is known</small>"
    return f"<section><h2>{title}</h2>{parts}</section>"


def _prompt(sentence: Prompt) -> str:
    rows = "".join(
        f"<tr><td>{text(slot)}</td><td>{text(origin)}</td></tr>"
        for slot, origin in sentence.provenance.items()
    )
    return f'<p class="sentence">{text(sentence)}</p><table class="origin">{rows}</table>'


def mask(kspace: KSpace | None) -> str:
    """Where k-space was sampled: lines over time, or the first phase's points."""
    if kspace is None:
        return ""
    sampled = kspace.mask
    lines = bool(np.all(sampled == sampled.any(axis=2, keepdims=True)))
    shown: NDArray[np.bool_] = np.any(sampled, axis=2).T if lines else sampled[0]
    said = "phase encoding (down) by phase (right)" if lines else "first phase, phase encoding down"
    picture = np.where(shown[:, :, None], (76, 194, 255), (18, 25, 34)).astype(np.uint8)
    if lines:
        picture = np.repeat(picture, max(1, round(shown.shape[0] * 1.6 / shown.shape[1])), axis=1)
    found = f"{kspace.lines_found} lines found"
    found += f", the header announces {kspace.lines_expected}." if kspace.lines_expected else "."
    return (
        f"<section><h2>Sampling<small>{said}</small></h2>"
        f'<img class="pixels" alt="sampling mask" src="{pictures.still(picture)}">'
        f'<p class="hint">{kspace.sampling.pattern}, {kspace.sampling.acceleration:.1f}x outside the ACS, '
        f"{kspace.sampling.effective_acceleration:.1f}x in all. {found}</p></section>"
    )


def coil_maps(maps: CoilMaps | None) -> str:
    """First map set of every coil: brightness is magnitude, hue is phase."""
    if maps is None:
        return ""
    some = maps.data[0][:16]
    step = max(1, min(some.shape[1:]) // 128)
    tiles: list[pictures.Bytes | None] = [
        pictures.complex_colour(coil[::step, ::step], top=float(np.abs(some).max()) or 1.0) for coil in some
    ]
    across = math.ceil(math.sqrt(1.6 * len(tiles)))
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    shown = "" if len(some) == maps.data.shape[1] else f", {len(some)} of {maps.data.shape[1]} coils"
    return (
        f"<section><h2>Coil maps<small>{text(maps.method.upper())}{shown}: brightness is magnitude, colour "
        f'is phase</small></h2><img alt="coil sensitivity maps" '
        f'src="{pictures.still(pictures.mosaic(rows, gap=3))}"></section>'
    )


def trust(verdict: Verdict | None) -> str:
    """The verdict and its reasons."""
    if verdict is None:
        return ""
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in verdict.reasons)
    said = (
        f"<ul>{reasons}</ul>"
        if reasons
        else (
            '<p class="hint">Held-out measured lines, data consistency, coil maps and brightness are within '
            "their limits, and nothing about the scan is new to the network.</p>"
        )
    )
    return (
        f"<section><h2>Trust<small>{_VERDICTS[verdict.verdict].removeprefix('Trust: ')}, score "
        f'{verdict.score:.2f}</small></h2><div class="gauge {verdict.verdict}">'
        f'<i style="width:{100 * verdict.score:.0f}%"></i></div><p class="hint">The score is that of the '
        f"measure nearest to its limit: 1 far from it, 0 where images are withheld.</p>{said}</section>"
    )


def timing(seconds: Mapping[str, float]) -> str:
    """Wall time by stage."""
    if not seconds:
        return ""
    longest = max(*seconds.values(), 1e-9)
    rows = "".join(
        f'<tr><td>{text(stage)}</td><td><div class="bar" style="width:{100 * value / longest:.1f}%"></div>'
        f'</td><td class="n">{value:.2f} s</td></tr>'
        for stage, value in seconds.items()
    )
    said = f"{sum(seconds.values()):.1f} s in all"
    return f'<section><h2>Time by stage<small>{said}</small></h2><table class="bars">{rows}</table></section>'


def scan(kspace: KSpace | None, facts: Mapping[str, str]) -> str:
    """What is known of the scan; nothing about the patient."""
    rows = dict(_scan_facts(kspace)) if kspace is not None else {}
    rows |= facts
    if not rows:
        return ""
    lines = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in rows.items())
    notes = "".join(f"<li>{text(note)}</li>" for note in (kspace.notes if kspace is not None else ()))
    listed = f"<ul>{notes}</ul>" if notes else ""
    return f'<section><h2>Scan</h2><table class="origin wide">{lines}</table>{listed}</section>'


def _scan_facts(kspace: KSpace) -> list[tuple[str, str]]:
    h, (phases, coils, ky, kx) = kspace.header, kspace.data.shape
    fov = kspace.geometry.fov_mm
    found = [
        ("scanner", " ".join(filter(None, (h.vendor, h.model))) or None),
        ("field strength", h.field_strength_t and f"{h.field_strength_t:g} T"),
        ("protocol", h.protocol),
        ("matrix", f"{ky} x {kx}, {coils} coils, {phases} phases"),
        ("field of view", f"{fov[1]:.0f} x {fov[0]:.0f} x {fov[2]:.0f} mm"),
        ("RR interval", kspace.rr_interval_ms and f"{kspace.rr_interval_ms:.0f} ms"),
    ]
    return [(name, str(value)) for name, value in found if value]


def foot(said: str) -> str:
    """The last line."""
    return f"<footer>{text(said)}</footer>" if said else ""
