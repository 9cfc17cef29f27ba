"""Defaults < file < environment < flags, checked as one.

Environment variables are named ``RECON_NODE__SECTION__KEY`` (two underscores between the parts), for
example ``RECON_NODE__SERVER__PORT=9003``; lists are comma-separated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from recon_node.core.errors import ConfigError
from recon_node.schema import Setting, make, read_toml, settings_of
from recon_node.schema.complaints import said
from recon_node.settings.kinds import names_a_file
from recon_node.settings.tree import Settings, sections

CONFIG_VARIABLE = "RECON_NODE_CONFIG"
"""Environment variable that names the settings file where no flag does (the gadget has no flags)."""
PREFIX = "RECON_NODE__"
_FILES = ("ca", "certificate", "key")
"""Options of destinations that name files."""

Tree = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, and how they came to be."""

    settings: Settings
    origins: Mapping[tuple[str, str], str]
    """Section and key to where the value came from: a file's name, ``environment`` or ``flag``; the others
    are defaults."""
    notes: tuple[str, ...] = ()
    """What the site should know: keys that have another name now."""


def load_settings(
    path: Path | None = None, environment: Mapping[str, str] | None = None, flags: Tree | None = None
) -> Settings:
    """Defaults, then the file, then the environment, then flags.

    Parameters
    ----------
    path : Path, optional
        A TOML file with one table per section; ``RECON_NODE_CONFIG`` names it where this is None.
    environment : mapping, optional
        Defaults to the process environment.
    flags : mapping, optional
        Section to key to value.

    Raises
    ------
    ConfigError
        File unreadable or not TOML, unknown section or key, a value that is not allowed.
    """
    return read_settings(path, environment, flags).settings


def read_settings(
    path: Path | None = None, environment: Mapping[str, str] | None = None, flags: Tree | None = None
) -> Loaded:
    """As `load_settings`, with where each value came from.

    Raises
    ------
    ConfigError
        See `load_settings`.
    """
    variables = os.environ if environment is None else environment
    if path is None and variables.get(CONFIG_VARIABLE):
        path = Path(variables[CONFIG_VARIABLE])
    layers: list[tuple[str, Mapping[str, Any]]] = []
    notes: list[str] = []
    if path is not None:
        layers.append((str(path), read_toml(path)))
    layers += [("environment", from_environment(variables)), ("flag", flags or {})]
    tree: dict[str, Any] = {}
    origins: dict[tuple[str, str], str] = {}
    for origin, layer in layers:
        for section, table in renamed(layer, origin, notes).items():
            if not isinstance(table, Mapping):
                raise ConfigError(f"{origin} {said((section,), table, 'a table of keys')}"[:300])
            tree.setdefault(section, {}).update(table)
            origins.update(dict.fromkeys(((section, key) for key in table), origin))
        if path is not None and origin == str(path):
            tree = _resolved(tree, path.absolute().parent)

    def label(place: Sequence[str]) -> str:
        own = [origin for name, origin in origins.items() if name == tuple(place[:2])]
        return (own or [next((o for (s, _), o in origins.items() if place and s == place[0]), "")])[0]

    return Loaded(settings=make(Settings, tree, label=label), origins=origins, notes=tuple(notes))


def from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Settings in environment variables, by section and key.

    Raises
    ------
    ConfigError
        A variable with our prefix that names no section and key.
    """
    tree: dict[str, dict[str, str]] = {}
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX):
            section, _, key = name[len(PREFIX) :].lower().partition("__")
            if not section or not key or "__" in key:
                raise ConfigError(f"environment variable {name[:100]}: expected {PREFIX}SECTION__KEY")
            tree.setdefault(section, {})[key] = text
    return tree


def renamed(tree: Mapping[str, Any], origin: str, notes: list[str]) -> dict[str, Any]:
    """The same with today's keys for former ones; `notes` are told.

    Raises
    ------
    ConfigError
        Both of them are there.
    """
    made = dict(tree)
    for section, kind in sections().items():
        for setting in settings_of(kind, section):
            for former in setting.was:
                table = made.get(section)
                if not isinstance(table, Mapping) or former not in table:
                    continue
                if setting.key in table:
                    wanted = f"only {setting.key}, which is its name now"
                    raise ConfigError(f"{origin} {said((section, former), table[former], wanted)}"[:300])
                made[section] = {setting.key if k == former else k: v for k, v in table.items()}
                notes.append(f"{origin} [{section}] {former} is called {setting.key} now")
    return made


def _resolved(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same with relative files and folders taken from `folder`."""
    made = {section: dict(table) for section, table in tree.items()}
    for section, kind in sections().items():
        for setting in settings_of(kind, section):
            if setting.path is not None and setting.key in made.get(section, {}):
                made[section][setting.key] = _based(setting, made[section][setting.key], folder)
    return made


def _based(setting: Setting, value: Any, folder: Path) -> Any:
    if isinstance(value, str) and setting.path == "address":
        return _address(value, folder)
    if isinstance(value, str) and (setting.path == "path" or names_a_file(value)):
        return _file(value, folder)
    if not isinstance(value, Mapping):
        return value
    based = _destination if setting.path == "destinations" else _configuration
    return {k: based(v, folder) if isinstance(v, Mapping) else v for k, v in value.items()}


def _destination(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    def based(key: str, value: Any) -> Any:
        if key == "address" and isinstance(value, str):
            return _address(value, folder)
        return _file(value, folder) if key in _FILES and isinstance(value, str) else value

    return {key: based(key, value) for key, value in table.items()}


def _address(text: str, folder: Path) -> str:
    """An address that is a folder, or the files in the query of one."""
    if "://" not in text:
        return _file(text, folder)
    where, _, query = text.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    if not any(key in _FILES for key, _ in options):
        return text
    return f"{where}?{urlencode([(k, _file(v, folder) if k in _FILES else v) for k, v in options], safe='/')}"


def _configuration(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    known = {s.key: s for s in settings_of(sections()["recon"], "recon") if s.path is not None}
    return {key: _based(known[key], v, folder) if key in known else v for key, v in table.items()}


def _file(value: str, folder: Path) -> str:
    return value if not value or value.startswith("~") else str(folder / value)
