"""Room on the disks that a scan is written to: the one place that asks for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from recon_node.core.errors import DiskFull


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of `folder`, which need not exist yet.

    Raises
    ------
    OSError
        The disk cannot be asked.
    """
    return shutil.disk_usage(_nearest(folder)).free


def check_room(folder: Path, what: str, reserve_bytes: int) -> None:
    """See that a folder can be written and the reserve is free on its disk; it need not exist yet.

    Raises
    ------
    DiskFull
        Less is free, the folder may not be written, or the disk cannot be asked.
    """
    try:
        free = free_bytes(folder)
    except OSError as error:
        raise DiskFull(f"the disk of {what} ({folder}) cannot be used: {error.strerror}") from error
    if not writable(folder):
        raise DiskFull(f"the folder of {what} ({folder}) cannot be written to; no scan is taken")
    if free < reserve_bytes:
        raise DiskFull(
            f"the disk of {what} ({folder}) is nearly full: {free >> 20} MiB free, "
            f"{reserve_bytes >> 20} MiB needed (delivery.reserve_mb); no scan is taken"
        )


def writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or, where it is not there, the folder itself."""
    place = _nearest(folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
