"""A live node under attack: what an attacker does, then a good scan, and what all of it cost.

Counted after each attack: the good scan's images and time, the node's peak of memory, whether it is ready, its
threads, and what its log holds that should not be there. Its times of patience are short, so that who keeps places is
told off within the campaign; what bounds its memory is as it comes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import re
import socket
import struct
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.fault_parts import KINDS, Verdict
from benchmarks.served import Served
from benchmarks.stream_cuts import small_scan
from recon_node.core.errors import ReconNodeError
from recon_node.mrd.messages import close_bytes, message_bytes
from recon_node.mrd.wire import read_messages
from recon_node.offline.send import send_scan

GOOD_S = 10.0
"""Within which a good scan is served after each attack."""
MOST_MB = 2048.0
_IMAGES = 2
_LINE = re.compile(r"time=\S+Z level=\w+ logger=\S+ message=")
_UNCAUGHT = re.compile(r"Traceback|scan failed:|Exception in thread|Fatal Python|out of memory")
SETTINGS = {
    "SERVER__HANDSHAKE_S": "3",
    "SERVER__TIMEOUT_S": "3",
    "SERVER__WAITING": "4",
    "SERVER__DRAIN_S": "2",
    "RECON__METHOD": "zero-filled",
    "RECON__FALLBACK": "zero-filled",
    "RECON__CHECK_TRUST": "false",
    "DELIVERY__RESERVE_MB": "0",
    "SERVER__RECORD_LIMIT_MB": "500",
}
TOKEN = "a-token-of-32-characters-or-more"


class Target(Served):
    """Something that serves, and is attacked."""

    def good_scan(self) -> int:
        """Send a good scan; how many of its images did not come."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it says that it takes scans."""
        return True

    def outside(self) -> list[Path]:
        """Files that are not in a folder of its own."""
        return []


class Live(Target):
    """A node that serves, with its status and health port and a configuration of each mode."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scan, _ = small_scan(folder)
        self.scan = scan
        self.inside = folder / "node"
        self.inside.mkdir()
        config = folder / "node.toml"
        config.write_text(
            f'[server]\nstatus_token = "{TOKEN}"\nstatus_port = 0\n[server.configurations.later]\nmode = "deferred"\n'
            '[server.configurations.fetch]\nmode = "retrieve"\n[server.configurations.gated]\n'
            'gating = "retrospective"\n[server.configurations.echo]\nmode = "echo"\n'
        )
        command = ["-m", "recon_node", "serve", "--port", "0", "--health-port", "0", "--config", str(config)]
        super().__init__(self.inside, command, SETTINGS)
        self.port = int(self.told(r"listening on .*:(\d+),"))
        self.health = int(self.told(r"health: http://127.0.0.1:(\d+)/"))
        self.status = int(self.told(r"status: http://127.0.0.1:(\d+)/"))
        self.whole = scan.read_bytes()
        self.header = bytes(message_bytes(next(iter(read_messages(memoryview(self.whole))))))
        self.data = self.whole[len(self.header) : -len(close_bytes())]

    def good_scan(self) -> int:
        """Send one; how many of its images did not come."""
        try:
            done = send_scan(self.scan, port=self.port, timeout=30.0)
        except ReconNodeError:
            return _IMAGES
        return max(0, _IMAGES - done.images)

    def ready(self) -> bool:
        """What ``/readyz`` says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=10) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def outside(self) -> list[Path]:
        """Files that are not in a folder of the node's."""
        own = {self.scan.name, "node.toml"}
        inside = {"dicom", "recorded", "deferred", "spool", "log"}
        found = [p for p in self.folder.iterdir() if p.name not in own and p != self.inside]
        return found + [p for p in self.inside.iterdir() if p.name not in inside]


Attack = Callable[[Live], object]


@functools.lru_cache(maxsize=1)
def live() -> Live:
    """The one node that all attacks meet, in turn."""
    folder = tempfile.TemporaryDirectory(prefix="attacked-")
    node = Live(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(node.stop)
    node.good_scan()
    return node


def attack(name: str, act: Attack, *, times: int = 1) -> None:
    """Register a kind: `act` on the live node, then the good scan.

    What `act` returns is closed behind that, or is the number of things that got out; `times` is how often it tries.
    """
    attack_on(live, f"node: {name}", act, times)


def attack_on(target: Callable[[], Target], name: str, act: Callable[..., object], times: int) -> None:
    """Register a kind of attack on something that serves."""

    def experiments(_folder: Path, _short: bool) -> Iterator[Verdict]:
        yield judged(target(), act, times)

    KINDS.append((name, experiments))


def judged(target: Target, act: Callable[..., object], times: int) -> Verdict:
    """Attack, send the good scan, and look at what all of it cost."""
    target.new_log()
    target.forget_peak()
    with contextlib.suppress(OSError), contextlib.ExitStack() as held:
        kept = act(target)
        if isinstance(kept, contextlib.ExitStack):
            held.push(kept)
        lost, good_s = served(target)
        if not target.alive:
            return Verdict(times, lost=lost, dead=1)
        return Verdict(
            faults=times,
            lost=lost,
            stuck=int(not target.ready()) + int(good_s > GOOD_S),
            outside=len(target.outside()) + (kept if isinstance(kept, int) else 0),
            dead=trouble(target.new_log()),
            peak_mb=target.peak_mb(),
            good_s=good_s,
        )
    return Verdict(times, lost=1)


def served(target: Target) -> tuple[int, float]:
    """Send the good scan until it is served; images that did not come, and seconds."""
    began = time.monotonic()
    lost = target.good_scan()
    while lost and time.monotonic() < began + GOOD_S:
        time.sleep(0.1)
        lost = target.good_scan()
    return lost, time.monotonic() - began


def trouble(log: str) -> int:
    """Lines that tell of an exception nobody caught, or that the node did not write itself."""
    lines = [line for line in log.split("\n") if line]
    return sum(
        bool(_UNCAUGHT.search(line)) or not _LINE.match(line) or not line.isprintable() for line in lines
    )


# ---------------------------------------------------------------- what attacks are made of


def connected(port: int, seconds: float = 10.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), seconds)


def say(port: int, *parts: bytes, listen: float = 3.0, most: int = 1 << 24) -> bytes:
    """Send, and take what comes until it ends; a peer that hangs up is no news."""
    answer = bytearray()
    with contextlib.suppress(OSError), connected(port) as sock:
        sock.settimeout(listen)
        with contextlib.suppress(OSError):
            for part in parts:
                sock.sendall(part)
        while (got := sock.recv(1 << 16)) and len(answer) < most:
            answer += got
    return bytes(answer)


def reset(sock: socket.socket) -> None:
    """End a connection by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def holding(port: int, count: int, data: Sequence[bytes] = (b"",)) -> contextlib.ExitStack:
    """Open connections that say something and then nothing; closed when the stack is left."""
    stack = contextlib.ExitStack()
    for number in range(count):
        with contextlib.suppress(OSError):
            sock = stack.enter_context(connected(port, 2.0))
            sock.sendall(data[number % len(data)])
    return stack
