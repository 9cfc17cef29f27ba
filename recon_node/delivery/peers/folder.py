"""Delivery into a plain folder: a network share, a dropbox that something else empties."""

from __future__ import annotations

import os
from pathlib import Path

from recon_node.core import durable
from recon_node.core.errors import PacsMisconfigured, PacsUnreachable
from recon_node.delivery.instance import read_instance
from recon_node.delivery.outcome import Outcome
from recon_node.delivery.peers.sender import OneByOne


class FolderDestination(OneByOne):
    """Writes ``<folder>/<study>/<series>/<SOP instance>.dcm``; a file appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Made if missing.
    name : str, optional
        Name from the settings; the path where left out.
    """

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        self.folder = folder
        self._name = name or str(folder)

    @property
    def name(self) -> str:
        """Name from the settings, or the path."""
        return self._name

    def deliver_one(self, file: Path) -> Outcome:
        """Copy `file`, synced to the disk when this returns.

        Raises
        ------
        PacsUnreachable
            The folder cannot be written now (full, share gone).
        """
        instance = read_instance(file)
        place = self.folder / (instance.study or "study") / (instance.series or "series")
        try:
            made = [p for p in (place, *place.parents) if not p.exists()]
            place.mkdir(parents=True, exist_ok=True)
            for folder in made:
                durable.sync_folder(folder.parent)
            durable.write_bytes(place / f"{instance.uid}.dcm", file.read_bytes())
        except OSError as error:
            raise PacsUnreachable(f"folder {self.folder}: {error.strerror or error}") from error
        return Outcome(file)

    def echo(self) -> float:
        """Check that the folder can be written to; returns 0.

        Raises
        ------
        PacsMisconfigured
            It is not a folder, or may not be written.
        """
        nearest = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise PacsMisconfigured(f"folder {self.folder}: {nearest} is no folder that may be written to")
        return 0.0

    def close(self) -> None:
        """Nothing is kept open."""
