"""The methods of the studies, what their measurements depend on, and the tuning of the classical ones."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import plain_unet
from benchmarks.study_scans import Scan, code_hash
from benchmarks.study_store import Store
from recon_node.lab.evaluation import bart
from recon_node.lab.evaluation.heldout import Case
from recon_node.lab.evaluation.metrics import Metrics, series_metrics
from recon_node.lab.evaluation.studies import Result
from recon_node.methods.kt import KtSparse
from recon_node.methods.registry import make_methods
from recon_node.prompts import embed
from recon_node.settings import ReconSettings
from recon_node.solvers.kt import KtConfig

Images = NDArray[np.complex64]
Settings = Mapping[str, float]


@dataclass(frozen=True)
class Rival:
    """One method."""

    name: str
    run: Callable[[Case, Settings], Images]
    depends: Mapping[str, Any]
    """What decides its images beside the scan and its settings."""
    start: Settings = field(default_factory=dict)
    """Settings that tuning begins with."""
    grid: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Values to choose from, by setting."""
    every: int = 1
    """A method that takes frames one by one is tuned on every n-th."""


def measure(store: Store, scan: Scan, rival: Rival, settings: Settings) -> Result:
    """The metrics of a method on a scan, from the store where they are known."""

    def make() -> dict[str, Any]:
        begun = time.monotonic()
        images = rival.run(scan.case, settings)
        seconds = time.monotonic() - begun
        metrics = series_metrics(images, scan.case.truth, normalise=False)
        return {**asdict(metrics), "seconds": round(seconds, 3)}

    identity = {
        "scan": scan.identity,
        "method": dict(rival.depends),
        "settings": dict(settings),
        "metrics": code_hash(series_metrics.__module__),
    }
    known = store.get(identity, make)
    metrics = Metrics(psnr=known["psnr"], ssim=known["ssim"], nmse=known["nmse"])
    return Result(scan=str(scan.seed), condition=scan.condition, method=rival.name, metrics=metrics)


def tuned(store: Store, scans: Sequence[Scan], rival: Rival) -> Settings:
    """Settings with the best mean PSNR on these scans: setting by setting, until none changes any more."""
    best = dict(rival.start)
    fewer = [replace(scan, every=rival.every) for scan in scans]

    def mean(settings: Settings) -> float:
        return float(np.mean([measure(store, scan, rival, settings).metrics.psnr for scan in fewer]))

    while True:
        before = dict(best)
        for name, values in rival.grid.items():
            best[name] = max(values, key=lambda value: mean({**best, name: value}))
        if best == before:
            return best


def of_node(name: str, *, weights: str = "default", shown: str | None = None) -> Rival:
    """A method as the node runs it."""
    methods = make_methods(ReconSettings(method=name, weights=weights, device="cpu"), limits=False)
    depends = {"name": name, "code": code_hash(type(methods.chosen).__module__)}
    if methods.weights is not None:
        depends |= {"weights": methods.weights.sha256, "prompts": code_hash("recon_node.prompts")}

    def run(case: Case, _: Settings) -> Images:
        text = None if methods.encoder is None else embed(case.prompts, methods.encoder)
        return methods.chosen.reconstruct(case.kspace, case.maps, text).data

    return Rival(shown or name, run, depends)


def plain_unet_of(file: Path) -> Rival:
    """The UNet that `benchmarks.plain_unet` trained."""
    net = plain_unet.load(file)
    depends = {"name": "unet", "weights": hashlib.sha256(file.read_bytes()).hexdigest()}
    depends["code"] = hashlib.sha256(inspect.getsource(plain_unet).encode()).hexdigest()[:16]
    return Rival("plain UNet", lambda case, _: plain_unet.reconstruct(net, case), depends)


def kt_tuned() -> Rival:
    """k-t sparse SENSE as published (no pull towards zero in air), with settings chosen for each condition."""

    def run(case: Case, settings: Settings) -> Images:
        iterations = int(settings["iterations"])
        config = KtConfig(
            temporal=settings["temporal"],
            spatial=settings["spatial"],
            iterations=iterations,
            static_temporal=settings["temporal"],
            static_spatial=settings["spatial"],
            static_iterations=iterations,
            unfolding_iterations=iterations,
            air=0,
        )
        return KtSparse(config, device="cpu").reconstruct(case.kspace, case.maps).data

    grid = {
        "temporal": (0.03, 0.06, 0.12, 0.2, 0.3, 0.5, 0.8),
        "spatial": (0.005, 0.01, 0.02, 0.03, 0.05, 0.08),
        "iterations": (35, 70, 140, 280),
    }
    start = {"temporal": 0.3, "spatial": 0.03, "iterations": 70}
    return Rival("kt tuned", run, {"name": "kt", "code": code_hash(KtSparse.__module__)}, start, grid)


def bart_wavelet() -> Rival:
    """BART's L1-wavelet (``pics -R W``), with weight and iterations chosen for each condition."""

    def run(case: Case, settings: Settings) -> Images:
        weight = f"W:3:0:{settings['regularisation']:g}"
        iterations = str(int(settings["iterations"]))
        return bart.pics(case.kspace, case.maps, "-S", "-e", "-i", iterations, "-R", weight)

    grid = {"regularisation": (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01), "iterations": (50, 100, 200)}
    start = {"regularisation": 0.002, "iterations": 100}
    return Rival("BART L1-wavelet", run, {"name": "bart", "version": bart.version()}, start, grid, every=4)


def bart_kt() -> Rival:
    """BART's total variation over time and space, with both weights chosen for each condition."""

    def run(case: Case, settings: Settings) -> Images:
        temporal, spatial = settings["temporal"], settings["spatial"]
        method = bart.BartKt(
            temporal=temporal, spatial=spatial, static_temporal=temporal, static_spatial=spatial
        )
        return method.images(case.kspace, case.maps)

    grid = {"spatial": (0.01, 0.03, 0.1), "temporal": (0.1, 0.3, 0.6)}
    start = {"temporal": 0.3, "spatial": 0.03}
    usual = bart.BartKt()
    iterations = f"{usual.iterations} {usual.static_iterations}"
    depends = {"name": "bart kt", "version": bart.version(), "iterations": iterations}
    return Rival("BART k-t TV", run, depends, start, grid)
