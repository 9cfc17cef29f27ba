"""A file as OCMR has them: siemens_to_ismrmrd's layout, asymmetric echo, twofold oversampling, 1.494 T."""

from __future__ import annotations

from pathlib import Path

import ismrmrd
import numpy as np
from prep_scanner import coil_images

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.pipeline.scan import open_scan

SHAPE = (24, 32)
FULL, CUT = 64, 12
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><acquisitionSystemInformation>
<systemVendor>SIEMENS</systemVendor><systemModel>Avanto</systemModel>
<systemFieldStrength_T>1.494</systemFieldStrength_T><relativeReceiverNoiseBandwidth>0.79</relativeReceiverNoiseBandwidth>
</acquisitionSystemInformation><experimentalConditions><H1resonanceFrequency_Hz>63642459</H1resonanceFrequency_Hz>
</experimentalConditions><encoding><encodedSpace><matrixSize><x>64</x><y>24</y><z>1</z></matrixSize>
<fieldOfView_mm><x>600</x><y>225</y><z>8</z></fieldOfView_mm></encodedSpace><reconSpace><matrixSize><x>32</x><y>24</y>
<z>1</z></matrixSize><fieldOfView_mm><x>300</x><y>225</y><z>8</z></fieldOfView_mm></reconSpace><encodingLimits>
<kspace_encoding_step_1><minimum>0</minimum><maximum>19</maximum><center>8</center></kspace_encoding_step_1>
<average><minimum>0</minimum><maximum>1</maximum><center>0</center></average>
<slice><minimum>0</minimum><maximum>0</maximum><center>0</center></slice>
<phase><minimum>0</minimum><maximum>2</maximum><center>0</center></phase></encodingLimits>
<trajectory>cartesian</trajectory></encoding><sequenceParameters><TR>37.1</TR><TE>1.22</TE></sequenceParameters>
</ismrmrdHeader>"""


PILOT_TONE = """<userParameters><userParameterLong><name>PilotTone</name><value>1</value></userParameterLong>
</userParameters></ismrmrdHeader>"""


def write(path: Path, *, tone: float = 0.0) -> np.ndarray:
    """Three phases, two averages of opposite noise, lines -8 to 11 of 24; the images."""
    rng = np.random.default_rng(0)
    images = coil_images(rng, 3, 4, SHAPE)
    wide = np.zeros((3, 4, SHAPE[0], FULL), complex)
    wide[..., FULL // 4 : 3 * FULL // 4] = images
    raw = centred_fft(wide).conj()  # Siemens' direction vectors mean the forward transform
    with ismrmrd.Dataset(str(path)) as dataset:
        header = HEADER.replace("</ismrmrdHeader>", PILOT_TONE) if tone else HEADER
        dataset.write_xml_header(header.encode())
        for average, phase, ky in np.ndindex(2, 3, 20):
            noise = (-1) ** average * 0.3 * rng.standard_normal((4, FULL - CUT))
            samples = (raw[phase, :, ky + 4, CUT:] + (noise if average == 0 else 0)).astype(np.complex64)
            samples[:, [0, 1, 2, -1]] += np.complex64(tone)
            acquisition = ismrmrd.Acquisition.from_array(samples)
            acquisition.center_sample = FULL // 2 - CUT
            acquisition.sample_time_us = 3.0
            acquisition.idx.kspace_encode_step_1, acquisition.idx.phase = ky, phase
            acquisition.idx.average = average
            acquisition.read_dir, acquisition.phase_dir = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
            acquisition.slice_dir, acquisition.position = (1.0, 0.0, 0.0), (5.0, 6.0, 7.0)
            acquisition.physiology_time_stamp[0] = 10 * phase
            dataset.append_acquisition(acquisition)
    return images


def test_an_ocmr_file_opens_averaged_upright_and_with_its_missing_sides_known(tmp_path: Path) -> None:
    images = write(tmp_path / "fs_0001_1_5T.h5")
    (kspace,) = open_scan(tmp_path / "fs_0001_1_5T.h5")
    assert kspace.data.shape == (3, 4, *SHAPE)
    assert kspace.header.field_strength_t == 1.494
    assert kspace.geometry.known
    assert kspace.geometry.fov_mm == (300, 225, 8)
    assert kspace.trigger_times_ms == (0, 25, 50)
    assert kspace.sampling.pattern == "full"
    rows, columns = kspace.mask[0].any(axis=1), kspace.mask[0].any(axis=0)
    assert (np.flatnonzero(rows)[[0, -1]] == (4, 23)).all()
    assert (np.flatnonzero(columns)[[0, -1]] == (CUT // 2, 31)).all()
    assert not any("more than once" in note for note in kspace.notes)
    expected = np.where(kspace.mask[:, None], centred_fft(images), 0)
    expected, found = (
        x / np.sqrt(np.sum(np.abs(x) ** 2, axis=(0, 2, 3), keepdims=True)) for x in (expected, kspace.data)
    )
    likeness = np.abs(np.sum(centred_ifft(expected).conj() * centred_ifft(found), axis=(0, 2, 3)))
    assert likeness.min() > 0.99


def test_a_pilot_tone_is_taken_out_of_the_lines_where_the_header_says_that_it_is_there(
    tmp_path: Path,
) -> None:
    write(tmp_path / "plain.h5")
    write(tmp_path / "tone.h5", tone=1e4)
    (plain,), (tone,) = open_scan(tmp_path / "plain.h5"), open_scan(tmp_path / "tone.h5")
    assert np.abs(tone.data).max() <= np.abs(plain.data).max() * 1.01
    error = np.linalg.norm(tone.data - plain.data) / np.linalg.norm(plain.data)
    assert error < 0.05
    assert any("pilot tone" in note for note in tone.notes)
