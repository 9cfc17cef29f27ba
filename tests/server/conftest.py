"""A plain reconstruction for the server's tests: inverse FFT and root sum of squares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.fft import centred_ifft
from recon_node.core.scan import Readouts, SliceGeometry, SliceIndex
from recon_node.core.types import ImageSeries, MadeBy
from recon_node.mrd.server import MrdServer
from recon_node.mrd.session import ScanSession

GEOMETRY = SliceGeometry(
    position_mm=(0.0, 0.0, 0.0),
    read_dir=(1.0, 0.0, 0.0),
    phase_dir=(0.0, 1.0, 0.0),
    slice_dir=(0.0, 0.0, 1.0),
    fov_mm=(300.0, 300.0, 6.0),
)


def rss_handler(session: ScanSession) -> None:
    """Replies with the image of each repetition as soon as its last line is there."""
    header = session.headers[0]
    lines: dict[int, dict[int, np.ndarray]] = {}
    for block in session:
        if not isinstance(block, Readouts):
            continue
        for at in range(len(block)):
            head = block.head[at]
            if int(head["flags"]) & AcquisitionFlag.IS_NOISE_MEASUREMENT:
                continue
            repetition = int(head["idx"]["repetition"])
            found = lines.setdefault(repetition, {})
            found[int(head["idx"]["kspace_encode_step_1"])] = block.samples[at]
            if len(found) == header.encoded_matrix[1]:
                session.reply(rss(np.stack([found[k] for k in sorted(found)], axis=1), header, repetition))


def rss(kspace: np.ndarray, header, repetition: int) -> ImageSeries:
    width = header.recon_matrix[0]
    image = centred_ifft(kspace)
    start = (image.shape[-1] - width) // 2
    image = np.sqrt((np.abs(image[..., start : start + width]) ** 2).sum(0))
    return ImageSeries(
        data=image[None].astype(np.complex64),
        geometry=GEOMETRY,
        header=header,
        index=SliceIndex(repetition=repetition),
        made_by=MadeBy(method="rss", version="test"),
    )


@pytest.fixture
def serve() -> Iterator[Callable[..., MrdServer]]:
    """Starts servers on free ports; they are stopped at the end of the test."""
    servers: list[MrdServer] = []

    def start(handler=rss_handler, **options) -> MrdServer:
        handlers = handler if isinstance(handler, dict) else {"default": handler}
        servers.append(MrdServer(handlers, port=0, **options).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop(drain_seconds=5.0)


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """A scan of 24 samples, 16 lines, 3 coils and 2 repetitions, written by the ismrmrd package."""
    return write_scan(tmp_path / "scan.h5")


def write_scan(
    path: Path, *, lines: int = 16, samples: int = 24, repetitions: int = 2, step: int = 2
) -> Path:
    rng = np.random.default_rng(3)
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        dataset.write_xml_header(header_xml(samples, lines).encode())
        for repetition in range(repetitions):
            for ky in range(lines):
                data = rng.normal(size=(3, samples, 2)).astype(np.float32).view(np.complex64)[..., 0]
                acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data))
                acquisition.idx.kspace_encode_step_1 = ky
                acquisition.idx.repetition = repetition
                acquisition.acquisition_time_stamp = 1000 + step * (repetition * lines + ky)
                dataset.append_acquisition(acquisition)
    return path


def header_xml(samples: int = 24, lines: int = 16) -> str:
    return f"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>Secret^Patient</patientName><patientID>SECRET-ID</patientID></subjectInformation>
<acquisitionSystemInformation><systemVendor>GE</systemVendor></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding>
<encodedSpace><matrixSize><x>{samples}</x><y>{lines}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>600</x><y>300</y><z>6</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{samples // 2}</x><y>{lines}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>300</x><y>300</y><z>6</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{lines - 1}</maximum>
<center>{lines // 2}</center></kspace_encoding_step_1></encodingLimits>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def some_readouts(count: int = 16, coils: int = 3, samples: int = 24) -> Readouts:
    head = np.zeros(count, ACQUISITION_HEADER)
    head["version"] = 1
    head["number_of_samples"] = samples
    head["active_channels"] = coils
    head["idx"]["kspace_encode_step_1"] = np.arange(count) % 16
    head["idx"]["repetition"] = np.arange(count) // 16
    return Readouts(head=head, samples=np.ones((count, coils, samples), np.complex64))


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether `condition` becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


@pytest.fixture
def helpers() -> type:
    """The functions above, as a namespace: test folders are no packages."""

    class Helpers:
        pass

    for function in (rss_handler, rss, write_scan, header_xml, some_readouts, eventually):
        setattr(Helpers, function.__name__, staticmethod(function))
    return Helpers
