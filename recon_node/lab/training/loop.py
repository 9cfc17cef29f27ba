"""The training loop: one process, or several under `torchrun`; resumes exactly after any kill."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from recon_node.core import durable
from recon_node.core.errors import ConfigError, ModelError
from recon_node.lab.training.checkpoint import load_checkpoint, save_checkpoint
from recon_node.lab.training.config import TrainConfig
from recon_node.lab.training.data import ExampleSet, stream
from recon_node.lab.training.example import Example
from recon_node.lab.training.export import export_weights
from recon_node.lab.training.lasts import Lasts
from recon_node.lab.training.loss import ssim, weighted_loss
from recon_node.lab.training.schedule import MovingAverage, rate_factor
from recon_node.lab.training.sources import clip_source
from recon_node.lab.training.text import TextFeatures
from recon_node.model import CardioMM

DEPTHS: dict[tuple[str, ...], int] = {("last",): 1, ("last-two",): 2}
"""Cascades that are trained on a few frames at a time, by `parts`."""
Report = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a run tells while it goes on."""

    step: int
    fraction: float
    """0 to 1."""
    loss: float
    validation: dict[str, float] | None = None
    """psnr (dB) and ssim of the moving average, where it was just measured."""


class Run:
    """One training run in its folder: checkpoint, CSV log, weights."""

    def __init__(self, config: TrainConfig, *, device: str = "cpu") -> None:
        self.config = config
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.world > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self.device = torch.device(device)
        self.folder = Path(config.run.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.run.seed)
        self.text = TextFeatures(config.text, config.model)
        self.net = self.network().to(self.device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = MovingAverage(self.net, config.optim.ema)
        depth = DEPTHS.get(config.optim.parts, 0)
        _freeze(self.net, config.optim.parts)
        self.optimizer = torch.optim.AdamW(
            [weights for weights in self.net.parameters() if weights.requires_grad],
            lr=config.optim.lr,
            weight_decay=config.optim.weight_decay,
        )
        self.model: nn.Module = DistributedDataParallel(self.net) if self.world > 1 else self.net
        self.source = clip_source(config.data)
        self.held_out = clip_source(config.data, validating=True)
        self.lasts = None
        if depth:
            self.lasts = Lasts(self._numbered("training"), self.text, self.device, depth=depth)
        self.step, self.elapsed = 0, 0.0
        self.fingerprint = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode()).hexdigest()
        self._restore()

    def network(self) -> nn.Module:
        """The network, called like `CardioMM`; another kind overrides this, `start_of` and `export`."""
        return self.text.initialised(CardioMM(self.config.model), self.config.run.init)

    def start_of(self, example: Example) -> Tensor | None:
        """`(frame, row, column)` images that the network starts from, which the relative loss counts from."""
        return example.first

    def export(self) -> None:
        """Write the moving average's weights into the run's folder."""
        export_weights(self.folder, self.config, self.average.state, self.text, step=self.step)

    @property
    def fraction(self) -> float:
        """How much of the run is over: by time where a limit is set, by steps otherwise."""
        limit = self.config.run.minutes
        if limit is not None:
            return min(1.0, self.elapsed / (60 * limit))
        return min(1.0, self.step / self.config.optim.steps)

    def train(self, report: Report = lambda progress: None) -> Path:
        """Train to the end and return the file of the weights.

        Raises
        ------
        ModelError
            The loss is no longer finite: the last checkpoint stays as it was.
        """
        examples = self._examples()
        while self.fraction < 1:
            start = time.monotonic()
            loss = self._optimise(examples)
            self.elapsed = self._agreed(self.elapsed + time.monotonic() - start)
            self.step += 1
            measured = self._validate() if self._due(self.config.run.validate_every) else None
            if self.rank == 0:
                self._log(loss, measured)
                report(Progress(step=self.step, fraction=self.fraction, loss=loss, validation=measured))
            if self._due(self.config.run.checkpoint_every):
                self._save()
        self._save()
        if self.rank == 0:
            self.export()
        if self.world > 1:
            distributed.barrier()
            distributed.destroy_process_group()
        return self.folder / f"{self.config.run.name}.safetensors"

    def _agreed(self, seconds: float) -> float:
        """The first process's clock, so that all end a timed run at the same step."""
        if self.world == 1:
            return seconds
        shared = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.fraction >= 1

    def _examples(self) -> Iterator[Example]:
        taken = self.step * self.config.optim.accumulate
        numbered = self._numbered("training")
        return stream(
            numbered, taken=taken, rank=self.rank, world=self.world, workers=self.config.data.workers
        )

    def _numbered(self, salt: str) -> ExampleSet:
        model = self.config.model
        start = model.kt if model.start == "kt" else None
        return ExampleSet(
            self.held_out if salt == "validation" else self.source,
            self.config.data,
            seed=self.config.run.seed,
            salt=salt,
            start=start,
            aligned=model.frames if model.aligned else 0,
            shuffled=self.config.text.shuffled,
        )

    def _optimise(self, examples: Iterator[Example]) -> float:
        optim = self.config.optim
        factor = rate_factor(optim, self.step, self.fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr * factor
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(optim.accumulate):
            with self._synchronised(last=part == optim.accumulate - 1):
                number = self.step * optim.accumulate + part
                loss = self._last_loss(number) if self.lasts else self._loss(next(examples), number)
                loss = loss / optim.accumulate
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), optim.clip_norm)
        if not (np.isfinite(total) and torch.isfinite(norm)):
            raise ModelError(f"training: loss {total} or gradient is not finite at step {self.step}")
        self.optimizer.step()
        self.average.update(self.net, self.step)
        return total

    def _synchronised(self, *, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _loss(self, example: Example, number: int) -> Tensor:
        rng = np.random.default_rng([self.config.run.seed, self.rank, number])
        drop = bool(rng.random() < self.config.text.dropout)
        images = self._forward(self.model, example, drop=drop)
        first = self.start_of(example)
        return weighted_loss(
            dict(self.config.optim.loss),
            images,
            example.target.to(self.device),
            None if first is None else first.abs().to(self.device),
            heart=example.heart,
        )

    def _last_loss(self, number: int) -> Tensor:
        """The loss of a few frames through the last cascades alone."""
        if not isinstance(self.net, CardioMM) or self.lasts is None:
            raise ConfigError(
                'optim.parts = ["last"] or ["last-two"] needs a CardioMM that starts from a k-t estimate'
            )
        rng = np.random.default_rng([self.config.run.seed, self.rank, number])
        low = self.config.optim.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            made, one = self.lasts.draw(rng, self.net)
        size = made.abs().float()
        return weighted_loss(dict(self.config.optim.loss), size, one.target, one.first.abs(), heart=one.heart)

    def _forward(self, model: nn.Module, example: Example, *, drop: bool) -> Tensor:
        metadata, undersampling = self.text.features(example, drop=drop)
        low = self.config.optim.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            images = model(
                example.kspace[None].to(self.device),
                example.mask[None].to(self.device),
                metadata[None].to(self.device),
                undersampling[None].to(self.device),
                maps=example.maps[None].to(self.device),
                first=None if example.first is None else example.first[None].to(self.device),
                motion=None if example.motion is None else example.motion[None].to(self.device),
                periodic=example.periodic,
            )
        magnitude: Tensor = images[0].abs().float()
        return magnitude

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        raw = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.average.state)
        self.net.eval()
        examples = self._numbered("validation")
        psnr, similarity = [], []
        for number in range(self.config.run.validation_examples):
            example = examples[number]
            images, target = self._forward(self.net, example, drop=False), example.target.to(self.device)
            error = (images - target).square().mean(dim=(-2, -1)).clamp_min(1e-20)
            psnr.append(float((10 * torch.log10(target.amax(dim=(-2, -1)).square() / error)).mean()))
            similarity.append(float(ssim(images, target)))
        self.net.load_state_dict(raw)
        return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(similarity))}

    def _log(self, loss: float, measured: dict[str, float] | None) -> None:
        path = self.folder / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream_:
            writer = csv.writer(stream_)
            if fresh:
                writer.writerow(["step", "seconds", "loss", "lr", "psnr", "ssim"])
            values = [f"{measured[k]:.4f}" for k in ("psnr", "ssim")] if measured else ["", ""]
            rate = self.optimizer.param_groups[0]["lr"]
            writer.writerow([self.step, f"{self.elapsed:.1f}", f"{loss:.6f}", f"{rate:.3g}", *values])

    def _cut_log(self) -> None:
        """Leave out the rows of steps that a killed run took after its last checkpoint."""
        path = self.folder / "log.csv"
        if path.exists():
            head, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= self.step]
            durable.write_text(path, "".join([head, *kept]))

    def _save(self) -> None:
        if self.rank != 0:
            return
        state: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "elapsed": self.elapsed,
            "net": self.net.state_dict(),
            "average": self.average.state,
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.folder / "checkpoint.pt", state)

    def _restore(self) -> None:
        state = load_checkpoint(self.folder / "checkpoint.pt", fingerprint=self.fingerprint)
        if state is None:
            return
        self.step, self.elapsed = state["step"], state["elapsed"]
        if self.rank == 0:
            self._cut_log()
        self.net.load_state_dict(state["net"])
        self.average.state = {name: value.to(self.device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])


def _freeze(net: nn.Module, parts: tuple[str, ...]) -> None:
    """Leave only the weights of `parts` to be trained; all if there are none."""
    if not parts:
        return
    names = {"heads": ("metadata_head.", "undersampling_head."), "cascades": ("cascades.",)}
    if isinstance(net, CardioMM):
        last = net.config.cascades - 1
        names["last"] = (f"cascades.{last}.",)
        names["last-two"] = (f"cascades.{last}.", f"cascades.{last - 1}.")
    chosen = tuple(name for part in parts for name in names.get(part, (part,)))
    for name, weights in net.named_parameters():
        weights.requires_grad_(weights.requires_grad and name.startswith(chosen))
