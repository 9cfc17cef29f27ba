"""ISMRMRD meta attributes: the ``<ismrmrdMeta>`` document that travels with an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from recon_node.mrd.xml_tree import parse_xml

Values = str | float | int | Sequence[str | float | int]


def meta_xml(attributes: Mapping[str, Values]) -> str:
    """An ``<ismrmrdMeta>`` document; a sequence becomes several values of one name.

    Characters that XML cannot hold are dropped, so that no text can make the document unreadable.
    """
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n<ismrmrdMeta>']
    for name, values in attributes.items():
        several = [values] if isinstance(values, str | int | float) else list(values)
        texts = "".join(f"<value>{_text(value)}</value>" for value in several)
        parts.append(f"<meta><name>{_text(name)}</name>{texts}</meta>")
    return "".join([*parts, "</ismrmrdMeta>"])


def parse_meta(xml: str) -> dict[str, tuple[str, ...]]:
    """Attributes by name, each with all its values.

    Raises
    ------
    SourceError
        The text is no XML. An empty text has no attributes.
    """
    attributes: dict[str, tuple[str, ...]] = {}
    if not xml.strip():
        return attributes
    for node in parse_xml(xml, what="meta attributes").find_all("meta"):
        name = node.value("name")
        if name is not None:
            values = tuple(value.text for value in node.find_all("value"))
            attributes[name] = attributes.get(name, ()) + values
    return attributes


def _text(value: str | float) -> str:
    # XML 1.0 section 2.2: tab, line ends and the printable planes only.
    allowed = (c for c in str(value) if c in "\t\n\r" or " " <= c < "\ud800" or c > "\udfff")
    return escape("".join(c for c in allowed if c not in "\ufffe\uffff"))
