"""Small ISMRMRD files for the tests of sources."""

from __future__ import annotations

from pathlib import Path

import ismrmrd
import numpy as np

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">{top}
<experimentalConditions><H1resonanceFrequency_Hz>63870000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding>
<encodedSpace><matrixSize><x>32</x><y>16</y><z>1</z></matrixSize>
<fieldOfView_mm><x>600</x><y>300</y><z>8</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>16</x><y>16</y><z>1</z></matrixSize>
<fieldOfView_mm><x>300</x><y>300</y><z>8</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>15</maximum><center>8</center>
</kspace_encoding_step_1></encodingLimits>
<trajectory>cartesian</trajectory></encoding>{bottom}
</ismrmrdHeader>"""


def header_xml(top: str = "", bottom: str = "") -> str:
    return HEADER.format(top=top, bottom=bottom)


def acquisition(
    rng: np.random.Generator, *, line: int, coils: int = 3, samples: int = 32
) -> ismrmrd.Acquisition:
    data = rng.standard_normal((coils, samples, 2)).astype(np.float32).view(np.complex64)[..., 0]
    acq = ismrmrd.Acquisition.from_array(data)
    acq.idx.kspace_encode_step_1 = line
    acq.center_sample = samples // 2
    acq.scan_counter = line + 1
    acq.sample_time_us = 5.0
    return acq


def write_h5(
    path: Path, acquisitions: list[ismrmrd.Acquisition], *, xml: str, group: str = "dataset"
) -> Path:
    with ismrmrd.Dataset(str(path), group) as dataset:
        dataset.write_xml_header(xml.encode())
        for acq in acquisitions:
            dataset.append_acquisition(acq)
    return path
