"""The schema in front of an MRD 2 stream, resolved to types.

A stream says what it holds, so that versions with fields this module never heard of are read as well. The
notation is that of yardl's schema JSON (https://microsoft.github.io/yardl, reference of the binary format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recon_node.core.errors import ProtocolError

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "size")
_FRACTIONS = ("float32", "float64", "complexfloat32", "complexfloat64")
PRIMITIVES = frozenset({"bool", *_INTEGERS, *_FRACTIONS, "string", "date", "time", "datetime"})
_ALIASES = {"int": "int32", "uint": "uint32", "float": "float32", "double": "float64"}
_DEEPEST = 32
"""Types within types; deeper schemas are made to be slow."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """A number, a string or a time."""

    name: str


@dataclass(frozen=True, slots=True)
class Union:
    """One of several types; an optional is a union of nothing and one."""

    nullable: bool
    cases: tuple[tuple[str, Type], ...]
    """(tag, type)"""


@dataclass(frozen=True, slots=True)
class Vector:
    """A list of items."""

    items: Type
    length: int | None = None
    """None where it stands in the stream."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array of items, row-major."""

    items: Type
    rank: int | None = None
    """None where it stands in the stream."""
    shape: tuple[int, ...] | None = None
    """None where it stands in the stream."""


@dataclass(frozen=True, slots=True)
class Map:
    """Pairs of key and value."""

    keys: Type
    values: Type


@dataclass(frozen=True)
class Record:
    """Named fields, one after the other."""

    name: str
    fields: tuple[tuple[str, Type], ...]

    @cached_property
    def index(self) -> dict[str, int]:
        """Where each field stands in the tuple that a record is decoded to."""
        return {name: at for at, (name, _) in enumerate(self.fields)}


@dataclass(frozen=True)
class Enum:
    """A number with names; flags are one too."""

    name: str
    base: Primitive
    values: tuple[tuple[str, int], ...]

    @cached_property
    def symbols(self) -> dict[int, str]:
        """Names by value."""
        return {value: symbol for symbol, value in self.values}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Values by name."""
        return dict(self.values)


Type = Primitive | Union | Vector | Array | Map | Record | Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What the protocol ``Mrd`` of one stream is made of."""

    text: str
    """As it stands in the stream."""
    header: Union
    item: Union


def parse_schema(text: str) -> Schema:
    """Resolve a schema.

    Raises
    ------
    ProtocolError
        It is no JSON, describes another protocol than MRD, or names types that are not there.
    """
    try:
        tree = json.loads(text)
        protocol = tree["protocol"]
        name, steps = protocol["name"], {step["name"]: step["type"] for step in protocol["sequence"]}
        resolver = _Resolver(tree["types"])
        if name != "Mrd" or list(steps) != ["header", "data"]:
            raise ProtocolError(
                f"MRD 2 stream: its protocol is {str(name)[:40]!r}, expected 'Mrd' with header and data"
            )
        header = resolver.resolve(steps["header"])
        item = resolver.resolve(steps["data"]["stream"]["items"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(
            f"MRD 2 stream: its schema cannot be understood ({type(error).__name__})"
        ) from error
    if not isinstance(header, Union) or not isinstance(item, Union):
        raise ProtocolError("MRD 2 stream: expected an optional header and items of several kinds")
    return Schema(text=text, header=header, item=item)


class _Resolver:
    """Names to types."""

    def __init__(self, types: list[Mapping[str, Any]]) -> None:
        self._types = {entry["name"]: entry for entry in types}
        self._depth = 0
        self._known: dict[str, Type] = {}

    def resolve(self, expression: Any, given: Mapping[str, Type] | None = None) -> Type:
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                raise ProtocolError(f"MRD 2 stream: its schema nests types over {_DEEPEST} deep")
            return self._resolved(expression, given or {})
        finally:
            self._depth -= 1

    def _resolved(self, expression: Any, given: Mapping[str, Type]) -> Type:
        if isinstance(expression, str):
            return self._named(expression, (), given)
        if isinstance(expression, list):
            return self._union(expression, given)
        if "name" in expression:
            arguments = [self.resolve(argument, given) for argument in expression.get("typeArguments", ())]
            return self._named(expression["name"], tuple(arguments), given)
        (kind, body), *more = expression.items()
        if kind == "vector" and not more:
            return Vector(self.resolve(body["items"], given), body.get("length"))
        if kind == "array" and not more:
            return self._array(body, given)
        if kind == "map" and not more:
            return Map(self.resolve(body["keys"], given), self.resolve(body["values"], given))
        raise KeyError(kind)

    def _union(self, cases: list[Any], given: Mapping[str, Type]) -> Type:
        nullable = cases[0] is None
        tagged = [
            (case["tag"], self.resolve(case["type"], given))
            if isinstance(case, dict) and "tag" in case
            else ("", self.resolve(case, given))
            for case in cases[nullable:]
        ]
        return Union(nullable, tuple(tagged))

    def _array(self, body: Mapping[str, Any], given: Mapping[str, Type]) -> Type:
        items, dimensions = self.resolve(body["items"], given), body.get("dimensions")
        if dimensions is None:
            return Array(items)
        if isinstance(dimensions, int):
            return Array(items, dimensions)
        lengths = [dimension.get("length") for dimension in dimensions]
        if lengths and all(isinstance(length, int) for length in lengths):
            return Array(items, len(lengths), tuple(lengths))
        return Array(items, len(lengths))

    def _named(self, name: str, arguments: tuple[Type, ...], given: Mapping[str, Type]) -> Type:
        if name in given:
            return given[name]
        if (primitive := _ALIASES.get(name, name)) in PRIMITIVES:
            return Primitive(primitive)
        entry = self._types[name.rpartition(".")[2]]
        if not arguments and entry["name"] in self._known:
            return self._known[entry["name"]]
        parameters = dict(zip(entry.get("typeParameters", ()), arguments, strict=True))
        made = self._declared(entry, parameters)
        if not arguments:
            self._known[entry["name"]] = made
        return made

    def _declared(self, entry: Mapping[str, Any], parameters: Mapping[str, Type]) -> Type:
        if "fields" in entry:
            fields = [(field["name"], self.resolve(field["type"], parameters)) for field in entry["fields"]]
            return Record(entry["name"], tuple(fields))
        if "values" in entry:
            base = self.resolve(entry.get("base", "int32"))
            values = tuple((value["symbol"], int(value["value"])) for value in entry["values"])
            return Enum(entry["name"], base, values) if isinstance(base, Primitive) else base
        return self.resolve(entry["type"], parameters)
