"""What a peer asks for: a configuration's name and properties, never code and never a path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from recon_node.core.errors import ConfigError, ProtocolError, SourceError
from recon_node.mrd.xml_tree import Node, parse_xml

DEFAULT_NAME = "default"
_OPENRECON_NAME = "openrecon"
"""What every OpenRecon scanner asks for; which configuration is meant is among the parameters."""
_MAX_PROPERTIES = 64
WHITENED = "unit-parts"
"""Of the property noise, behind Gadgetron's NoiseAdjust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """Configuration that a peer asked for."""

    name: str = DEFAULT_NAME
    properties: Mapping[str, str] = field(default_factory=dict)
    named: bool = False
    """Whether the peer gave the name."""

    def merged(self, other: ScanConfig) -> ScanConfig:
        """What `other`, which came later, adds: its properties, and its name where it gave one."""
        latest = other if other.named else self
        properties = {**self.properties, **other.properties}
        return ScanConfig(name=latest.name, named=latest.named, properties=properties)


def config_from_name(name: str) -> ScanConfig:
    """What a CONFIG_FILE message asks for; ``NAME.xml``, as Gadgetron's client sends it, means ``NAME``."""
    name = name.strip().removesuffix(".xml")
    named = name not in ("", _OPENRECON_NAME)
    return ScanConfig(name=name if named else DEFAULT_NAME, named=named)


def config_from_text(text: str) -> ScanConfig:
    """What a CONFIG_TEXT message asks for.

    Parameters
    ----------
    text : str
        A ``<configuration>`` with ``<property name= value=/>`` children, a Gadgetron chain that holds
        an ``<external>`` with such a configuration, a JSON object as in `parameters_from_json`, or
        nothing but a configuration's name.

    Raises
    ------
    ProtocolError
        The text is none of these, or a chain of gadgets that only Gadgetron can run.
    ConfigError
        A chain that says its data was whitened, by a gadget that this server does not run.
    """
    text = text.strip().lstrip("\ufeff")
    if not text or text.endswith("?>"):
        return ScanConfig()
    if text.startswith("{"):
        config = parameters_from_json(text)
        return config if config is not None else ScanConfig()
    if not text.startswith("<"):
        return config_from_name(text)
    properties = properties_from_xml(text)
    if properties.get("noise") == WHITENED and _noise_is_adjusted(text):
        raise ConfigError(
            f"the chain's NoiseAdjustGadget whitens what its node gets (noise = {WHITENED}), and this server "
            "does not run it: send recon_node_acquisitions.xml, or name a configuration of this server"
        )
    return ScanConfig(properties=properties)


def _noise_is_adjusted(text: str) -> bool:
    """Whether a chain of gadgets adjusts the noise before the node gets its data."""
    for node in _descendants(parse_xml(text, what="configuration")):
        if node.name == "external":
            return False
        if node.name == "gadget" and "NoiseAdjust" in (node.value("classname") or ""):
            return True
    return False


def properties_from_xml(text: str | bytes) -> dict[str, str]:
    """Properties of a ``<configuration>``; other children are ignored.

    Raises
    ------
    ProtocolError
        No XML, another root, a property without name or value, or a chain without an ``<external>``.
    """
    try:
        root = parse_xml(text, what="configuration")
    except SourceError as error:
        raise ProtocolError(str(error)) from error
    if root.name != "configuration":
        raise ProtocolError(f"configuration has root <{root.name}>, expected <configuration>")
    if root.find("stream") is not None:
        root = _external_configuration(root)
    properties: dict[str, str] = {}
    for node in root.find_all("property"):
        name, value = node.attributes.get("name"), node.attributes.get("value")
        if not name or value is None:
            raise ProtocolError(
                'configuration has a <property> that is not <property name="..." value="..."/>'
            )
        properties[name] = value
    if len(properties) > _MAX_PROPERTIES:
        raise ProtocolError(f"configuration has {len(properties)} properties, the limit is {_MAX_PROPERTIES}")
    return properties


def _external_configuration(root: Node) -> Node:
    for node in _descendants(root):
        if node.name == "external":
            return node.find("configuration") or Node("configuration")
    raise ProtocolError(
        "configuration is a chain of gadgets without an <external>: only Gadgetron can run it; "
        "ask this server for one of its own configurations by name"
    )


def _descendants(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield child
        yield from _descendants(child)


def parameters_from_json(text: str) -> ScanConfig | None:
    """Parameters as OpenRecon sends them, in a TEXT message after the header.

    Parameters
    ----------
    text : str
        ``{"parameters": {...}}`` or the inner object alone; strings, numbers and booleans.

    Returns
    -------
    ScanConfig or None
        `config` names the configuration, the other parameters are its properties (booleans as
        ``true`` and ``false``); None if the text is no JSON object.

    Raises
    ------
    ProtocolError
        It looks like an object but is none, or a parameter holds a list, an object or null: a scan must not
        be made with other parameters than those that were meant.
    """
    if not text.lstrip().startswith("{"):
        return None
    try:
        tree = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise ProtocolError(f"parameters are malformed JSON ({kind}), expected an object") from error
    parameters = tree.get("parameters", tree)
    if not isinstance(parameters, dict) or len(parameters) > _MAX_PROPERTIES:
        raise ProtocolError(f"parameters are not an object of at most {_MAX_PROPERTIES} names")
    properties = {name: _value(name, value) for name, value in parameters.items() if name != "customconfig"}
    return replace(config_from_name(properties.pop("config", "")), properties=properties)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object none of whose names stands twice.

    Raises
    ------
    ValueError
        One does: nobody knows which was meant.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    kind = type(value).__name__
    raise ProtocolError(f"parameter {name!r} is a {kind}, expected a text, a number or a boolean")


def check_properties(properties: Mapping[str, str], known: Mapping[str, str], *, where: str) -> None:
    """Refuse properties that nobody understands.

    Parameters
    ----------
    properties : mapping
        What was asked for.
    known : mapping
        Name to one line of description.
    where : str
        What held the properties, for the message.

    Raises
    ------
    ConfigError
        Names the unknown property and the known ones.
    """
    unknown = sorted(set(properties) - set(known))
    if unknown:
        raise ConfigError(
            f"{where}: unknown property {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}"
        )
