"""A setting is one field: its type, bounds, unit, help and the names by which others may set it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

PathKind = Literal["path", "weights", "address", "destinations", "configurations"]
"""``path``: a file or folder; ``weights``: a name, or a file where it has a slash or the suffix;
``address``: a folder, or files in its query; the others: tables that hold such."""


_LONG = 10**12
"""Numbers beyond it are written with an exponent."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Mark of an annotation: what is allowed, in words, where the type alone does not say it."""

    text: str


def setting(
    default: Any = PydanticUndefined,
    *,
    factory: Callable[[], Any] | None = None,
    unit: str | None = None,
    peer: str | None = None,
    peer_names: bool = False,
    openrecon: bool = False,
    path: PathKind | None = None,
    hidden: tuple[str, ...] | bool = False,
    was: tuple[str, ...] = (),
    limit: bool = False,
    **bounds: Any,
) -> Any:
    """The field of one setting; what it means stands as text under it.

    Parameters
    ----------
    default : Any
        Its value where nobody says anything.
    factory : callable, optional
        Makes the default (of tables).
    unit : str, optional
        Unit of its value.
    peer : str, optional
        Property by which a chain's ``<configuration>`` or a client may set it; without one only the site can.
    peer_names : bool
        Whether a peer may only give a plain name, never a path or ``module:Class``.
    openrecon : bool
        Whether the scanner's card of an OpenRecon container shows it.
    path : PathKind, optional
        The value names a file or folder; a relative one in a settings file starts at that file's folder.
    hidden : bool or tuple of str
        Never shown, or these keys of its tables are not.
    was : tuple of str
        Its former keys, which go on working.
    limit : bool
        Whether it bounds what others can make this machine do; such stand in one table of the documentation.
    **bounds : Any
        What pydantic's ``Field`` takes: ``ge``, ``gt``, ``le``, ``lt``, ``min_length``, ``pattern``.
    """
    extra = {
        "unit": unit,
        "peer": peer,
        "peer_names": peer_names,
        "openrecon": openrecon,
        "path": path,
        "hidden": hidden,
        "was": was,
        "limit": limit,
    }
    said: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value for key, value in extra.items() if value
    }
    if factory is not None:
        return Field(default_factory=factory, json_schema_extra=said, **bounds)
    return Field(default, json_schema_extra=said, validate_default=path is not None, **bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known of one setting, read from its field."""

    section: str
    key: str
    annotation: Any
    default: Any
    doc: str
    allowed: str
    """What values it takes, in words."""
    choices: tuple[str, ...]
    """Its words where it takes no other text."""
    bounds: Mapping[str, float]
    """``ge``, ``gt``, ``le``, ``lt`` of a number."""
    unit: str | None
    peer: str | None
    peer_names: bool
    openrecon: bool
    path: PathKind | None
    hidden: bool | list[str]
    was: tuple[str, ...]
    limit: bool

    @property
    def kind(self) -> type | None:
        """bool, int, float or str where it is one of them, or absent; None for lists, tables, mixtures."""
        kinds = [_bare(part) for part in options(self.annotation)]
        return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float, str) else None


@lru_cache(maxsize=64)
def settings_of(kind: Any, section: str = "") -> tuple[Setting, ...]:
    """Every setting of one section, in the order of its fields."""
    docs = _docs(kind)
    return tuple(_setting(section, name, info, docs.get(name, "")) for name, info in fields(kind).items())


def fields(kind: Any) -> Mapping[str, FieldInfo]:
    """Fields of a checked class by name, in their order."""
    known: Mapping[str, FieldInfo] = kind.__pydantic_fields__
    return {field.name: known[field.name] for field in dataclasses.fields(kind)}


def annotated(info: FieldInfo) -> Any:
    """A field's type together with its bounds."""
    return typing.Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


def _setting(section: str, key: str, info: FieldInfo, doc: str) -> Setting:
    extra: dict[str, Any] = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    annotation = annotated(info)
    only = options(annotation)
    words = typing.get_args(_bare(only[0])) if len(only) == 1 and _is_literal(_bare(only[0])) else ()
    return Setting(
        section=section,
        key=key,
        annotation=annotation,
        default=info.get_default(call_default_factory=True),
        doc=doc,
        allowed=allowed(annotation),
        choices=tuple(map(str, words)),
        bounds={**_bounds(annotation), **(_bounds(only[0]) if len(only) == 1 else {})},
        unit=extra.get("unit"),
        peer=extra.get("peer"),
        peer_names=bool(extra.get("peer_names")),
        openrecon=bool(extra.get("openrecon")),
        path=extra.get("path"),
        hidden=extra.get("hidden", False),
        was=tuple(extra.get("was", ())),
        limit=bool(extra.get("limit")),
    )


def _docs(kind: type) -> dict[str, str]:
    """Text under each field in the class's source."""
    said: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        try:
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError):
            continue
        name = ""
        for node in getattr(tree, "body", ()):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                said[name] = inspect.cleandoc(str(node.value.value))
                name = ""
    return said


def options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union other than None; the annotation itself where it is none."""
    bare = _bare(annotation)
    if typing.get_origin(bare) in (types.UnionType, typing.Union):
        return tuple(part for part in typing.get_args(bare) if part is not types.NoneType)
    return (annotation,)


def class_in(annotation: Any) -> Any:
    """The checked class in an annotation."""
    for part in options(annotation):
        if dataclasses.is_dataclass(part) and hasattr(part, "__pydantic_fields__"):
            return part
    return None


def optional(annotation: Any) -> bool:
    """Whether None is allowed."""
    return types.NoneType in typing.get_args(_bare(annotation))


def allowed(annotation: Any) -> str:
    """What an annotation allows, in words: ``a whole number, 1 to 512``."""
    for mark in _marks(annotation):
        if isinstance(mark, Allowed):
            return mark.text + (" or none" if optional(annotation) else "")
    texts = [_one(part, annotation) for part in options(annotation)]
    return " or ".join(dict.fromkeys([*texts, "none"] if optional(annotation) else texts))


def _one(part: Any, whole: Any) -> str:
    for mark in _marks(part):
        if isinstance(mark, Allowed):
            return mark.text
    bare, bounds = _bare(part), {**_bounds(whole), **_bounds(part)}
    origin = typing.get_origin(bare)
    if origin is Literal:
        words = ", ".join(map(str, typing.get_args(bare)))
        return f"one of {words}" if "," in words else words
    if origin is tuple:
        return _list(bare, whole)
    if dataclasses.is_dataclass(bare) or origin is not None:
        return "a table"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(bare, "a value") + _range(bounds)


def _list(bare: Any, whole: Any) -> str:
    items = typing.get_args(bare)
    one = _one(items[0], items[0])
    if items[-1] is not Ellipsis:
        return f"a list of {len(items)}: each {one}"
    least = [m.min_length for m in _marks(whole) if hasattr(m, "min_length")]
    what = "some of " + one.removeprefix("one of ") if one.startswith("one of ") else f"a list, each {one}"
    return what + (", not empty" if any(least) else "")


def _range(bounds: Mapping[str, float]) -> str:
    if {"ge", "le"} <= set(bounds):
        return f", {_number(bounds['ge'])} to {_number(bounds['le'])}"
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    parts = [f"{words[name]} {_number(bounds[name])}" for name in words if name in bounds]
    return f", {' and '.join(parts)}" if parts else ""


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) and abs(bound) < _LONG else f"{bound:.15g}"


def _bounds(annotation: Any) -> dict[str, float]:
    names = ("ge", "gt", "le", "lt")
    return {name: getattr(m, name) for m in _marks(annotation) for name in names if hasattr(m, name)}


def _marks(annotation: Any) -> tuple[Any, ...]:
    """Marks of an ``Annotated``, those inside of a pydantic ``Field`` among them."""
    marks = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()
    flat: list[Any] = []
    for mark in marks:
        flat.extend(mark.metadata if isinstance(mark, FieldInfo) else (mark,))
    inner = _bare(annotation, once=True)
    return (*flat, *_marks(inner)) if typing.get_origin(inner) is typing.Annotated else tuple(flat)


def _bare(annotation: Any, *, once: bool = False) -> Any:
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
        if once:
            break
    return annotation


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal
