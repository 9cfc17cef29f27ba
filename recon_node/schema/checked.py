"""Frozen classes whose values are checked when they are made, whoever makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import ConfigDict, TypeAdapter, ValidationError, ValidationInfo, field_validator

from recon_node.core.errors import ConfigError
from recon_node.schema.coerce import Refused, coerced
from recon_node.schema.complaints import Label, complaint
from recon_node.schema.fields import fields

__all__ = ["Checked", "Refused", "checked", "make"]

T = TypeVar("T")
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Checked:
    """Base of all settings: text becomes what its field wants, and nothing becomes what it is not."""

    @field_validator("*", mode="before")
    @classmethod
    def _coerced(cls, value: Any, info: ValidationInfo) -> Any:
        return coerced(fields(cls)[str(info.field_name)], value)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def checked(*, section: str = "", label: str = "") -> Callable[[type[T]], type[T]]:
    """Decorator: a frozen dataclass that refuses unknown keys and values out of their bounds.

    Parameters
    ----------
    section : str
        Table of a file that holds it, for errors.
    label : str
        What comes before the section in errors.

    Raises
    ------
    ConfigError
        On making one: ``[section] key: found X, allowed Y``.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)
        plain = made.__init__
        place = (section,) if section else ()

        @functools.wraps(plain)
        def init(self: Any, /, **values: Any) -> None:
            try:
                plain(self, **values)
            except ValidationError as error:
                raise complaint(error, made, place=place, label=label) from None

        made.__init__ = init
        made.__checked_place__ = (label, place)
        return made  # type: ignore[no-any-return]

    return decorate


def make(kind: type[T], values: Mapping[str, Any], *, label: Label | None = None) -> T:
    """`kind` from a mapping of any keys, with what is wrong in one line.

    Parameters
    ----------
    kind : type
        A `checked` class.
    values : mapping
        Its fields by name; those left out take their defaults.
    label : str or callable, optional
        In place of the class's own in errors, for example the file that the values come from.

    Raises
    ------
    ConfigError
        See `checked`.
    """
    asked: Any = kind
    own, place = asked.__checked_place__
    try:
        plain: Any = dict(values) if isinstance(values, Mapping) else values
        return _adapter(asked).validate_python(plain)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise complaint(error, kind, place=place, label=own if label is None else label) from None
    except RecursionError:
        raise ConfigError(f"{own or 'settings'}: tables lie in each other too deeply") from None


@functools.lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
