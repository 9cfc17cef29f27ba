"""Reading encoder folders in Hugging Face layout: configuration, tokenizer, weights, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import WeightsError


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of the folder.

    Raises
    ------
    WeightsError
        If the folder or the file is missing, or the file is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"text encoder folder {folder} has no readable config.json ({error.strerror}); expected a model "
            "folder in Hugging Face layout"
        ) from error
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} holds a {type(config).__name__}, expected an object")
    return config


def read_safetensors(path: Path, wanted: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """The wanted tensors of a safetensors file as float32.

    Raises
    ------
    WeightsError
        If the file cannot be read, or tensors are missing (all of them are listed).
    """
    from safetensors import SafetensorError, safe_open

    names = list(wanted)
    try:
        with safe_open(path, framework="numpy") as file:
            there = set(file.keys())
            missing = [name for name in names if name not in there]
            if missing:
                raise WeightsError(f"{path} lacks {len(missing)} tensors: {', '.join(missing[:5])} ...")
            return {name: np.ascontiguousarray(file.get_tensor(name), dtype=np.float32) for name in names}
    except (OSError, SafetensorError, TypeError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def hash_files(algorithm: str, paths: Iterable[Path]) -> str:
    """SHA-256 over an algorithm's name and the contents of files, in order."""
    digest = hashlib.sha256(algorithm.encode())
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
