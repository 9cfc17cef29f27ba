"""What pydantic found wrong, as one line: ``[section] key: found X, allowed Y``."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from recon_node.core.errors import ConfigError
from recon_node.schema.coerce import Refused
from recon_node.schema.fields import allowed, annotated, class_in, fields

Label = str | Callable[[Sequence[str]], str]
_MOST = 300
_MOST_FOUND = 60
_UNKNOWN = "unexpected_keyword_argument"


def complaint(
    error: ValidationError, kind: Any, *, place: Sequence[str] = (), label: Label = ""
) -> ConfigError:
    """The first thing that is wrong, for a person who wrote the values.

    Parameters
    ----------
    error : ValidationError
        What pydantic says.
    kind : type
        The checked class that was to be made.
    place : sequence of str
        Sections that the class itself stands in.
    label : str or callable
        What comes first; a callable is told the names on the way to the value.
    """
    details = error.errors(include_url=False)
    first = details[0]
    path, owner, name, annotation = _walk(kind, first["loc"])
    more = len({_walk(kind, detail["loc"])[0] for detail in details}) - 1
    refused = first.get("ctx", {}).get("error")
    if first["type"] == _UNKNOWN:
        line = _unknown((*place, *path), str(first["loc"][-1]), owner)
    elif isinstance(refused, Refused):
        line = _refusal((*place, *path), refused, first["input"])
    else:
        line = said((*place, *path), first["input"], _wanted(first, owner, name, annotation))
    key = refused.key if isinstance(refused, Refused) else ()
    label = label if isinstance(label, str) else label((*path, *key))
    count = f" (and {more} more)" if more > 0 else ""
    return ConfigError(_short(f"{label} {line}".strip(), _MOST - len(count)) + count)


def said(path: Sequence[str], found: Any, wanted: str) -> str:
    """``[section] key: found X, allowed Y``, cut to one line of at most 300 characters."""
    return _short(f"{where(path)}: found {shown(found)}, allowed {wanted}", _MOST)


def where(path: Sequence[str]) -> str:
    """``[section.table] key``."""
    words = [_short(word if word.isprintable() else repr(word), 40) for word in path]
    return f"[{'.'.join(words[:-1])}] {words[-1]}" if len(words) > 1 else "".join(words) or "settings"


def shown(value: Any) -> str:
    """A value as a person wrote it, shortened."""
    if value is None:
        return "nothing"
    try:
        text = repr(value) if isinstance(value, str | int | float | list | tuple) else _kind(value)
    except ValueError:  # a number of more digits than Python prints
        text = "a number of thousands of digits"
    return _short(text, _MOST_FOUND)


def _kind(value: Any) -> str:
    return "a table" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def closest(word: str, known: Collection[str]) -> str:
    """``; did you mean X?`` where something is like `word`."""
    like = difflib.get_close_matches(word[:100], known, n=1)
    return f"; did you mean {like[0]}?" if like else ""


def _unknown(path: Sequence[str], word: str, owner: Any) -> str:
    known = list(fields(owner))
    sections = len(path) == 1 and all(class_in(info.annotation) for info in fields(owner).values())
    place, what = (f"[{where(path)}]", "section") if sections else (where(path), "key")
    hint = closest(word, known)
    listed = "" if hint else f", allowed {', '.join(known)}"
    return _short(f"{place}: found an unknown {what}{listed}{hint}", _MOST)


def _refusal(path: Sequence[str], refused: Refused, found: Any) -> str:
    whole = (*path, *refused.key)
    if refused.told:
        return _short(f"{where(whole)}: {refused.told}", _MOST)
    return said(whole, refused.found if refused.key else found, refused.allowed)


def _wanted(detail: ErrorDetails, owner: Any, name: str, annotation: Any) -> str:
    if annotation is not None and owner is not None and name in fields(owner):
        return allowed(annotation)
    return {"dataclass_type": "a table", "string_type": "text", "dict_type": "a table"}.get(
        detail["type"], detail["msg"].removeprefix("Value error, ")
    )


def _walk(kind: Any, loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], Any, str, Any]:
    """Names on the way to a value (not those of a union's members), its class, its field and its type."""
    path: list[str] = []
    owner, name, annotation = kind, "", None
    nested = kind
    for part in loc:
        if nested is not None and part in fields(nested):
            path.append(str(part))
            owner, name = nested, str(part)
            info = fields(nested)[name]
            annotation, nested = annotated(info), class_in(info.annotation)
        elif nested is not None and part is loc[-1]:
            path.append(str(part))
            owner = nested
        elif nested is None and isinstance(part, str) and _table(annotation):
            path.append(part)
    return tuple(path), owner, name, annotation


def _table(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _short(text: str, most: int) -> str:
    text = text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= most else text[: most - 3] + "..."
