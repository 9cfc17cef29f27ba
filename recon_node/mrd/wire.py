"""Read and write MRD streams: the one place where bytes become values and values become bytes.

`read_messages` reads any stream: a socket through `transport.SocketTransport`, a memory-mapped MRD file
through a memoryview. Acquisitions come in runs: whatever is there of one shape becomes one
`Readouts`, so that a fast stream costs little per line and a slow one is handed on line by line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np

from recon_node.core.errors import ProtocolError
from recon_node.core.scan import Waveform
from recon_node.mrd.frames import ByteSource, Frame, FrameReader, WireLimits
from recon_node.mrd.messages import (
    IMAGE_HEADER,
    LENGTH32,
    LENGTH64,
    PIXEL_TYPES,
    WAVEFORM_HEADER,
    Close,
    ConfigFile,
    ConfigText,
    HeaderXml,
    ImageMessage,
    Message,
    MessageId,
    Opaque,
    RemoteError,
    Text,
    message_bytes,
)
from recon_node.mrd.rows import run_view

__all__ = [
    "Close",
    "ConfigFile",
    "ConfigText",
    "Frame",
    "FrameReader",
    "HeaderXml",
    "ImageMessage",
    "Message",
    "MessageId",
    "MessageWriter",
    "Opaque",
    "RemoteError",
    "Text",
    "WireLimits",
    "decode",
    "read_messages",
]


def read_messages(
    source: ByteSource | memoryview, *, limits: WireLimits | None = None, close_optional: bool = False
) -> Iterator[Message]:
    """Every message of a stream, in order, the final `Close` included.

    Parameters
    ----------
    source : ByteSource or memoryview
        For a file: ``memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))`` reads without
        loading it; samples stay views of it.
    limits : WireLimits, optional
    close_optional : bool
        True for files, which some writers leave without a CLOSE message.

    Yields
    ------
    Message
        ConfigFile, ConfigText, HeaderXml, Readouts (a run of one shape), Waveform, ImageMessage, Text,
        RemoteError, Opaque (well framed, but only passed on) or Close.

    Raises
    ------
    TruncatedStream, ProtocolError
        See `FrameReader`.
    """
    for frame in FrameReader(source, limits=limits, close_optional=close_optional):
        yield decode(frame)


def decode(frame: Frame) -> Message:
    """The value of a frame; the samples of readouts are a view of the frame's bytes (see `rows.run_view`)."""
    decoder = _DECODERS.get(frame.message_id)
    if decoder is None:
        return Opaque(message_id=frame.message_id, payload=bytes(frame.payload))
    return decoder(frame)


class MessageWriter:
    """Writes whole messages, each with one call of `send`; safe to use from several threads.

    Parameters
    ----------
    send : callable
        Takes bytes and returns when all are sent, for example ``socket.sendall`` or ``file.write``.
    """

    def __init__(self, send: Callable[[bytes | memoryview], object]) -> None:
        self._send = send
        self._lock = threading.Lock()

    def write(self, message: Message) -> None:
        """Send one message (a run of readouts is many ACQUISITION messages in one call)."""
        self.write_raw(message_bytes(message))

    def write_raw(self, raw: bytes | memoryview) -> None:
        """Send bytes that are whole messages already (`Frame.raw`)."""
        with self._lock:
            self._send(raw)


def _waveform(frame: Frame) -> Waveform:
    head = np.frombuffer(frame.payload[: WAVEFORM_HEADER.itemsize], WAVEFORM_HEADER)[0]
    data = np.frombuffer(frame.payload[WAVEFORM_HEADER.itemsize :], "<u4").astype(np.uint32)
    return Waveform(
        waveform_id=int(head["waveform_id"]),
        time_stamp=int(head["time_stamp"]),
        sample_time_us=float(head["sample_time_us"]),
        data=data.reshape(int(head["channels"]), int(head["number_of_samples"])),
    )


def _image(frame: Frame) -> ImageMessage:
    payload = frame.payload
    head = np.frombuffer(payload[: IMAGE_HEADER.itemsize], IMAGE_HEADER).copy()
    (size,) = LENGTH64.unpack_from(payload, IMAGE_HEADER.itemsize)
    start = IMAGE_HEADER.itemsize + LENGTH64.size
    attributes = _utf8("IMAGE attributes", payload[start : start + size].tobytes().rstrip(b"\0"))
    pixels = np.frombuffer(payload[start + size :], PIXEL_TYPES[int(head["data_type"][0])]).copy()
    x, y, z = head["matrix_size"][0].tolist()
    return ImageMessage(
        head=head, attributes=attributes, data=pixels.reshape(int(head["channels"][0]), z, y, x)
    )


def _utf8(what: str, body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{what} is not UTF-8 text (byte {error.start} of {len(body)})") from error


def _text(frame: Frame) -> str:
    return _utf8(frame.message_id.name, bytes(frame.payload[LENGTH32.size :]))


def _config_file(frame: Frame) -> ConfigFile:
    return ConfigFile(name=_utf8("CONFIG_FILE", bytes(frame.payload).split(b"\0", 1)[0]))


_DECODERS: dict[MessageId, Callable[[Frame], Message]] = {
    MessageId.CONFIG_FILE: _config_file,
    MessageId.CONFIG_TEXT: lambda frame: ConfigText(text=_text(frame).rstrip("\0")),
    MessageId.HEADER: lambda frame: HeaderXml(xml=bytes(frame.payload[LENGTH32.size :])),
    MessageId.TEXT: lambda frame: Text(text=_text(frame).rstrip("\0")),
    MessageId.ERROR: lambda frame: RemoteError(text=_utf8("ERROR", bytes(frame.payload[LENGTH64.size :]))),
    MessageId.ACQUISITION: lambda frame: run_view(frame.raw, 0, frame.count),
    MessageId.IMAGE: _image,
    MessageId.WAVEFORM: _waveform,
    MessageId.CLOSE: lambda _frame: Close(),
}
