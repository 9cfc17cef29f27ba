"""One deferred scan: a folder whose state can be read with ``ls``.

    <id>/job.json          what was asked for, and whose scan it is (as a hash)
    <id>/scan.mrd.part     still arriving
    <id>/scan.mrd          waiting for its reconstruction
    <id>/images.mrd        reconstructed; the DICOM files are where all others are
    <id>/handed            given back to a console
    <id>/failed.txt        why it cannot be reconstructed; scan.mrd is kept

The files hold patient data: they are readable for their owner only.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recon_node.core.durable import PART, PRIVATE_MODE, rename, sync_folder, write_text, writing
from recon_node.online.entitled import Identity

State = Literal["arriving", "waiting", "done", "failed"]

JOB = "job.json"
_SCAN, _IMAGES, _HANDED, _FAILED = "scan.mrd", "images.mrd", "handed", "failed.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One deferred scan."""

    folder: Path
    identity: Identity
    number: int
    """By order of arrival."""
    configuration: str
    properties: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True
    """False where the client vanished before the end of its scan."""
    ticket: str = ""
    """Hash of the secret that was handed over with the quick images."""

    @property
    def scan_id(self) -> str:
        """The id that the console was told."""
        return self.folder.name

    @property
    def part(self) -> Path:
        """The raw data while they arrive."""
        return self.folder / f"{_SCAN}{PART}"

    @property
    def scan(self) -> Path:
        """The raw data, an MRD stream."""
        return self.folder / _SCAN

    @property
    def images(self) -> Path:
        """The images, as IMAGE messages."""
        return self.folder / _IMAGES

    @property
    def state(self) -> State:
        """What has become of it so far."""
        if self.images.exists():
            return "done"
        if (self.folder / _FAILED).exists():
            return "failed"
        return "waiting" if self.scan.exists() else "arriving"

    @property
    def handed(self) -> bool:
        """Whether a console has got the images."""
        return (self.folder / _HANDED).exists()

    @property
    def reason(self) -> str:
        """Why it failed; empty where it did not."""
        path = self.folder / _FAILED
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """The scan of a folder; None where it is being made or deleted at this moment, or is damaged."""
        try:
            kept = json.loads((folder / JOB).read_bytes())
            identity = Identity(**_texts(kept.pop("identity")))
            job = cls(
                folder=folder,
                identity=identity,
                number=int(kept.pop("number")),
                properties=_texts(kept.pop("properties")),
                whole=bool(kept.pop("whole")),
                **_texts(kept),
            )
            _ = job.state
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return job

    def describe(self) -> None:
        """Write what was asked for."""
        names = ("number", "configuration", "properties", "whole", "ticket")
        identity = dataclasses.asdict(self.identity)
        text = json.dumps({"identity": identity, **{n: getattr(self, n) for n in names}}, indent=2)
        write_text(self.folder / JOB, text, mode=PRIVATE_MODE)

    def keep(self) -> None:
        """All of it has arrived, and is on the disk."""
        rename(self.part, self.scan)
        sync_folder(self.folder.parent)

    def finish(self, images: Iterable[bytes]) -> None:
        """Keep the images, and give up the raw data."""
        with writing(self.images, mode=PRIVATE_MODE) as file:
            file.writelines(images)
        self.scan.unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """Say why it cannot be reconstructed."""
        write_text(self.folder / _FAILED, f"{reason}\n", mode=PRIVATE_MODE)

    def retry(self) -> None:
        """Let it wait for its reconstruction again."""
        (self.folder / _FAILED).unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Note that a console has got the images."""
        write_text(self.folder / _HANDED, "", mode=PRIVATE_MODE)


def _texts(table: Mapping[str, object]) -> dict[str, str]:
    """A table of texts, as it should be.

    Raises
    ------
    TypeError
        It is none.
    """
    if any(not isinstance(value, str) for value in table.values()):
        raise TypeError("expected texts")
    return {key: str(value) for key, value in table.items()}
