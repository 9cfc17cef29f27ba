"""What a peer may set, by the names that stand beside the fields, and how far it is believed."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from recon_node.core.errors import ConfigError
from recon_node.schema import Setting, make, settings_of
from recon_node.schema.complaints import closest, said
from recon_node.settings.kinds import names_a_file
from recon_node.settings.tree import Settings, every_setting, keys, sections, top


@lru_cache(maxsize=1)
def peer_settings() -> dict[str, Setting]:
    """What a peer may set, by the name it uses."""
    return {setting.peer: setting for setting in every_setting() if setting.peer is not None}


def peer_help(setting: Setting) -> str:
    """One line for the user of a chain or a scanner: what it means, and what it takes."""
    unit = f" in {setting.unit}" if setting.unit else ""
    takes = "a name" if setting.peer_names else setting.allowed
    return f"{' '.join(setting.doc.split())} Takes {takes}{unit}."


def with_properties(settings: Settings, properties: Mapping[str, str]) -> Settings:
    """Settings changed by what a peer asked for.

    Raises
    ------
    ConfigError
        An unknown property (the message names the known ones), a value that is not allowed, a path or module
        where only a name may be given, or a destination that the settings do not name.
    """
    for name, value in properties.items():
        setting = peer_settings().get(name)
        if setting is None:
            known = ", ".join(sorted(peer_settings()))
            raise ConfigError(
                f"unknown property {name[:60]!r}{closest(name, peer_settings())}; known are {known}"[:300]
            )
        if setting.peer_names and (names_a_file(value) or ":" in value):
            raise ConfigError(said((f"property {name}",), value, "a name, never a path or module"))
        if setting.key == "to" and value not in settings.delivery.destinations:
            known = ", ".join(sorted(settings.delivery.destinations)) or "none"
            raise ConfigError(
                f"destination {value[:60]!r} is not configured on this node; configured: {known}"
            )
    return _changed(settings, [(peer_settings()[name], value) for name, value in properties.items()])


def applied(settings: Settings, table: Mapping[str, Any]) -> Settings:
    """Settings changed by the table of a named configuration of the site's own.

    Parameters
    ----------
    settings : Settings
        As everybody gets them.
    table : mapping
        What a peer may set by its peer's name, or keys of ``[recon]``.

    Raises
    ------
    ConfigError
        Another key, or a value that is not allowed.
    """
    known = {**{s.key: s for s in settings_of(sections()["recon"], "recon")}, **peer_settings()}
    for name in table:
        if name not in known:
            hint = closest(name, known)
            raise ConfigError(
                f"{name[:60]}: found an unknown key{hint}; known are {', '.join(sorted(known))}"
            )
    return _changed(settings, [(known[name], value) for name, value in table.items()])


def _unknown(told: str, name: str, known: Mapping[str, Setting]) -> str:
    return told + (closest(name, known) or f"; known are {', '.join(sorted(known))}")


def _changed(settings: Settings, changes: Sequence[tuple[Setting, Any]]) -> Settings:
    """The same for one scan (so without named configurations), but for these values; lists grow by theirs."""
    tree: dict[str, dict[str, Any]] = {name: keys(section) for name, section in top(settings).items()}
    tree["server"]["configurations"] = {}
    for setting, value in changes:
        own = tree[setting.section]
        grows = typing.get_origin(setting.annotation) is tuple
        own[setting.key] = tuple(dict.fromkeys((*own[setting.key], value))) if grows else value
    return make(Settings, tree)
