"""Delivery into a plain folder: a network share, a dropbox that something else empties."""

from __future__ import annotations

import os
from pathlib import Path

from recon_node.core import durable
from recon_node.core.errors import PacsMisconfigured, PacsUnreachable
from recon_node.core.names import below
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
    mode : int
        Permissions of the files; folders may be entered by whoever may read the files.
    """

    def __init__(self, folder: Path, *, name: str | None = None, mode: int = durable.FILE_MODE) -> None:
        self.folder = folder
        self._name = name or str(folder)
        self._mode = mode
        self._folder_mode = mode | (mode & 0o444) >> 2 | 0o700

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
        try:
            target = below(self.folder, instance.study or "study", instance.series or "series", instance.uid)
            self._make(target.parent)
            target = target.with_name(f"{target.name}.dcm")
            durable.write_bytes(target, file.read_bytes(), mode=self._mode)
        except OSError as error:
            raise PacsUnreachable(f"folder {self.folder}: {error.strerror or error}") from error
        return Outcome(file)

    def _make(self, place: Path) -> None:
        for folder in reversed([p for p in (place, *place.parents) if not p.exists()]):
            folder.mkdir(mode=self._folder_mode, exist_ok=True)
            durable.sync_folder(folder.parent)

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
