"""XML of unknown origin to a plain tree: namespaces stripped, document types refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from recon_node.core.errors import SourceError
from recon_node.mrd.encodings import decoded

MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_BYTES = 16 << 20


@dataclass(slots=True)
class Node:
    """One element: its name without namespace, text, attributes and children."""

    name: str
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def find(self, path: str) -> Node | None:
        """The first descendant at `path` (names separated by ``/``), or None."""
        return next(self.find_all(path), None)

    def find_all(self, path: str) -> Iterator[Node]:
        """Every descendant at `path`, in document order."""
        name, _, rest = path.partition("/")
        for child in self.children:
            if child.name == name:
                if rest:
                    yield from child.find_all(rest)
                else:
                    yield child

    def value(self, path: str) -> str | None:
        """Stripped text at `path`; None where it is absent or blank."""
        node = self.find(path)
        return (node.text.strip() or None) if node is not None else None


class _Builder:
    def __init__(self, what: str) -> None:
        self.what = what
        self.root = Node("")
        self._open = [self.root]
        self._nodes = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) > MAX_DEPTH:
            raise SourceError(f"{self.what}: XML is nested deeper than {MAX_DEPTH} elements")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise SourceError(f"{self.what}: XML has more than {MAX_NODES} elements")
        node = Node(name.rpartition(":")[2], attributes=attributes)
        self._open[-1].children.append(node)
        self._open.append(node)

    def end(self, _name: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        self._open[-1].text += data

    def doctype(self, *_: object) -> None:
        raise SourceError(
            f"{self.what}: XML with a document type declaration is refused (entities could expand)"
        )


def parse_xml(xml: bytes | str, *, what: str = "header") -> Node:
    """Parse a document and return its root element; `what` is its name in error messages.

    Raises
    ------
    SourceError
        When it is no well-formed XML, declares a document type, or is absurdly large or deep.
    """
    if len(xml) > MAX_BYTES:
        raise SourceError(f"{what}: XML of {len(xml)} bytes, at most {MAX_BYTES} are read")
    text = xml.strip("\0 \t\r\n") if isinstance(xml, str) else decoded(bytes(xml), what=what)
    builder = _Builder(what)
    parser = expat.ParserCreate("utf-8")  # whatever the document declares: it is text already
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.doctype
    try:
        parser.Parse(text.encode(), True)
    except (expat.ExpatError, ValueError) as error:
        raise SourceError(f"{what} is not well-formed XML ({error}); expected an ISMRMRD {what}") from error
    return builder.root.children[0]
