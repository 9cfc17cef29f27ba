"""Files and data that this project did not make."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from prep_scanner import block, lines_of, make_header, prepare

from recon_node.core.fft import centred_ifft
from recon_node.core.types import KSpace
from recon_node.files.open import open_source
from recon_node.prep import Preparation

GENERATOR = "ismrmrd_generate_cartesian_shepp_logan"
SHARED = Path("../shared")


def generate(path: Path, *options: str) -> Path:
    program = shutil.which(GENERATOR)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"{GENERATOR} is not installed (package ismrmrd-tools)")
        pytest.skip(f"{GENERATOR} is not installed (package ismrmrd-tools)")
    subprocess.run([program, "-o", str(path), *options], check=True, capture_output=True)
    return path


def kspaces(path: Path, **options: Any) -> list[KSpace]:
    with open_source(path) as source:
        preparation = Preparation(source.headers, **options)
        out = [kspace for part in source for kspace in preparation.feed(part)]
    return out + preparation.finish()


def picture(kspace: KSpace) -> np.ndarray:
    return np.asarray(np.sqrt((np.abs(centred_ifft(kspace.data)) ** 2).sum(axis=1))[0])


@pytest.mark.real
@pytest.mark.parametrize(("coils", "matrix", "oversampling"), [(1, 64, 2), (4, 64, 2), (8, 96, 2)])
def test_a_shepp_logan_phantom_comes_out_whitened_and_upright(
    tmp_path: Path, coils: int, matrix: int, oversampling: int
) -> None:
    options = ("-c", str(coils), "-m", str(matrix), "-O", str(oversampling), "-r", "2", "-n", "0.005", "-C")
    path = generate(tmp_path / "phantom.h5", *options)
    found = kspaces(path)
    assert [k.index.repetition for k in found] == [0, 1]
    for kspace in found:
        assert kspace.data.shape == (1, coils, matrix, matrix)
        assert (kspace.lines_found, kspace.lines_expected) == (matrix, matrix)
        assert kspace.whitened
        images = centred_ifft(kspace.data)[0]
        corner = images[:, : matrix // 10, : matrix // 10]
        assert np.mean(np.abs(corner) ** 2) == pytest.approx(1.0, rel=0.3)
    image = picture(found[0])
    inside, outside = image[matrix // 2, matrix // 2], image[: matrix // 10, : matrix // 10].mean()
    assert inside > 3 * outside
    columns = np.flatnonzero(image.max(axis=0) > 0.4 * image.max())
    rows = np.flatnonzero(image.max(axis=1) > 0.4 * image.max())
    assert np.ptp(rows) > np.ptp(columns)  # the head is taller than wide


@pytest.mark.real
def test_a_header_that_announces_oversampling_there_is_not_gets_a_note(tmp_path: Path) -> None:
    path = generate(tmp_path / "phantom.h5", "-c", "2", "-m", "64", "-O", "1", "-n", "0.005")
    (kspace,) = kspaces(path)
    assert any("beyond the image's field of view" in note for note in kspace.notes)


@pytest.mark.real
@pytest.mark.parametrize("rate", [2, 3, 4])
def test_an_accelerated_phantom_is_recognised_with_its_calibration_lines(tmp_path: Path, rate: int) -> None:
    path = generate(tmp_path / "phantom.h5", "-c", "4", "-m", "64", "-a", str(rate), "-w", "16", "-C")
    found = kspaces(path)
    assert len(found) == rate
    for kspace in found:
        assert (kspace.sampling.pattern, kspace.sampling.acceleration) == ("uniform", rate)
        assert kspace.calibration is not None
        assert kspace.calibration.shape[:2] == (4, 16)


@pytest.mark.real
def test_a_phantom_with_stored_trajectories_is_the_same_phantom(tmp_path: Path) -> None:
    plain = kspaces(generate(tmp_path / "a.h5", "-c", "2", "-m", "64", "-n", "0"))[0]
    stored = kspaces(generate(tmp_path / "b.h5", "-c", "2", "-m", "64", "-n", "0", "-k"))[0]
    np.testing.assert_allclose(picture(stored), picture(plain), rtol=1e-5)
    assert any("carry a trajectory" in note for note in stored.notes)
    assert not any("carry a trajectory" in note for note in plain.notes)


@pytest.mark.skipif(not (SHARED / "gadgetron_wire/input.h5").exists(), reason="recorded session not here")
def test_the_file_of_a_recorded_gadgetron_session_opens() -> None:
    found = kspaces(SHARED / "gadgetron_wire/input.h5")
    assert [k.data.shape for k in found] == [(1, 6, 48, 48)] * 2
    assert found[0].header.field_strength_t == pytest.approx(2.89362)
    with h5py.File(SHARED / "gadgetron_wire/input.h5") as file:
        truth = file["dataset/phantom"][0].view(np.complex64)
    images = [truth, truth[::-1], truth[:, ::-1], truth[::-1, ::-1], truth.T]
    likeness = [np.corrcoef(np.abs(image).ravel(), picture(found[0]).ravel())[0, 1] for image in images]
    assert int(np.argmax(likeness)) == 0
    assert likeness[0] > 0.8


@pytest.mark.skipif(not (SHARED / "gadgetron_wire").exists(), reason="recorded session not here")
def test_our_whitening_agrees_with_what_gadgetron_whitened() -> None:
    recorded = SHARED / "gadgetron_wire/acquisitions_to_module.bin"
    ours = kspaces(SHARED / "gadgetron_wire/input.h5")
    theirs = kspaces(recorded, noise="unit-parts")
    for mine, other in zip(ours, theirs, strict=True):
        scale = np.linalg.norm(picture(mine)) / np.linalg.norm(picture(other))
        assert scale == pytest.approx(1.0, abs=0.02)
        np.testing.assert_allclose(picture(mine) / scale, picture(other), atol=0.03 * picture(other).max())


@pytest.mark.skipif(not (SHARED / "data/cartesian_ksp.npy").exists(), reason="measured k-space not here")
def test_measured_kspace_keeps_its_calibration_centre() -> None:
    raw = np.load(SHARED / "data/cartesian_ksp.npy")[None]
    mask = np.any(raw != 0, axis=(1, 3))
    header = make_header(raw.shape[-2:])
    (kspace,) = prepare(header, [block(lines_of(raw, mask))], noise="auto")
    np.testing.assert_array_equal(kspace.mask[0], np.any(raw[0] != 0, axis=0))
    assert kspace.calibration is not None
    assert kspace.sampling.acs >= 16
