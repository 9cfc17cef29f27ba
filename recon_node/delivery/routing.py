"""Which series go where, and how soon: rules on DICOM attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from recon_node.core.errors import ConfigError
from recon_node.delivery.instance import ROUTING_KEYWORDS

_KEYS = ("to", "priority")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where series go whose attributes match every pattern."""

    name: str
    patterns: Mapping[str, str]
    """DICOM keyword to shell pattern; upper and lower case are the same, values are joined by ``\\``."""
    to: tuple[str, ...] = ()
    priority: int | None = None
    """0 to 9; higher goes first."""

    def matches(self, properties: Mapping[str, str]) -> bool:
        """Whether a series with these attributes is meant; an attribute that is not there is empty."""
        return all(
            fnmatchcase(properties.get(keyword, "").lower(), pattern.lower())
            for keyword, pattern in self.patterns.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What the rules say of one series."""

    destinations: tuple[str, ...]
    priority: int


def parse_rules(tables: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Rules from the settings, in their order.

    Parameters
    ----------
    tables : mapping
        Name of the rule to a table: `to` (a destination or a list of them), `priority`, and patterns
        by DICOM keyword.

    Raises
    ------
    ConfigError
        An unknown keyword, a value of the wrong kind, or a rule that does nothing.
    """
    return tuple(_rule(name, table) for name, table in tables.items())


def _rule(name: str, table: Any) -> Rule:
    where = f"delivery.routes.{name}"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: found {table!r}, expected a table")
    patterns = {k: v for k, v in table.items() if k not in _KEYS}
    unknown = sorted(set(patterns) - set(ROUTING_KEYWORDS))
    if unknown:
        known = ", ".join((*_KEYS, *ROUTING_KEYWORDS))
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}, expected some of {known}")
    if wrong := [k for k, v in patterns.items() if not isinstance(v, str)]:
        raise ConfigError(f"{where} {wrong[0]}: found {patterns[wrong[0]]!r}, expected a pattern")
    to = table.get("to", ())
    names = (to,) if isinstance(to, str) else tuple(map(str, to))
    priority = table.get("priority")
    if priority is not None:
        check_priority(priority, where)
    if not names and priority is None:
        raise ConfigError(f"{where}: expected `to` or `priority`, otherwise the rule does nothing")
    return Rule(name=name, patterns=patterns, to=names, priority=priority)


def check_priority(priority: Any, where: str) -> None:
    """Raise `ConfigError` where `priority` is not 0 to 9."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
        raise ConfigError(f"{where}: priority is {priority!r}, expected 0 to 9")


def route(
    properties: Mapping[str, str], rules: Sequence[Rule], *, to: Sequence[str] = (), priority: int
) -> Route:
    """Where a series with these attributes goes.

    Parameters
    ----------
    properties : mapping
        As `Instance.properties`.
    rules : sequence of Rule
        Every rule that matches adds its destinations; of several priorities the last counts.
    to : sequence of str
        Destinations of every series.
    priority : int
        Where no rule says otherwise.
    """
    matching = [rule for rule in rules if rule.matches(properties)]
    for rule in matching:
        priority = priority if rule.priority is None else rule.priority
    names = (*to, *(name for rule in matching for name in rule.to))
    return Route(destinations=tuple(dict.fromkeys(names)), priority=priority)
