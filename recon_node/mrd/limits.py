"""What a server or a listening gadget allows its connections."""

from __future__ import annotations

from dataclasses import dataclass, field

from recon_node.mrd.frames import WireLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What is allowed to the connections of a server or a listening gadget."""

    scans: int = 4
    """Scans reconstructed at a time."""
    waiting: int = 8
    """More scans that may wait for their turn; others are refused."""
    arriving: int = 16
    """More connections that may be open before their header has come."""
    handshake_seconds: float = 30.0
    """From connecting to the end of the header."""
    scan_bytes: int = 64 << 30
    """Received in one scan."""
    scan_seconds: float = 4 * 3600.0
    """From connecting to the last acquisition."""
    outbox_bytes: int = 64 << 20
    """Images waiting for a peer that is slow to read."""
    buffer_bytes: int = 1 << 30
    """Messages of all connections that have not arrived whole."""
    send_seconds: float = 60.0
    """Without the peer accepting anything."""
    slowest_reader: float = 128e3
    """Bytes each second that a peer takes on average, beyond `send_seconds` once."""
    slowest_sender: float = 256.0
    """Bytes of data each second that a peer sends on average, beyond ten times the wire's idle time once."""
    linger_seconds: float = 10.0
    """For the peer to read the last message before the connection is closed."""
    wire: WireLimits = field(default_factory=WireLimits)
