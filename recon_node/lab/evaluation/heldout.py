"""Methods side by side on simulated hearts that no network was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.scan import SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Prompts
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.lab.evaluation.studies import Result
from recon_node.methods.registry import make_methods
from recon_node.methods.table import BUILT_IN
from recon_node.pipeline.stages import calibrate
from recon_node.prep import classify_sampling
from recon_node.prompts import embed, metadata_prompt, undersampling_prompt
from recon_node.settings import ReconSettings
from recon_node.simulate import Example, draw_example, draw_mask
from recon_node.simulate.example import FullScan

SALT = (0x48454C44, 0x4F5554)
"""Keeps these hearts apart from those of every training run, whatever its seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is compared on what."""

    methods: tuple[str, ...] = tuple(BUILT_IN)
    patterns: tuple[str, ...] = ("random", "uniform")
    accelerations: tuple[float, ...] = (4, 8, 16)
    scans: int = 8
    """Hearts for each condition; the same ones in every condition."""
    phases: int = 25
    matrix: int = 128
    coils: int = 8
    acs: int = 20
    modality: str = "cine"
    vendor: str | None = None
    field_t: float | None = None
    breathing_mm: float | None = None
    """Amplitude of the breathing; None draws what a breath-hold leaves over."""
    arrhythmia: float | None = None
    """Beat jitter as a fraction of the RR interval; None draws it, mostly none."""
    heart: str = "plain"
    """``plain``, or ``detailed``: as hard as real ones (`recon_node.simulate.detail`)."""
    seed: int = 0

    @property
    def conditions(self) -> int:
        """Number of conditions."""
        return len(self.patterns) * len(self.accelerations)

    @property
    def total(self) -> int:
        """Number of results."""
        return len(self.methods) * self.conditions * self.scans


def kspace_of(example: FullScan, mask: NDArray[np.bool_], *, acs: int) -> KSpace:
    """The k-space a scan of `example` with this mask would give.

    Parameters
    ----------
    example : FullScan
        A drawn or a real heart.
    mask : ndarray
        `(phase, ky, kx)` bool.
    acs : int
        Side of the calibration block taken from the centre, averaged over the phases.
    """
    data = example.kspace * mask[:, None]
    ky, kx = mask.shape[1:]
    side = min(acs, ky, kx)
    y, x = ky // 2 - side // 2, kx // 2 - side // 2
    header = example.header
    geometry = SliceGeometry(
        position_mm=(0.0, 0.0, 0.0),
        read_dir=(1.0, 0.0, 0.0),
        phase_dir=(0.0, 1.0, 0.0),
        slice_dir=(0.0, 0.0, 1.0),
        fov_mm=header.recon_fov_mm,
        known=False,
    )
    return KSpace(
        data=data.astype(np.complex64),
        mask=mask,
        header=header,
        index=SliceIndex(),
        geometry=geometry,
        sampling=classify_sampling(mask),
        calibration=data[:, :, y : y + side, x : x + side].mean(axis=0).astype(np.complex64),
        trigger_times_ms=example.trigger_times_ms,
        rr_interval_ms=example.rr_interval_ms,
        lines_found=int(mask.any(axis=2).sum()),
        lines_expected=int(mask.any(axis=2).sum()),
        whitened=True,
    )


def run_study(
    study: Study, recon: ReconSettings, *, report: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Reconstruct every heart under every condition with every method.

    Metrics compare magnitudes in the k-space's own unit, so no method is helped by rescaling.

    Raises
    ------
    ConfigError, WeightsError
        As the simulator, the masks and the weights raise them.
    """
    results = []
    for result in _results(study, recon):
        results.append(result)
        report(result)
    return results


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One heart under one condition, ready to be reconstructed."""

    scan: str
    condition: str
    """For example ``random 8x``."""
    truth: NDArray[np.complex64]
    """`(phase, y, x)` complex64."""
    kspace: KSpace
    maps: CoilMaps
    prompts: Prompts


def cases(study: Study) -> Iterator[Case]:
    """Every heart of a study under each of its conditions."""
    for scan in range(study.scans):
        example = draw_example(
            np.random.default_rng([*SALT, study.seed, scan]),
            matrix=(study.matrix, study.matrix),
            phases=study.phases,
            coils=study.coils,
            modality=study.modality,
            vendor=study.vendor,
            field_t=study.field_t,
            breathing_mm=study.breathing_mm,
            arrhythmia=study.arrhythmia,
            heart=study.heart,
        )
        for pattern in study.patterns:
            for acceleration in study.accelerations:
                yield _case(study, example, scan, pattern, acceleration)


def _case(study: Study, example: Example, scan: int, pattern: str, acceleration: float) -> Case:
    rng = np.random.default_rng([*SALT, study.seed, scan, 1])
    shape = (example.kspace.shape[0], study.matrix, study.matrix)
    mask = draw_mask(pattern, acceleration, shape=shape, acs=study.acs, rng=rng)
    kspace = kspace_of(example, mask, acs=study.acs)
    return Case(
        scan=str(scan),
        condition=f"{pattern} {acceleration:g}x",
        truth=example.images,
        kspace=kspace,
        maps=calibrate(kspace),
        prompts=Prompts(
            metadata=metadata_prompt(kspace.header, overrides=example.metadata),
            undersampling=undersampling_prompt(kspace.sampling),
        ),
    )


def _results(study: Study, recon: ReconSettings) -> Iterator[Result]:
    made = {name: make_methods(dataclasses.replace(recon, method=name)) for name in study.methods}
    for case in cases(study):
        for name, methods in made.items():
            text = None if methods.encoder is None else embed(case.prompts, methods.encoder)
            images = methods.chosen.reconstruct(case.kspace, case.maps, text).data
            yield Result(
                scan=case.scan,
                condition=case.condition,
                method=name,
                metrics=series_metrics(images, case.truth, normalise=False),
            )
