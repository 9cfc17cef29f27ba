"""Cases without recorded numbers: the network against `benchmarks.reference`, item by item.

    python -m benchmarks.golden_cases [--paper]

The reference itself is held to the recorded outputs first. Then: other slopes and negative consistency weights,
odd sizes and padding, both calibration rules, the automatic calibration width, batches of two with different
texts, depth. `--paper` adds the published widths and depth (a minute or two).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.golden import (
    KEPT,
    SMALL,
    SMALL_SENSITIVITY,
    Row,
    checkpoint,
    config_of,
    relative,
    show,
    to_complex,
)
from benchmarks.reference import Reference
from recon_node.model import CardioMMConfig, import_published

SMALL_CONFIG = dataclasses.replace(
    CardioMMConfig.published(), cascades=2, unet=SMALL, sensitivity=SMALL_SENSITIVITY
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison; `mask` is lines, points or radial-like."""

    name: str
    config: CardioMMConfig = SMALL_CONFIG
    weights: str = "strong"
    items: int = 1
    shape: tuple[int, int] = (24, 32)
    coils: int = 3
    mask: str = "lines"
    acs: int = 8
    rule: str = "columns"
    given_maps: bool = False


DEEP = dataclasses.replace(SMALL_CONFIG, cascades=10)
CASES = (
    Case(name="lines"),
    Case(name="other slopes, negative weights", weights="slopes"),
    Case(name="first weight set", weights="brief"),
    Case(name="odd sizes, padded", shape=(21, 27)),
    Case(name="odd calibration width", shape=(24, 29), acs=7),
    Case(name="square calibration", mask="points", rule="square", shape=(30, 26)),
    Case(name="square calibration, odd", mask="points", rule="square", shape=(25, 31), acs=9),
    Case(name="points, columns rule", mask="points", shape=(24, 23)),
    Case(name="automatic calibration", acs=0, shape=(24, 33)),
    Case(name="two items, two texts", items=2),
    Case(name="two items, automatic", items=2, acs=0, shape=(19, 32), weights="slopes"),
    Case(name="two items, square", items=2, mask="points", rule="square", shape=(27, 24)),
    Case(name="maps given", items=2, given_maps=True),
    Case(name="ten cascades, padded", config=DEEP, shape=(27, 22)),
)
PAPER = Case(
    name="paper widths and depth, padded", config=CardioMMConfig.published(), shape=(30, 37), coils=2, acs=12
)


def inputs(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """K-space, mask and text features of a case, float64 precision; every item differs in all of them."""
    rng = np.random.default_rng(seed)
    rows, columns = case.shape
    width = case.acs or 6
    mask = np.zeros((case.items, rows, columns), bool)
    for item in range(case.items):
        if case.mask == "lines":
            mask[item] = rng.random(columns) < 0.3
            left = (columns - width + 1) // 2 - item
            mask[item, :, left : left + width + 2 * item] = True
            mask[item, :, [0, -1]] = False
        else:
            mask[item] = rng.random((rows, columns)) < 0.4
    shape = (case.items, case.coils, rows, columns)
    decay = 1 / (1 + np.hypot(*np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]) * 8)
    kspace = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * decay
    maps = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return {
        "kspace": (kspace * mask[:, None]).astype(np.complex64),
        "mask": mask,
        "meta": rng.standard_normal((case.items, case.config.text_features)).astype(np.float32),
        "us": rng.standard_normal((case.items, case.config.text_features)).astype(np.float32),
        "maps": (maps / np.linalg.norm(maps, axis=1, keepdims=True)).astype(np.complex64),
    }


def compare(case: Case) -> Iterator[Row]:
    """Relative error of the network in float32 and in float64, of the worst item."""
    state, data = checkpoint(case.config, case.weights), inputs(case)
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"state_dict": state}, Path(folder) / "net.ckpt")
        net = import_published(Path(folder) / "net.ckpt")
    reference = Reference(state)
    wanted = [
        reference(
            *(data[name][item] for name in ("kspace", "mask", "meta", "us")),
            acs=case.acs,
            rule=case.rule,
            maps=data["maps"][item] if case.given_maps else None,
        )
        for item in range(case.items)
    ]
    limit = 2e-6 if case.config.cascades <= 2 else 1e-5
    for kind, most in ((torch.complex64, limit), (torch.complex128, 1e-12)):
        net = net.double() if kind is torch.complex128 else net
        arrays = {name: torch.from_numpy(value) for name, value in data.items()}
        found = net(
            arrays["kspace"].to(kind),
            arrays["mask"],
            arrays["meta"],
            arrays["us"],
            acs=case.acs,
            acs_rule=case.rule,
            maps=arrays["maps"].to(kind) if case.given_maps else None,
        )
        error = max(relative(one, other) for one, other in zip(found, wanted, strict=True))
        yield Row(case.name, str(found.dtype).removeprefix("torch."), error, most)


def anchor(path: Path) -> Row:
    """Error of the reference itself against a recorded float64 output."""
    golden = np.load(path)
    config = config_of(json.loads(str(golden["config"])))
    kspace = to_complex(golden["masked_kspace"][0])
    made = Reference(checkpoint(config, "strong"))(
        kspace,
        np.broadcast_to(golden["mask"][0, 0, :, :, 0], kspace.shape[1:]),
        golden["text_meta"][0],
        golden["text_us"][0],
        acs=int(golden["num_low_frequencies"]),
    )
    return Row(
        f"reference, {path.stem}", "float64", relative(torch.from_numpy(made), golden["output_f64"][0]), 1e-12
    )


def rows(*, paper: bool) -> Iterator[Row]:
    """The reference against recorded outputs, then every case."""
    for name in ("A_strong", "B_strong"):
        yield anchor(KEPT / f"{name}.npz")
    for case in (*CASES, PAPER) if paper else CASES:
        yield from compare(case)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(show(rows(paper="--paper" in sys.argv)))
