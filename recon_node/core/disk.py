"""Room on the disks that a scan is written to."""

from __future__ import annotations

import shutil
from pathlib import Path

from recon_node.core.errors import DiskFull


def check_room(folder: Path, what: str, reserve_bytes: int) -> None:
    """See that the reserve is free on the disk of `folder`, which need not exist yet.

    Raises
    ------
    DiskFull
        Less is free, or the disk cannot be asked.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise DiskFull(f"the disk of {what} ({folder}) cannot be used: {error.strerror}") from error
    if free < reserve_bytes:
        raise DiskFull(
            f"the disk of {what} ({folder}) is nearly full: {free >> 20} MiB free, "
            f"{reserve_bytes >> 20} MiB needed (delivery.reserve_mb); no scan is taken"
        )
