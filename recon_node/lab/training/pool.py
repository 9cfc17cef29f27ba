"""A folder of prepared examples: made once, used by every run that asks for the same ones."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from recon_node.core import durable
from recon_node.core.code import code_hash
from recon_node.lab.training.example import Example

_MAKERS = (
    *("core", "simulate", "prep", "prompts", "coils", "solvers", "lab/cines"),
    *("lab/training/data.py", "lab/training/sources.py", "lab/training/example.py", "model/motion.py"),
)
"""Code that decides what an example looks like."""


class Pool:
    """Examples by number in a folder named after all that decides them.

    Parameters
    ----------
    folder : Path
        Where pools lie; a file of a clip of 12 frames, 9 coils and 128 x 128 points takes about 20 MB.
    settings : dict
        JSON-able; other settings make another pool.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        text = json.dumps({**settings, "code": code_hash(_MAKERS)}, sort_keys=True)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def numbers(self) -> list[int]:
        """Examples that are in the folder."""
        return sorted(int(path.stem) for path in self.folder.glob("*.pt") if path.stem.isdigit())

    def get(self, number: int, make: Callable[[], Example]) -> Example:
        """Example `number` from the folder; made and kept if it is not there or was cut off."""
        path = self.folder / f"{number:06d}.pt"
        with contextlib.suppress(OSError, EOFError, RuntimeError, pickle.UnpicklingError):
            return Example(**torch.load(path, weights_only=True))
        example = make()
        with durable.writing(path, sync=False) as file:
            torch.save({f.name: getattr(example, f.name) for f in dataclasses.fields(example)}, file)
        return example


def pool_settings(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What decides examples: the data settings without those that only say how they are used."""
    use: Sequence[str] = ("pool", "workers", "windows", "rows", "examples")
    return {**{key: value for key, value in data.items() if key not in use}, **more}
