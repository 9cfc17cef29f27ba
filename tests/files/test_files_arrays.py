from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from written_files import header_xml

from recon_node.core.errors import SourceError, UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.scan import Readouts
from recon_node.files.array_source import ArraySource
from recon_node.files.open import open_source

PAIR = np.dtype([("real", "<f4"), ("imag", "<f4")])


def write_mat(path: Path, kspace: np.ndarray, name: str = "kspace_full") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = np.empty(kspace.shape, dtype=PAIR)
    pairs["real"], pairs["imag"] = kspace.real, kspace.imag
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = pairs
    return path


def random_kspace(*shape: int) -> np.ndarray:
    parts = np.random.default_rng(0).standard_normal((*shape, 2))
    return (parts[..., 0] + 1j * parts[..., 1]).astype(np.complex64)


def gathered(path: Path, shape: tuple[int, ...]) -> tuple[ArraySource, np.ndarray]:
    """`(slice, phase, coil, ky, kx)` from the readouts."""
    out = np.zeros(shape, dtype=np.complex64)
    with open_source(path) as source:
        assert isinstance(source, ArraySource)
        for block in source:
            assert isinstance(block, Readouts)
            for head, line in zip(block.head, block.samples, strict=True):
                idx = head["idx"]
                out[idx["slice"], idx["phase"], :, idx["kspace_encode_step_1"]] = line
    return source, out


@pytest.mark.parametrize("axes", [5, 4, 3])
def test_a_cmrxrecon_array_arrives_line_by_line_with_metadata_from_the_path(
    tmp_path: Path, axes: int
) -> None:
    shape = (4, 2, 3, 12, 20)[5 - axes :]
    kspace = random_kspace(*shape)
    kspace[..., 1::3, :] = 0
    path = write_mat(tmp_path / "Center005/Siemens_30T_CIMA.X/P001/cine_sax.mat", kspace)
    full = kspace.reshape((1,) * (5 - axes) + shape).swapaxes(0, 1)
    source, found = gathered(path, full.shape)
    np.testing.assert_array_equal(found, full)
    (header,) = source.headers
    assert (header.vendor, header.model, header.field_strength_t) == ("Siemens", "CIMA.X", 3.0)
    assert header.protocol == "cine_sax"
    assert header.origin["vendor"] == "path name"
    assert header.origin["recon_fov_mm"].startswith("fallback")


@pytest.mark.parametrize(
    ("folder", "field"),
    [
        ("UIH_30T_umr780", 3.0),
        ("UIH_50T_Jupiter", 5.0),
        ("Siemens_15T_Avanto", 1.5),
        ("Siemens_055T_Free.Max", 0.55),
    ],
)
def test_the_field_strength_of_the_path_is_in_tenths_of_tesla(
    tmp_path: Path, folder: str, field: float
) -> None:
    with open_source(write_mat(tmp_path / folder / "P1" / "t1map.mat", random_kspace(2, 8, 8))) as source:
        assert source.headers[0].field_strength_t == pytest.approx(field)


def test_without_such_a_path_nothing_is_invented(tmp_path: Path) -> None:
    with open_source(write_mat(tmp_path / "x.mat", random_kspace(2, 8, 8))) as source:
        (header,) = source.headers
    assert (header.vendor, header.field_strength_t) == (None, None)


def test_a_fastmri_file_keeps_its_header_and_turns_the_readout_along_x(tmp_path: Path) -> None:
    images = random_kspace(2, 3, 32, 16)
    path = tmp_path / "file_brain.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = centred_fft(images)
        file["ismrmrd_header"] = header_xml()
        file.attrs["acquisition"] = "AXT2"
    source, found = gathered(path, (2, 1, 3, 16, 32))
    np.testing.assert_allclose(centred_ifft(found[:, 0]), images.swapaxes(2, 3), atol=1e-5)
    (header,) = source.headers
    assert header.encoded_matrix == (32, 16, 1)
    assert header.encoded_fov_mm[0] == 600
    assert (header.protocol, header.origin["protocol"]) == ("AXT2", "fallback: file attribute acquisition")
    assert header.limits["slice"].size == 2


def test_arrays_of_another_kind_are_refused_by_their_shape(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedScan, match=r"2 x 2 x 2 x 2 x 2 x 2"):
        open_source(write_mat(tmp_path / "x.mat", random_kspace(2, 2, 2, 2, 2, 2)))
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["kspace"] = np.ones((2, 2))
        file["ismrmrd_header"] = header_xml()
    with pytest.raises(UnsupportedScan, match="fastMRI"):
        open_source(tmp_path / "y.h5")


def test_an_old_mat_file_is_no_hdf5_and_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(300))
    with pytest.raises(SourceError, match=r"v7\.3"):
        open_source(tmp_path / "old.mat")


def test_a_heap_without_end_is_refused_before_the_library_goes_round_in_it(tmp_path: Path) -> None:
    path = tmp_path / "round.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = centred_fft(random_kspace(2, 3, 32, 16))
        file["ismrmrd_header"] = header_xml()
        file.attrs["acquisition"] = "AXT2"
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL")
    free = at + 16
    while data[free : free + 2] != b"\0\0":
        free += 16 + (int.from_bytes(data[free + 8 : free + 16], "little") + 7) // 8 * 8
    data[free + 8 : free + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(SourceError, match="a heap without end"):
        open_source(path)


def test_an_array_with_an_empty_axis_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"x\.mat"):
        open_source(write_mat(tmp_path / "x.mat", random_kspace(0, 2, 3, 12, 20)))
