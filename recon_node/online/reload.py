"""Settings read again while a node serves (SIGHUP): scans from now on get them, running ones keep theirs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from recon_node.core.errors import ReconNodeError
from recon_node.online.node import Node
from recon_node.pipeline.row import Pipeline
from recon_node.settings import Settings, keys, sections

log = logging.getLogger(__name__)

LIVE = ("prep", "coils", "recon", "prompts", "dicom", "log")
"""Sections that a running node takes over; what the others name was opened at start."""


def reload_settings(node: Node, read: Callable[[], Settings], told: Callable[[Settings], None]) -> None:
    """Take over what can be taken over; where the new settings are not usable the former ones stay.

    Parameters
    ----------
    node : Node
        Whose settings they are.
    read : callable
        Reads them again.
    told : callable
        Sets up the log as those say that are in force now.
    """
    try:
        found = read()
        taken = node.settings
        for section in LIVE:
            taken = taken.replace(section, **keys(getattr(found, section)))
        Pipeline(taken)
        told(taken)
    except ReconNodeError as error:
        with contextlib.suppress(ReconNodeError):
            told(node.settings)  # the log's file is opened anew all the same
        log.error("settings are not usable, the former ones stay: %s", error)  # noqa: TRY400 - no trace
        return
    differ = [(section, f"[{section}] {key}") for section, key in changed(node.settings, found)]
    node.settings = taken
    now = ", ".join(name for section, name in differ if section in LIVE)
    later = ", ".join(name for section, name in differ if section not in LIVE)
    log.info("settings read again: %s", now or "nothing that scans need has changed")
    if later:
        log.warning("these take effect at the next start: %s", later)


def changed(one: Settings, other: Settings) -> list[tuple[str, str]]:
    """Section and key of every setting that differs."""
    return [
        (section, key)
        for section in sections()
        for key, value in keys(getattr(one, section)).items()
        if getattr(getattr(other, section), key) != value
    ]
