"""Settings for people and programs to read: what is in force, and the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from recon_node.schema import Setting, settings_of
from recon_node.schema.fields import class_in
from recon_node.settings.load import Loaded
from recon_node.settings.tree import Settings, sections

HIDDEN = "(hidden)"


def effective(loaded: Loaded) -> list[dict[str, Any]]:
    """Every setting with its value and where that came from; secrets are hidden.

    Returns
    -------
    list of dict
        With `section`, `key`, `value` (JSON-able) and `origin`.
    """
    rows = []
    for section, kind in sections().items():
        for setting in settings_of(kind, section):
            value = getattr(getattr(loaded.settings, section), setting.key)
            origin = loaded.origins.get((section, setting.key), "default")
            row = {"section": section, "key": setting.key, "value": shown(setting, value)}
            rows.append(row | {"origin": origin})
    return rows


def shown(setting: Setting, value: Any) -> Any:
    """A value as it may be shown: no patient's name, no password."""
    if setting.hidden is True and value is not None:
        return HIDDEN
    secret = frozenset(setting.hidden) if isinstance(setting.hidden, list) else frozenset()
    return _plain(value, secret)


def _plain(value: Any, secret: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: HIDDEN if key in secret else _plain(part, secret) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part, secret) for part in value]
    return _without_password(value) if isinstance(value, str) else value


def _without_password(text: str) -> str:
    """An address without the password in it."""
    if "://" not in text or "@" not in text:
        return text
    try:
        password = urlsplit(text).password
    except ValueError:
        return HIDDEN
    return text.replace(f":{password}@", f":{HIDDEN}@", 1) if password else text


def written(value: Any) -> str:
    """A value as TOML has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(written, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def written_default(setting: Setting) -> str | None:
    """The default of a setting, as its field has it; None where nothing is set."""
    if setting.default in (None, (), {}) or class_in(setting.annotation) is not None:
        return None
    return written(setting.default).replace('"', "")


def json_schema() -> dict[str, Any]:
    """The schema of a settings file: types, bounds, defaults, meaning, units, peers' names."""
    schema = TypeAdapter(Settings).json_schema()
    for section, kind in sections().items():
        schema["properties"][section].pop("default", None)
        described = schema["$defs"][kind.__name__]
        described["title"] = section
        described["description"] = kind.__doc__
        for setting in settings_of(kind, section):
            described["properties"][setting.key] |= {"description": " ".join(setting.doc.split())}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "recon-node settings",
    }
