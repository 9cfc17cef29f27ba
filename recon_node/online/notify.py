"""What a service tells systemd (sd_notify(3)): ready, alive, stopping. Without systemd it tells nobody."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(**states: str | int) -> None:
    """Send states such as ``READY=1``; a manager that does not listen is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    lines = "\n".join(f"{name}={value}" for name, value in states.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        sock.sendall(lines.encode())


def watchdog_s() -> float | None:
    """Seconds after which systemd wants to hear ``WATCHDOG=1`` at the latest; None where it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None
