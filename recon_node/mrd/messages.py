"""The messages of the MRD (ISMRMRD) wire protocol: their ids, their values, and how values become bytes.

Every message is a little-endian uint16 id followed by a payload. Layouts: ISMRMRD 1.x
(``ismrmrd.h``, ``waveform.h``) and the Gadgetron message ids (``MessageID.h``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.axes import frozen
from recon_node.core.errors import ProtocolError
from recon_node.core.scan import Readouts, Waveform


class MessageId(IntEnum):
    """Message ids that this package can frame."""

    CONFIG_FILE = 1
    CONFIG_TEXT = 2
    HEADER = 3
    CLOSE = 4
    TEXT = 5
    ERROR = 8
    ACQUISITION = 1008
    IMAGE = 1022
    RECON_DATA = 1023
    IMAGE_ARRAY = 1024
    WAVEFORM = 1026
    NDARRAY = 1030
    BUCKET = 1050


CONFIG_FILE_BYTES = 1024
"""A configuration name is sent in a field of this size, padded with zero bytes."""

ID = struct.Struct("<H")
LENGTH32 = struct.Struct("<I")
LENGTH64 = struct.Struct("<Q")

WAVEFORM_HEADER = np.dtype(
    {
        "names": [
            "version",
            "flags",
            "measurement_uid",
            "scan_counter",
            "time_stamp",
            "number_of_samples",
            "channels",
            "sample_time_us",
            "waveform_id",
        ],
        "formats": ["<u2", "<u8", "<u4", "<u4", "<u4", "<u2", "<u2", "<f4", "<u2"],
        "offsets": [0, 8, 16, 20, 24, 28, 30, 32, 36],
        "itemsize": 40,
    }
)
"""ISMRMRD waveform header: naturally aligned (40 bytes), unlike the packed acquisition header."""

IMAGE_HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("data_type", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("matrix_size", "<u2", (3,)),
        ("field_of_view", "<f4", (3,)),
        ("channels", "<u2"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
        ("phase_dir", "<f4", (3,)),
        ("slice_dir", "<f4", (3,)),
        ("patient_table_position", "<f4", (3,)),
        ("average", "<u2"),
        ("slice", "<u2"),
        ("contrast", "<u2"),
        ("phase", "<u2"),
        ("repetition", "<u2"),
        ("set", "<u2"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("image_type", "<u2"),
        ("image_index", "<u2"),
        ("image_series_index", "<u2"),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
        ("attribute_string_len", "<u4"),
    ]
)
"""ISMRMRD image header (198 bytes, packed)."""

PIXEL_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u2"),
    2: np.dtype("<i2"),
    3: np.dtype("<u4"),
    4: np.dtype("<i4"),
    5: np.dtype("<f4"),
    6: np.dtype("<f8"),
    7: np.dtype("<c8"),
    8: np.dtype("<c16"),
}
"""ISMRMRD data type codes (``ISMRMRD_DataTypes``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """The peer asks for a configuration by name (message 1)."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigText:
    """The peer sends a configuration as text, normally XML (message 2)."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderXml:
    """The ISMRMRD header (message 3). Holds patient data: its `repr` shows nothing."""

    xml: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text (message 5): progress or trouble from a server, parameters from a client."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteError:
    """An error that a module reports to Gadgetron (message 8)."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """The peer has sent everything (message 4)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageMessage:
    """One ISMRMRD image (message 1022)."""

    head: NDArray[Any]
    """`(1,)` of dtype IMAGE_HEADER."""
    attributes: str = field(repr=False)
    """Meta attributes, ``<ismrmrdMeta>`` XML."""
    data: NDArray[Any] = field(repr=False)
    """`(channel, z, y, x)`, one of the dtypes of PIXEL_TYPES."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", frozen("head", self.head, "1", IMAGE_HEADER, {}))
        object.__setattr__(self, "data", frozen("data", self.data, "channel z y x", self.data.dtype, {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """A well-framed message that is only ever passed on (image arrays, plain arrays, Gadgetron types)."""

    message_id: int
    payload: bytes = field(repr=False)
    """Everything after the message id."""


Message = (
    ConfigFile
    | ConfigText
    | HeaderXml
    | Text
    | RemoteError
    | Close
    | Readouts
    | Waveform
    | ImageMessage
    | Opaque
)


def text_bytes(message_id: MessageId, text: str | bytes) -> bytes:
    """Bytes of a CONFIG_TEXT, HEADER or TEXT message: uint32 length, then the text in UTF-8."""
    body = text.encode() if isinstance(text, str) else text
    return ID.pack(message_id) + LENGTH32.pack(len(body)) + body


def error_bytes(text: str) -> bytes:
    """Bytes of an ERROR message, which has a uint64 length. Only Gadgetron understands it."""
    body = text.encode()
    return ID.pack(MessageId.ERROR) + LENGTH64.pack(len(body)) + body


def config_file_bytes(name: str) -> bytes:
    """Bytes of a CONFIG_FILE message.

    Raises
    ------
    ProtocolError
        If the name does not fit the 1024-byte field with its closing zero.
    """
    body = name.encode()
    if len(body) >= CONFIG_FILE_BYTES:
        raise ProtocolError(
            f"configuration name has {len(body)} bytes, the protocol allows {CONFIG_FILE_BYTES - 1}"
        )
    return ID.pack(MessageId.CONFIG_FILE) + body.ljust(CONFIG_FILE_BYTES, b"\0")


def close_bytes() -> bytes:
    """Bytes of a CLOSE message."""
    return ID.pack(MessageId.CLOSE)


def readouts_bytes(readouts: Readouts) -> memoryview:
    """Bytes of a run of readouts as ACQUISITION messages, one after the other.

    `Readouts` holds no trajectory, so the messages announce none; sizes in the headers are set from
    the samples.
    """
    count, coils, samples = readouts.samples.shape
    width = ID.size + ACQUISITION_HEADER.itemsize
    head = readouts.head.copy()
    head["number_of_samples"] = samples
    head["active_channels"] = coils
    head["trajectory_dimensions"] = 0
    rows = np.empty((count, width + coils * samples * 8), np.uint8)
    rows[:, : ID.size] = np.frombuffer(ID.pack(MessageId.ACQUISITION), np.uint8)
    rows[:, ID.size : width] = head.view(np.uint8).reshape(count, ACQUISITION_HEADER.itemsize)
    rows[:, width:] = (
        np.ascontiguousarray(readouts.samples).view(np.uint8).reshape(count, coils * samples * 8)
    )
    return rows.reshape(-1).data


def waveform_bytes(waveform: Waveform) -> bytes:
    """Bytes of a WAVEFORM message."""
    channels, samples = waveform.data.shape
    head = np.zeros(1, WAVEFORM_HEADER)
    head["version"] = 1
    head["time_stamp"] = waveform.time_stamp
    head["number_of_samples"] = samples
    head["channels"] = channels
    head["sample_time_us"] = waveform.sample_time_us
    head["waveform_id"] = waveform.waveform_id
    return ID.pack(MessageId.WAVEFORM) + head.tobytes() + waveform.data.astype("<u4").tobytes()


def completed_head(image: ImageMessage) -> NDArray[Any]:
    """The image's header, `(1,)`, with type, sizes and attribute length set from what is really there.

    Raises
    ------
    ProtocolError
        If the format has no code for the pixels' dtype.
    """
    codes = {dtype: code for code, dtype in PIXEL_TYPES.items()}
    if image.data.dtype not in codes:
        raise ProtocolError(f"an MRD image cannot hold {image.data.dtype}, only {', '.join(map(str, codes))}")
    head = image.head.copy()
    head["data_type"] = codes[image.data.dtype]
    head["channels"] = image.data.shape[0]
    head["matrix_size"] = image.data.shape[:0:-1]
    head["attribute_string_len"] = len(image.attributes.encode())
    return head


def image_bytes(image: ImageMessage) -> bytes:
    """Bytes of an IMAGE message."""
    attributes = image.attributes.encode()
    head = completed_head(image).tobytes()
    return b"".join(
        (ID.pack(MessageId.IMAGE), head, LENGTH64.pack(len(attributes)), attributes, image.data.tobytes())
    )


def message_bytes(message: Message) -> bytes | memoryview:
    """Bytes of any message, its id included."""
    match message:
        case Readouts():
            return readouts_bytes(message)
        case Waveform():
            return waveform_bytes(message)
        case ImageMessage():
            return image_bytes(message)
        case Opaque():
            return ID.pack(message.message_id) + message.payload
        case _:
            return _control_bytes(message)


def _control_bytes(message: ConfigFile | ConfigText | HeaderXml | Text | RemoteError | Close) -> bytes:
    match message:
        case ConfigFile():
            return config_file_bytes(message.name)
        case ConfigText():
            return text_bytes(MessageId.CONFIG_TEXT, message.text)
        case HeaderXml():
            return text_bytes(MessageId.HEADER, message.xml)
        case Text():
            return text_bytes(MessageId.TEXT, message.text)
        case RemoteError():
            return error_bytes(message.text)
        case Close():
            return close_bytes()
