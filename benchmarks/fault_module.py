"""What strangers say to the module that a Gadgetron chain connects to, while it serves others."""

from __future__ import annotations

import atexit
import contextlib
import functools
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.fault_node import GOOD_S, SETTINGS, Target, attack_on, connected, holding, reset, say
from benchmarks.fault_server import EVIL, NONSENSE, header, raw
from benchmarks.stream_cuts import small_scan
from recon_node.mrd.messages import ConfigText, ImageMessage, message_bytes
from recon_node.mrd.wire import read_messages

_IMAGES = 2
_CHAIN = '<configuration><property name="mode" value="reconstruct"/>{}</configuration>'


class Module(Target):
    """``python -m recon_node.gadget PORT acquisitions``."""

    def __init__(self, folder: Path) -> None:
        scan, _ = small_scan(folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        super().__init__(folder, ["-m", "recon_node.gadget", str(self.port), "acquisitions"], SETTINGS)
        whole = scan.read_bytes()
        self.header = bytes(message_bytes(next(iter(read_messages(memoryview(whole))))))
        self.data = whole[len(self.header) :]
        end = time.monotonic() + 60
        while self.good_scan() and time.monotonic() < end:
            time.sleep(0.1)

    def chain(self, more: str = "", xml: bytes | None = None) -> bytes:
        """What Gadgetron sends of a scan."""
        return raw(ConfigText(text=_CHAIN.format(more))) + (xml or self.header) + self.data

    def good_scan(self) -> int:
        """Send one as Gadgetron does; how many of its images did not come."""
        answer = say(self.port, self.chain(), listen=GOOD_S)
        with contextlib.suppress(Exception):
            images = [m for m in read_messages(memoryview(answer)) if isinstance(m, ImageMessage)]
            return max(0, _IMAGES - len(images))
        return _IMAGES


@functools.lru_cache(maxsize=1)
def module() -> Module:
    """The one module that all attacks meet."""
    folder = tempfile.TemporaryDirectory(prefix="attacked-module-")
    found = Module(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(found.stop)
    return found


def attack(name: str, act: Callable[[Module], object], times: int = 1) -> None:
    attack_on(module, f"module: {name}", act, times)


def nonsense(name: str, words: list[bytes], *, behind: bool = False) -> None:
    def act(target: Module) -> None:
        start = raw(ConfigText(text=_CHAIN.format(""))) + target.header if behind else b""
        for data in words:
            with contextlib.suppress(OSError), connected(target.port) as sock:
                sock.sendall(start + data)

    attack(name, act, len(words))


for _name, _words in NONSENSE.items():
    nonsense(_name, _words)
    nonsense(f"{_name}, among the data", _words, behind=True)


def cut_everywhere(target: Module) -> None:
    whole = target.chain()
    for number in range(60):
        with contextlib.suppress(OSError):
            sock = connected(target.port)
            sock.sendall(whole[: number * 997 % len(whole)])
            reset(sock) if number % 2 else sock.close()


def names(target: Module) -> None:
    for evil in EVIL:
        xml = target.header[6:].rstrip(b"\0").decode()
        who = f"<subjectInformation><patientName>{evil}</patientName><patientID>{evil}</patientID></subjectInformation>"
        xml = xml.replace("<experimentalConditions>", f"{who}<experimentalConditions>", 1)
        say(target.port, target.chain(xml=header(xml)), listen=5.0)


def properties(target: Module) -> None:
    for name, value in (
        ("method", "os:system"),
        ("weights", "../../x.safetensors"),
        ("series", "9" * 400),
        ("series", "-1"),
        ("mode", "x" * 100_000),
        ("nobody", "knows"),
        ("method", "&#27;[2J"),
    ):
        say(target.port, target.chain(f'<property name="{name}" value="{value}"/>'), listen=5.0)


attack("scan cut anywhere", cut_everywhere, 60)
attack("hostile names", names, len(EVIL))
attack("hostile properties", properties, 7)
attack("300 connections that say nothing", lambda m: holding(m.port, 300), 300)
attack(
    "a header of 2 GB announced",
    lambda m: holding(m.port, 8, [struct.pack("<HI", 2, (1 << 31) - 1) + b"<"]),
    8,
)
