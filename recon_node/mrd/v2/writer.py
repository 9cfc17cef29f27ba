"""Write an MRD 2 stream by a schema: that of the stream which is answered."""

from __future__ import annotations

from typing import Any, BinaryIO

from recon_node.core.errors import ConfigError
from recon_node.mrd.messages import ImageMessage
from recon_node.mrd.v2.encode import MAGIC, encoder, text, varint
from recon_node.mrd.v2.items import image_item
from recon_node.mrd.v2.schema import Schema, parse_schema


class MrdV2Writer:
    """Images as an MRD 2 stream.

    Parameters
    ----------
    stream : binary stream
        Written from beginning to end, flushed after every image.
    schema : Schema
        Of the stream that is answered, so that whoever wrote it can read the answer.
    header : bytes
        The header as it stands in that stream; none by default.
    """

    def __init__(self, stream: BinaryIO, schema: Schema, *, header: bytes = b"\0") -> None:
        self._stream = stream
        self._schema = schema
        self._item = encoder(schema.item)
        self._start = MAGIC + text(schema.text) + header

    def image(self, message: ImageMessage) -> None:
        """Write one image."""
        self._put(varint(1) + self._item(image_item(self._schema, message)))

    def item(self, tag: str, record: Any) -> None:
        """Write one item as it is given, for `encode`."""
        self._put(varint(1) + self._item((tag, record)))

    def close(self) -> None:
        """End the stream; the file stays open."""
        self._put(b"\0")

    def _put(self, data: bytes) -> None:
        start, self._start = self._start, b""
        self._stream.write(start + data)
        self._stream.flush()


def installed_schema() -> Schema:
    """The schema of the installed ``mrd-python``, for answers to streams that are not MRD 2.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        from mrd.protocols import MrdWriterBase
    except ImportError as error:
        raise ConfigError(
            "MRD 2 output for an ISMRMRD stream needs a version to write: pip install mrd-python"
        ) from error
    return parse_schema(MrdWriterBase.schema)
