"""Every case by the network, told each kind of metadata, and by a method that never learned anything."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError
from recon_node.core.types import CoilMaps, KSpace, Prompts, TextEmbedding
from recon_node.lab.evaluation.heldout import SALT, kspace_of
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.lab.evaluation.records import Record, add_records, read_records
from recon_node.lab.zero_shot.cases import METADATA, Case, scan_of, told
from recon_node.methods.asked_again import AskedAgain
from recon_node.methods.registry import Methods, make_methods
from recon_node.pipeline.stages import calibrate
from recon_node.prompts import embed, metadata_prompt, undersampling_prompt
from recon_node.settings import ReconSettings
from recon_node.simulate import draw_mask
from recon_node.simulate.cine import scan_window
from recon_node.simulate.example import FullScan
from recon_node.trust import judge_measures, measure

RECORDS = "cases.jsonl"
YARDSTICK = "kt"
"""Learned nothing: what it loses on a scanner says how much harder the scans of it are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotStudy:
    """What is compared on which scans."""

    cases: tuple[Case, ...]
    pattern: str = "random"
    acceleration: float = 8
    phases: int = 12
    matrix: int = 96
    coils: int = 8
    acs: int = 20
    size: int | None = None
    """Pixels a side around a real heart; None for the whole field of view."""
    trust: bool = True
    """Whether every image is judged as well."""
    seed: int = 0

    @property
    def total(self) -> int:
        """Number of reconstructions that are measured."""
        return len(self.cases) * (1 + len(METADATA))


def run(
    study: ZeroShotStudy,
    recon: ReconSettings,
    folder: Path,
    *,
    minutes: float | None = None,
    report: Callable[[str], None] = lambda said: None,
) -> list[Record]:
    """Do what is left of a study, a line for each case in ``folder/cases.jsonl``.

    Parameters
    ----------
    study : ZeroShotStudy
        What is compared.
    recon : ReconSettings
        Its method is the network.
    folder : Path
        Made if missing.
    minutes : float, optional
        After which no new case is begun; the next run goes on.
    report : callable
        Gets a line for each case.

    Raises
    ------
    ConfigError
        The method is no network that is told a text.
    WeightsError, DataError
        As the weights and the methods raise them.
    """
    network = make_methods(recon)
    if network.encoder is None:
        raise ConfigError(
            f"zero-shot: method {recon.method} reads no text: choose a network, for example cardiomm"
        )
    yardstick = make_methods(dataclasses.replace(recon, method=YARDSTICK))
    weights = "" if network.weights is None else network.weights.sha256[:12]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECORDS
    done = {one["key"]: one for one in read_records(path, "case of a zero-shot study")}
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    wanted = []
    for case in study.cases:
        settings = dataclasses.asdict(dataclasses.replace(study, cases=()))
        key = f"{case.source}|{case.name}|{weights}|{settings}"
        wanted.append(key)
        if key not in done and time.monotonic() <= end:
            done[key] = {"key": key, **_record(study, case, network, yardstick)}
            add_records(path, [done[key]])
        if key in done:
            report(case.name)
    return [done[key] for key in wanted if key in done]


def _record(study: ZeroShotStudy, case: Case, network: Methods, yardstick: Methods) -> Record:
    scan = scan_of(
        case,
        seed=study.seed,
        phases=study.phases,
        matrix=study.matrix,
        coils=study.coils,
        size=study.size,
    )
    entropy = [*SALT, study.seed, crc32(case.name.encode()), 1]
    rng = np.random.default_rng(entropy)
    shape = (len(scan.kspace), *scan.kspace.shape[-2:])
    mask = draw_mask(study.pattern, study.acceleration, shape=shape, acs=study.acs, rng=rng)
    kspace = kspace_of(scan, mask, acs=study.acs)
    maps = calibrate(kspace)
    found: Record = {
        "source": case.source,
        "group": case.group,
        "name": case.name,
        "unseen": case.unseen,
        "condition": f"{study.pattern} {study.acceleration:g}x",
        YARDSTICK: _quality(yardstick.chosen.reconstruct(kspace, maps, None).data, scan),
    }
    for kind in METADATA:
        prompts = Prompts(
            metadata=metadata_prompt(kspace.header, overrides=told(scan.metadata, kind, rng)),
            undersampling=undersampling_prompt(kspace.sampling),
        )
        found[kind] = _told(study, network, kspace, maps, prompts, scan)
    return found


def _told(
    study: ZeroShotStudy,
    network: Methods,
    kspace: KSpace,
    maps: CoilMaps,
    prompts: Prompts,
    scan: FullScan,
) -> Record:
    """Quality and verdict of the network's images with these prompts."""
    text: TextEmbedding | None = None if network.encoder is None else embed(prompts, network.encoder)

    images = network.chosen.reconstruct(kspace, maps, text)
    found = _quality(images.data, scan)
    if study.trust:
        measures = measure(
            kspace,
            maps,
            images,
            reconstruct=AskedAgain(method=network.chosen, maps=maps, text=text, images=images),
            reference=AskedAgain(method=network.fallback, maps=maps),
        )
        verdict = judge_measures(measures, kspace, maps, images, prompts=prompts, standards=network.standards)
        found |= {"verdict": verdict.verdict, "reasons": list(verdict.reasons)}
    return found


def _quality(images: NDArray[np.complex64], scan: FullScan) -> dict[str, Any]:
    rows, columns = scan_window(scan)
    part = np.s_[:, rows, columns]
    heart = series_metrics(images[part], scan.images[part], normalise=False)
    whole = series_metrics(images, scan.images, normalise=False)
    return {
        "heart_psnr": heart.psnr,
        "heart_ssim": heart.ssim,
        "whole_psnr": whole.psnr,
        "whole_ssim": whole.ssim,
    }
