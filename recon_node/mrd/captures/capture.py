"""One received scan: a folder whose state can be read with ``ls``.

    <id>/capture.json      what was asked for, with which settings, and whose scan it is (as a hash)
    <id>/scan.mrd.part     arriving; locked by the process that receives it
    <id>/scan.mrd          whole: waiting for its reconstruction, where there are no images yet
    <id>/images.mrd        done: the images that were answered; the DICOM files are where all others are
    <id>/handed            the peer has got the images
    <id>/failed.txt        why there are none; scan.mrd is kept

``job.json`` of former versions (deferred scans alone) is read as well. The files hold patient data: they are
readable for their owner only.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from recon_node.core.durable import PART, PRIVATE_MODE, rename, sync_folder, write_text, writing
from recon_node.mrd.captures.entitled import Identity

State = Literal["arriving", "waiting", "done", "failed"]
STATES: tuple[State, ...] = get_args(State)
Kind = Literal["unknown", "direct", "deferred", "echo", "retrieve"]
"""What was to be done with it; unknown until configuration and header have come."""

DESCRIPTION, FORMER = "capture.json", "job.json"
SCAN = "scan.mrd"
_IMAGES, _HANDED, _FAILED = "images.mrd", "handed", "failed.txt"
_PLAIN = {"number": int, "whole": bool, "keep": bool}
_NANO = 1_000_000_000
_SINCE = 10**15
"""Numbers below are counts of former versions, others nanoseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One received scan."""

    folder: Path
    identity: Identity = field(default_factory=Identity)
    number: int
    """When its first byte came, nanoseconds since 1970: the order of arrival."""
    kind: str = "deferred"
    """One of `Kind`."""
    configuration: str = "default"
    properties: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What images depend on and is not as by default, by section and key, when it came."""
    whole: bool = True
    """False where its end has not come (yet)."""
    keep: bool = False
    """Whether its raw data stay when it is done."""
    ticket: str = ""
    """Hash of the secret that was handed over with the quick images."""
    made_by: str = ""
    """Where the scan was tried again: the method whose images were answered."""

    @property
    def scan_id(self) -> str:
        """The id that the console was told."""
        return self.folder.name

    @property
    def part(self) -> Path:
        """The raw data while they arrive."""
        return self.folder / f"{SCAN}{PART}"

    @property
    def scan(self) -> Path:
        """The raw data, an MRD stream, once its connection has ended."""
        return self.folder / SCAN

    @property
    def raw(self) -> Path | None:
        """The raw data, wherever they are; None where they were given up."""
        return next((path for path in (self.scan, self.part) if path.exists()), None)

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
        """Whether the peer has got the images."""
        return (self.folder / _HANDED).exists()

    @property
    def reason(self) -> str:
        """Why it failed; empty where it did not."""
        path = self.folder / _FAILED
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    @property
    def received(self) -> float:
        """When it came, seconds since 1970."""
        return self.number / _NANO if self.number >= _SINCE else self.folder.stat().st_mtime

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    @classmethod
    def read(cls, folder: Path) -> Capture | None:
        """The scan of a folder; None where it is being made or deleted at this moment, or is damaged."""
        name = DESCRIPTION if (folder / DESCRIPTION).exists() else FORMER
        try:
            kept = json.loads((folder / name).read_bytes())
            values: dict[str, Any] = {key: kind(kept.pop(key, False)) for key, kind in _PLAIN.items()}
            values["identity"] = Identity(**_texts(kept.pop("identity")))
            values["properties"] = _texts(kept.pop("properties"))
            values["settings"] = dict(kept.pop("settings", {}))
            capture = cls(folder=folder, **values | _texts(kept))
            _ = capture.state, capture.received
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return capture

    def describe(self, *, sync: bool = True) -> None:
        """Write what was asked for."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "folder"}
        values["identity"] = dataclasses.asdict(self.identity)
        text = json.dumps(values, indent=2, default=list)
        write_text(self.folder / DESCRIPTION, text, mode=PRIVATE_MODE, sync=sync)

    def wait(self) -> None:
        """All that comes of it is on the disk: let it wait for its reconstruction."""
        rename(self.part, self.scan)
        sync_folder(self.folder.parent)

    def finish(self, images: Iterable[bytes], *, handed: bool = False) -> None:
        """Keep the images, and give up the raw data unless they are to stay."""
        if handed:
            self.hand_over()
        with writing(self.images, mode=PRIVATE_MODE) as file:
            file.writelines(images)
        (self.folder / _FAILED).unlink(missing_ok=True)
        self._end_raw()

    def fail(self, reason: str) -> None:
        """Say why there are no images."""
        write_text(self.folder / _FAILED, f"{reason}\n", mode=PRIVATE_MODE)
        if self.part.exists():
            rename(self.part, self.scan)

    def retry(self) -> None:
        """Let it wait for its reconstruction again."""
        (self.folder / _FAILED).unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Note that the peer has got the images."""
        write_text(self.folder / _HANDED, "", mode=PRIVATE_MODE, sync=False)

    def _end_raw(self) -> None:
        raw = self.raw
        if raw is not None and not self.keep:
            raw.unlink(missing_ok=True)
        elif raw == self.part:
            rename(self.part, self.scan)


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
