"""State of a run on disk: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import torch

from recon_node.core import durable
from recon_node.core.errors import WeightsError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) so that a kill leaves the old file or the new one."""
    with durable.writing(path) as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """Read the state of an earlier part of the same run; None where there is none.

    Raises
    ------
    WeightsError
        The file is damaged, or belongs to a run with other settings.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, struct.error, pickle.UnpicklingError) as error:
        raise WeightsError(f"checkpoint {path} is damaged; remove it to start the run anew") from error
    if state.get("fingerprint") != fingerprint:
        raise WeightsError(
            f"checkpoint {path} belongs to a run with other settings; name another run.out, or remove it"
        )
    return state
