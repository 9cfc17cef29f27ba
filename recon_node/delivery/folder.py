"""Delivery into a plain folder: a network share, a dropbox that something else empties."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path

from recon_node.core.errors import DeliveryError, DicomError, PacsMisconfigured, PacsUnreachable
from recon_node.delivery.durable import sync_folder, write_durably
from recon_node.delivery.instance import read_instance
from recon_node.delivery.outcome import Outcome


class FolderDestination:
    """Writes ``<folder>/<study>/<series>/<SOP instance>.dcm``; a file appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Made if missing.
    name : str, optional
        Name from the settings; the path where left out.
    """

    commits = False

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        self.folder = folder
        self._name = name or str(folder)

    @property
    def name(self) -> str:
        """Name from the settings, or the path."""
        return self._name

    def send(self, files: Sequence[Path]) -> None:
        """Deliver `files`; raises the first file's error, or the folder's."""
        for outcome in self.deliver(files):
            if outcome.error is not None:
                raise outcome.error

    def deliver(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        """Copy each file, synced to disk before it is told of.

        Raises
        ------
        PacsUnreachable
            The folder cannot be written now (full, share gone).
        """
        for file in files:
            try:
                instance = read_instance(file)
            except DicomError as error:
                yield Outcome(file, DeliveryError(str(error)))
                continue
            place = self.folder / (instance.study or "study") / (instance.series or "series")
            try:
                target = place / f"{instance.uid}.dcm"
                made = [p for p in (place, *place.parents) if not p.exists()]
                place.mkdir(parents=True, exist_ok=True)
                for folder in made:
                    sync_folder(folder.parent)
                write_durably(target, file.read_bytes())
            except OSError as error:
                raise PacsUnreachable(f"folder {self.folder}: {error.strerror or error}") from error
            yield Outcome(file)

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

    def ask_commitment(self, instances: Sequence[tuple[str, str]], transaction: str) -> None:
        """Not offered: an answered request is all there is."""

    def close(self) -> None:
        """Nothing is kept open."""
