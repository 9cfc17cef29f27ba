"""How hard a drawn heart is beside real ones: the same methods on all, PSNR in the heart and in the whole image.

python -m benchmarks.hardness --hearts FOLDER --only SCD4 --scans 2
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from recon_node.lab.cines import read_cines
from recon_node.lab.demo.run import SCAN
from recon_node.lab.evaluation.hearts import (
    HeartCase,
    HeartResult,
    HeartStudy,
    few,
    heart_cases,
    scan_cases,
)
from recon_node.lab.evaluation.hearts_report import heart_table
from recon_node.lab.evaluation.hearts_run import judged_by_methods
from recon_node.lab.evaluation.heldout import SALT
from recon_node.settings import ReconSettings
from recon_node.simulate import Example, ScanDescription, draw_example
from recon_node.simulate.detail import HEARTS

CONDITIONS = (("uniform", 8.0), ("random", 16.0), ("radial", 16.0))
SIDE_MM = 96.0
"""Of the part around a drawn heart: about as large as the 64 x 64 pixels around real ones."""


def drawn_cases(study: HeartStudy, kind: str, count: int) -> Iterator[HeartCase]:
    """Drawn hearts of one kind: detailed ones as the demo's are, plain ones as `simulate` draws them."""
    one = SCAN if kind == SCAN.heart else ScanDescription(matrix=SCAN.matrix, phases=SCAN.phases)
    for number, level in enumerate(np.linspace(0.3, 0.6, count)):
        entropy = (*SALT, study.seed, number)
        scan = draw_example(
            np.random.default_rng(entropy),
            heart=kind,
            matrix=(one.matrix, one.matrix),
            phases=one.phases,
            coils=one.coils,
            vendor=one.vendor,
            field_t=one.field,
            modality="cine",
            view="short-axis",
            lifespan="Adult",
            level=float(level),
            breathing_mm=one.breathing_mm,
            arrhythmia=one.arrhythmia,
            infarct=False,
        )
        for case in scan_cases(scan, study, name=f"{kind} {number}", entropy=entropy):
            yield replace(case, window=around(scan))


def around(scan: Example) -> tuple[slice, slice]:
    """Rows and columns of `SIDE_MM` around the ventricles."""
    centre = scan.heart_centre()
    assert centre is not None
    halves = [round(SIDE_MM / pixel / 2) for pixel in scan.pixel_mm]
    rows, columns = (slice(max(at - half, 0), at + half) for at, half in zip(centre, halves, strict=True))
    return rows, columns


def told(result: HeartResult) -> None:
    """One line for each result."""
    name = f"{result.heart}, {result.condition}, {result.method}"
    print(f"{name}: {result.within.psnr:.1f} / {result.whole.psnr:.1f} dB", flush=True)


def main() -> None:
    """Print a table as the README has it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hearts", type=Path, help="folder of real hearts: npz, DICOM or NIfTI")
    parser.add_argument("--only", action="append", default=[], help="clips with this in their name")
    parser.add_argument("--scans", type=int, default=2, help="hearts of each kind")
    parser.add_argument("--methods", nargs="+", default=["sense", "kt"])
    given = parser.parse_args()
    cines = () if given.hearts is None else few(read_cines(given.hearts, only=given.only), given.scans)
    study = HeartStudy(cines=cines, methods=tuple(given.methods), conditions=CONDITIONS)
    groups = {f"drawn, {kind}": drawn_cases(study, kind, given.scans) for kind in HEARTS}
    if cines:
        groups["real"] = heart_cases(study)
    print("PSNR, dB: in the heart / in the whole image\n")
    rows = [
        f"| hearts | condition | {' | '.join(given.methods)} |",
        "|---|---" + "|---" * len(given.methods) + "|",
    ]
    for label, cases in groups.items():
        results = judged_by_methods(cases, study.methods, ReconSettings(), report=told)
        table = heart_table(results)
        for condition in dict.fromkeys(row.condition for row in table):
            found = [row for row in table if row.condition == condition]
            cells = [f"{row.heart_psnr:.1f} / {row.whole_psnr:.1f}" for row in found]
            rows.append(f"| {found[0].hearts} {label} | {condition} | {' | '.join(cells)} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
