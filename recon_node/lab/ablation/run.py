"""Trains the networks of a plan and measures each one; what is done is never done again."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.lab.ablation.cases import Case, cases_of
from recon_node.lab.ablation.plan import Arm, Network, Plan, networks, planned, training_of
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.lab.evaluation.records import Record, add_records, read_records
from recon_node.lab.training.config import TrainConfig
from recon_node.lab.training.example import Example
from recon_node.lab.training.loop import Progress, Run
from recon_node.lab.training.text import NOTHING_KNOWN, TextFeatures
from recon_node.model import load_weights
from recon_node.model.consistency import centred_ifft
from recon_node.prompts.undersampling import undersampling_sentence
from recon_node.simulate.cine import Cine

RESULTS = "results.jsonl"
"""A line for each network."""
TELLS: Mapping[Arm, tuple[str, ...]] = {
    "none": ("right",),
    "undersampling": ("right",),
    "metadata": ("right",),
    "both": ("right", "missing", "wrong"),
    "shuffled": ("wrong",),
}
"""What each arm's network is told when it is measured; the first is what it was trained with."""
UNKNOWN = undersampling_sentence(acceleration="unknown", pattern="unknown")


def run(
    plan: Plan,
    folder: Path,
    *,
    cines: Sequence[Cine] = (),
    minutes: float | None = None,
    report: Callable[[str, float], None] = lambda said, fraction: None,
) -> list[Record]:
    """Train and measure every network of a plan, going on where an earlier run stopped.

    Parameters
    ----------
    plan : Plan
        What is trained on what.
    folder : Path
        Made if missing; holds the plan, the networks, prepared examples and `RESULTS`.
    cines : sequence of Cine
        Real hearts to measure on; no network of a plan is trained on real ones.
    minutes : float, optional
        After which no new network is begun; the next run goes on.
    report : callable
        Gets a network's name and how much of it is done (0 to 1).

    Returns
    -------
    list of dict
        A record for each network that is done: what it is, and its ``results``, one for each test case and
        kind of text.

    Raises
    ------
    ConfigError
        The folder is of another plan.
    DataError
        Its results are something else.
    """
    planned(plan, folder)
    path = folder / RESULTS
    done = {record["key"]: record for record in read_records(path, "network of an ablation")}
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    wanted = list(networks(plan))
    for network in wanted:
        if network.key not in done and time.monotonic() <= end:
            training = training_of(plan, network, folder)
            weights = Run(training).train(partial(_report, report, network.key))
            cases = list(cases_of(plan, training, network.contrast, cines))
            done[network.key] = {
                "key": network.key,
                **dataclasses.asdict(network),
                "results": measure(network, weights, training, cases),
            }
            add_records(path, [done[network.key]])
        if network.key in done:
            report(network.key, 1.0)
    return [done[network.key] for network in wanted if network.key in done]


def _report(report: Callable[[str, float], None], name: str, now: Progress) -> None:
    report(name, now.fraction)


def measure(network: Network, weights: Path, training: TrainConfig, cases: Sequence[Case]) -> list[Record]:
    """A trained network on every case, told what its arm is told (`TELLS`).

    `first` is the estimate that it starts from.
    """
    loaded = load_weights(weights)
    texts = TextFeatures(training.text, loaded.config)
    results: list[Record] = []
    for place, case in enumerate(cases):
        example = case.example
        others = [one.example for one in (*cases[place + 1 :], *cases[:place]) if one.source == case.source]
        told = _told(example, others)
        for said in TELLS[network.arm]:
            if said in told:
                images = _images(loaded.net.eval(), told[said], texts)
                results.append({"text": said, **_result(case, images)})
        results.append({"text": "first", **_result(case, _first(example))})
    return results


def _told(example: Example, others: Sequence[Example]) -> Mapping[str, Example]:
    """The example with each kind of text; wrong ones differ from the right ones in both sentences."""
    found = {
        "right": example,
        "missing": dataclasses.replace(example, metadata=NOTHING_KNOWN, undersampling=UNKNOWN),
    }
    for one in others:
        if one.metadata != example.metadata and one.undersampling != example.undersampling:
            wrong = dataclasses.replace(example, metadata=one.metadata, undersampling=one.undersampling)
            return {**found, "wrong": wrong}
    return found


@torch.no_grad()
def _images(net: Any, example: Example, texts: TextFeatures) -> Tensor:
    metadata, undersampling = texts.features(example, drop=False)
    made: Tensor = net(
        example.kspace[None],
        example.mask[None],
        metadata[None],
        undersampling[None],
        maps=example.maps[None],
        first=None if example.first is None else example.first[None],
        motion=None if example.motion is None else example.motion[None],
        periodic=example.periodic,
    )
    return made[0].abs().float()


def _first(example: Example) -> Tensor:
    if example.first is not None:
        return example.first.abs()
    return (centred_ifft(example.kspace) * example.maps.conj()).sum(dim=1).abs()


def _result(case: Case, images: Tensor) -> Record:
    example = case.example
    made, truth = images.numpy().astype(np.float64), example.target.numpy()
    found: Record = {"case": case.name, "source": case.source, "whole": _quality(made, truth)}
    if example.heart is not None:
        top, bottom, left, right = (int(edge) for edge in example.heart)
        part = np.s_[:, top:bottom, left:right]
        found["heart"] = _quality(made[part], truth[part])
    return found


def _quality(made: NDArray[np.float64], truth: NDArray[np.float32]) -> dict[str, float]:
    found = series_metrics(made, truth, normalise=False)
    return {"psnr": found.psnr, "ssim": found.ssim}
