"""How fast acquisitions are read from a loopback socket, against the gadgetron package and bare recv_into.

Run: ``python -m benchmarks.wire [--lines N] [--coils N] [--samples N] [--rounds N] [--json]``

All readers get the same bytes from a sender in another process, in turn, in one run. Counted is the
receiver's CPU time (user and system). It still depends on what else the machine does: where sender and receiver
share a core, the data waits in memory instead of a cache. Both bare loops throw the bytes away, in one buffer used
over and over: ``recv_into`` on the socket as it is (1 MiB), ``gathered`` through the node's
transport (4 MiB), which lets the system collect a flood and so wakes up less often. The node's reader gives headers as a copy and samples
as a view of the bytes received; ``and copied`` is the same with the one copy that the preparation makes of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable

import numpy as np
from gadgetron.external.connection import Connection

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.scan import Readouts
from recon_node.mrd.messages import Close, ConfigText, HeaderXml, message_bytes
from recon_node.mrd.transport import SocketTransport
from recon_node.mrd.wire import read_messages

HEADER = b"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>1</x><y>1</y><z>1</z></matrixSize>
<fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>1</x><y>1</y><z>1</z></matrixSize>
<fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></reconSpace>
<encodingLimits/><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def stream(lines: int, coils: int, samples: int) -> bytes:
    head = np.zeros(lines, ACQUISITION_HEADER)
    head["version"] = 1
    head["scan_counter"] = np.arange(lines)
    readouts = Readouts(head=head, samples=np.ones((lines, coils, samples), np.complex64))
    parts = (ConfigText(text="<configuration/>"), HeaderXml(xml=HEADER), readouts, Close())
    return b"".join(bytes(message_bytes(part)) for part in parts)


def send(port: int, data: bytes, times: int) -> None:
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(16)


def read_raw(sock: socket.socket, total: int) -> int:
    room = memoryview(bytearray(1 << 20))
    while total:
        total -= sock.recv_into(room)
    return 0


def read_gathered(sock: socket.socket, total: int) -> int:
    room, transport = memoryview(bytearray(4 << 20)), SocketTransport(sock)
    while total:
        total -= transport.receive(room, time.monotonic() + 60)
    return 0


def read_node(sock: socket.socket, _total: int) -> int:
    messages = read_messages(SocketTransport(sock))
    return sum(len(message) for message in messages if isinstance(message, Readouts))


def read_copied(sock: socket.socket, _total: int) -> int:
    count = 0
    for message in read_messages(SocketTransport(sock)):
        if isinstance(message, Readouts):
            count += len(np.require(message.samples, requirements=["C", "A"]))
    return count


def read_gadgetron(sock: socket.socket, _total: int) -> int:
    return sum(1 for _ in Connection(sock))


READERS: dict[str, Callable[[socket.socket, int], int]] = {
    "recv_into": read_raw,
    "gathered": read_gathered,
    "recon-node": read_node,
    "and copied": read_copied,
    "gadgetron": read_gadgetron,
}


def measure(lines: int, coils: int, samples: int, rounds: int) -> dict[str, float]:
    """Median acquisitions per CPU second by reader."""
    data = stream(lines, coils, samples)
    rates: dict[str, list[float]] = {name: [] for name in READERS}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sender = multiprocessing.Process(
            target=send, args=(port, data, (rounds + 1) * len(READERS)), daemon=True
        )
        sender.start()
        for turn in range(rounds + 1):
            for name, reader in READERS.items():
                sock, _ = server.accept()
                with sock:
                    start = time.process_time()
                    got = reader(sock, len(data))
                    spent = time.process_time() - start
                assert got in {0, lines}, f"{name} read {got} of {lines} acquisitions"
                if turn:
                    rates[name].append(lines / spent)
        sender.join()
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=8192)
    parser.add_argument("--coils", type=int, default=16)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates = measure(options.lines, options.coils, options.samples, options.rounds)
    if options.json:
        print(json.dumps({"acquisitions_per_cpu_second": rates}))
        return
    shape = f"{options.coils} coils x {options.samples} samples"
    print(f"{options.lines} acquisitions of {shape}, {options.rounds} rounds")
    for name, rate in rates.items():
        print(
            f"{name:12s} {rate:12.0f} per CPU second   {rate / rates['gadgetron']:5.2f} x gadgetron   "
            f"{100 * rate / rates['recv_into']:4.0f} % of recv_into"
        )


if __name__ == "__main__":
    main()
