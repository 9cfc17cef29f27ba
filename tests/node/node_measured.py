"""Measured k-space as the ISMRMRD library writes it: nothing of this project is involved."""

from __future__ import annotations

from pathlib import Path

import ismrmrd
import numpy as np
from numpy.typing import NDArray

_HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<acquisitionSystemInformation><systemVendor>GE MEDICAL SYSTEMS</systemVendor>
<receiverChannels>{coils}</receiverChannels></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><trajectory>cartesian</trajectory>
<encodedSpace><matrixSize><x>{nx}</x><y>{ny}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{nx}</x><y>{ny}</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{nx}</x><y>{ny}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{nx}</x><y>{ny}</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
</kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"""


def write_measured(path: Path, kspace: NDArray[np.complex64]) -> None:
    """Write `(coil, ky, kx)` line by line; lines without a sample are left out."""
    coils, ny, nx = kspace.shape
    with ismrmrd.Dataset(str(path), create_if_needed=True) as dataset:
        dataset.write_xml_header(
            _HEADER.format(coils=coils, nx=nx, ny=ny, last=ny - 1, centre=ny // 2).encode()
        )
        for row in np.flatnonzero(np.any(kspace != 0, axis=(0, 2))):
            line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(kspace[:, row]))
            line.center_sample = nx // 2
            line.idx.kspace_encode_step_1 = int(row)
            line.read_dir[:], line.phase_dir[:], line.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
            dataset.append_acquisition(line)
