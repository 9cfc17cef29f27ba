"""From what is written (text of an environment variable, a flag or a peer; a value of TOML) to a value."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from recon_node.schema.fields import allowed, annotated

_MOST_NAME = 200
_MOST_TEXT = 4096
"""Length of a text beyond which it is no setting."""


class Refused(ValueError):
    """A value that is not allowed; raised inside of a checked class.

    Parameters
    ----------
    allowed : str
        What is.
    key : str or sequence of str
        Field (and keys of the tables in it), where the class as a whole is being checked.
    found : Any
        What was found there.
    told : str
        What is wrong in words of its own, in place of what was found and what is allowed.
    """

    def __init__(
        self, allowed: str = "", *, key: str | Sequence[str] = (), found: Any = None, told: str = ""
    ) -> None:
        super().__init__(allowed or told)
        self.allowed = allowed
        self.key = (key,) if isinstance(key, str) else tuple(key)
        self.found = found
        self.told = told


def coerced(info: FieldInfo, value: Any) -> Any:
    """`value` as pydantic understands it, where `info` is its field.

    Raises
    ------
    Refused
        A truth value where a number is wanted or the other way round, or text (or names of a table) that
        cannot be printed.
    """
    kinds = _kinds(info.annotation)
    if isinstance(value, str):
        if len(value) > _MOST_TEXT or not value.isprintable():
            raise Refused(f"printable text of at most {_MOST_TEXT} characters")
        return _read(kinds, value)
    if isinstance(value, Mapping) and not all(isinstance(k, str) and _is_name(k) for k in value):
        raise Refused(f"a table whose names are printable, of 1 to {_MOST_NAME} characters")
    items = value if isinstance(value, list | tuple) else (value,)
    truths = any(isinstance(item, bool) for item in items)
    numbers = any(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    if (truths and bool not in kinds) or (numbers and not {int, float} & kinds):
        raise Refused(allowed(annotated(info)))
    return value


def _is_name(key: str) -> bool:
    return key.isprintable() and 0 < len(key) <= _MOST_NAME


def _read(kinds: frozenset[Any], text: str) -> Any:
    """Text as it is, as nothing, or as the items of a list."""
    if text == "none" and types.NoneType in kinds and "none" not in kinds:
        return None
    if tuple in kinds:
        return tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    return text


def _kinds(annotation: Any) -> frozenset[Any]:
    """Every type and word in an annotation; of tables only that it is one."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kinds(parts[0])
    if origin is typing.Literal:
        return frozenset(parts)
    if origin is tuple:
        return frozenset({tuple}).union(*map(_kinds, parts))
    if origin in (types.UnionType, typing.Union):
        return frozenset().union(*map(_kinds, parts))
    if origin is not None:
        return frozenset({dict})
    return frozenset({annotation})
