"""A peer that behaves as Gadgetron does, and a plain reconstruction to put into the gadget."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from recon_node.core.acquisition import AcquisitionFlag
from recon_node.core.fft import centred_ifft
from recon_node.core.scan import Readouts, SliceGeometry, SliceIndex
from recon_node.core.types import ImageSeries, MadeBy
from recon_node.mrd.session import ScanSession
from recon_node.online.gadget import listen

GEOMETRY = SliceGeometry(
    position_mm=(0.0, 0.0, 0.0),
    read_dir=(1.0, 0.0, 0.0),
    phase_dir=(0.0, 1.0, 0.0),
    slice_dir=(0.0, 0.0, 1.0),
    fov_mm=(300.0, 300.0, 6.0),
)
NOT_IMAGING = AcquisitionFlag.IS_NOISE_MEASUREMENT | AcquisitionFlag.IS_PARALLEL_CALIBRATION


def rss_handler(session: ScanSession) -> None:
    """Image of each repetition: missing lines stay zero, inverse FFT, root sum of squares."""
    header = session.headers[0]
    scans: dict[int, np.ndarray] = {}
    for block in session:
        if not isinstance(block, Readouts):
            continue
        imaging = block.select((block.head["flags"] & np.uint64(NOT_IMAGING)) == 0)
        _, coils, samples = block.samples.shape
        for head, samples_of_line in zip(imaging.head, imaging.samples, strict=True):
            empty = np.zeros((coils, header.encoded_matrix[1], samples), np.complex64)
            kspace = scans.setdefault(int(head["idx"]["repetition"]), empty)
            kspace[:, int(head["idx"]["kspace_encode_step_1"])] = samples_of_line
    for repetition, kspace in sorted(scans.items()):
        image = np.sqrt((np.abs(centred_ifft(kspace)) ** 2).sum(0))
        series = ImageSeries(
            data=image[None].astype(np.complex64),
            geometry=GEOMETRY,
            header=header,
            index=SliceIndex(repetition=repetition),
            made_by=MadeBy(method="rss", version="test"),
        )
        session.reply(series)


@pytest.fixture
def rss() -> Callable[[ScanSession], None]:
    return rss_handler


@pytest.fixture
def listening() -> Iterator[Callable[..., int]]:
    """Starts ``python -m recon_node.gadget``'s listener in a thread; gives its port."""
    stops: list[tuple[threading.Event, threading.Thread]] = []

    def start(target: str = "acquisitions", handler=rss_handler, make_handler=None, **options) -> int:
        stopping, ports = threading.Event(), []
        thread = threading.Thread(
            target=listen,
            args=(0, target, make_handler or (lambda properties: handler)),
            kwargs={"stopping": stopping, "on_port": ports.append, **options},
            daemon=True,
        )
        thread.start()
        stops.append((stopping, thread))
        end = time.monotonic() + 60
        while not ports and time.monotonic() < end:
            time.sleep(0.005)
        return ports[0]

    yield start
    for stopping, thread in stops:
        stopping.set()
        thread.join(15)
        assert not thread.is_alive()


def talk(sock: socket.socket, data: bytes) -> bytes:
    """Send as Gadgetron does, reading all the while; everything the module answered."""
    answer = bytearray()

    def read() -> None:
        while part := sock.recv(1 << 16):
            answer.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    sock.sendall(data)
    reader.join(60)
    assert not reader.is_alive(), "the module never closed the connection"
    return bytes(answer)


@pytest.fixture
def exchange() -> Callable[[int, bytes], bytes]:
    def run(port: int, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 60) as sock:
            return talk(sock, data)

    return run


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., tuple[bytes, int, str]]:
    """Runs ``python -m gadgetron PORT MODULE TARGET`` as Gadgetron's ``<execute>`` does.

    The module is the node's gadget with the plain reconstruction put in.
    """
    here = Path(__file__).parent.resolve()
    (tmp_path / "plain_gadget.py").write_text(
        "import importlib.util, recon_node.online.gadget as gadget\n"
        f"spec = importlib.util.spec_from_file_location('plain', {str(here / 'conftest.py')!r})\n"
        "plain = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(plain)\n"
        "gadget.node_handler = lambda properties: plain.rss_handler\n"
        "from recon_node.online.gadget import acquisitions, buckets, recon_data\n"
    )

    def run(target: str, data: bytes, *, cut: bool = False) -> tuple[bytes, int, str]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            command = [
                sys.executable,
                "-m",
                "gadgetron",
                str(listener.getsockname()[1]),
                "plain_gadget",
                target,
            ]
            environment = {
                "PYTHONPATH": f"{tmp_path}:{Path.cwd()}",
                "PATH": "/usr/bin:/bin",
                "OMP_NUM_THREADS": "1",
            }
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(60)
                answer = b""
                if cut:
                    sock.sendall(data)
                else:
                    answer = talk(sock, data)
            log = process.communicate(timeout=60)[1]
        return answer, process.returncode, log

    return run
