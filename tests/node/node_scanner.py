"""What a scanner sends (FIRE, OpenRecon), and how long it waits."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.messages import (
    ConfigFile,
    HeaderXml,
    ImageMessage,
    MessageId,
    Text,
    message_bytes,
    text_bytes,
)
from recon_node.mrd.wire import read_messages

CONNECT_S = ANSWER_S = 3.0


def opening(raw: Path, **parameters: str) -> bytes:
    """Configuration, header and parameters, as OpenRecon sends them."""
    with open_source(raw) as source:
        xml = source.headers[0].xml
    asked = json.dumps({"parameters": {"config": "default", **parameters}})
    return b"".join(
        [
            bytes(message_bytes(ConfigFile(name="openrecon"))),
            bytes(message_bytes(HeaderXml(xml=xml))),
            text_bytes(MessageId.TEXT, asked),
        ]
    )


def acquisitions(raw: Path) -> list[bytes]:
    """Readouts without waveforms: scanners do not send them by default."""
    with open_source(raw) as source:
        return [bytes(message_bytes(block)) for block in source if isinstance(block, Readouts)]


def talk(port: int, parts: list[bytes]) -> tuple[list[ImageMessage], list[str], float]:
    """Images and texts of one connection, and how long after the last byte the first image came."""
    with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S) as sock:
        sock.settimeout(60.0)
        for part in parts:
            sock.sendall(part)
        sent = time.monotonic()
        answer, first = bytearray(), 0.0
        while data := sock.recv(1 << 16):
            answer += data
            first = first or (time.monotonic() - sent if len(answer) > 1000 else 0.0)
    messages = list(read_messages(memoryview(bytes(answer))))
    images = [message for message in messages if isinstance(message, ImageMessage)]
    return images, [message.text for message in messages if isinstance(message, Text)], first
