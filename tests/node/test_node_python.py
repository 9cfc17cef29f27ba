from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

import recon_node
from recon_node.core import errors
from recon_node.core.fft import centred_fft


def test_a_file_is_reconstructed_in_two_lines_of_python(heart: tuple[Path, Path]) -> None:
    kspace = next(recon_node.open_scan(heart[0]))
    result = recon_node.reconstruct(kspace, method="sense")
    assert isinstance(result, recon_node.Reconstruction)
    assert result.images.data.shape == (8, 96, 96)
    assert result.images.made_by.method == "sense"
    assert isinstance(result.verdict, recon_node.Verdict)
    assert isinstance(result.maps, recon_node.CoilMaps)
    assert result.kspace is kspace
    assert str(result.prompts.metadata)
    assert set(result.seconds) >= {"coils", "model", "trust"}


def test_a_scan_becomes_dicom_in_one_line_of_python(heart: tuple[Path, Path], tmp_path: Path) -> None:
    results = [recon_node.reconstruct(k, method="zero-filled") for k in recon_node.open_scan(heart[0])]
    files = recon_node.write_dicom(results, tmp_path)
    read = [pydicom.dcmread(file) for file in files]
    assert len(read) == 16
    assert len({ds.StudyInstanceUID for ds in read}) == 1
    assert len({ds.SeriesInstanceUID for ds in read}) == 2
    assert recon_node.write_dicom(results, tmp_path / "again")[0].name == files[0].name


def example() -> np.ndarray:
    """Fully sampled k-space `(phase, coil, ky, kx)` of a square."""
    image = np.zeros((2, 1, 32, 24))
    image[:, :, 8:24, 6:18] = 1
    coils = np.exp(1j * np.arange(3)).reshape(3, 1, 1) * np.linspace(0.5, 1, 24)
    noise = np.random.default_rng(0).standard_normal((2, 3, 32, 24))
    return centred_fft(image * coils) + 0.01 * noise


def test_plain_arrays_become_k_space_and_images() -> None:
    mask = np.zeros(32, bool)
    mask[::2] = mask[8:24] = True
    kspace = recon_node.kspace_from_arrays(example(), mask, whitened=False, pixel_mm=(1.5, 2.0))
    assert kspace.data.shape == (2, 3, 32, 24)
    assert (kspace.sampling.pattern, kspace.sampling.acs) == ("uniform", 16)
    assert kspace.geometry.fov_mm == (36.0, 64.0, 8.0)
    assert not kspace.geometry.known
    result = recon_node.reconstruct(kspace, method="sense")
    shown = np.abs(result.images.data)
    assert shown[:, 12:20, 9:15].min() > 3 * shown[:, :4].max()


def test_a_single_frame_without_a_mask_is_sampled_where_it_is_not_zero() -> None:
    data = example()[0]
    data[:, 1] = 0
    kspace = recon_node.kspace_from_arrays(data)
    assert kspace.data.shape == (1, 3, 32, 24)
    assert not kspace.mask[0, 1].any()
    assert kspace.mask[0, 2:].all()


@pytest.mark.parametrize(
    ("data", "mask", "word"),
    [
        (np.ones((3, 8, 8)), None, "expected complex"),
        (np.ones((8, 8), complex), None, "expected complex"),
        (np.ones((3, 8, 8), complex), np.ones((7, 8), bool), "mask has shape"),
    ],
)
def test_arrays_that_cannot_be_are_refused(data: np.ndarray, mask: np.ndarray | None, word: str) -> None:
    with pytest.raises(recon_node.DataError, match=word):
        recon_node.kspace_from_arrays(data, mask)


def test_two_scans_from_arrays_are_two_studies(tmp_path: Path) -> None:
    first, second = (recon_node.kspace_from_arrays(factor * example()) for factor in (1, 2))
    studies = {
        pydicom.dcmread(file).StudyInstanceUID
        for kspace in (first, second)
        for file in recon_node.write_dicom(recon_node.reconstruct(kspace, method="sense"), tmp_path)
    }
    assert len(studies) == 2


def test_every_public_name_is_listed_and_is_there() -> None:
    assert set(dir(recon_node)) >= set(recon_node.__all__)
    for name in dir(recon_node):
        assert getattr(recon_node, name) is not None
    tree = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert {n for n in tree if issubclass(vars(errors)[n], errors.ReconNodeError)} <= set(dir(recon_node))


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = recon_node.nothing


def test_the_package_is_imported_without_its_heavy_parts() -> None:
    code = "import sys, recon_node; print(sorted({'torch', 'numpy', 'pydicom', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_readmes_python_runs(
    heart: tuple[Path, Path], tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (pytestconfig.rootpath / "README.md").read_text()
    block = re.search(r"\n((?:    .*\n|\n)*    from recon_node import .*\n(?:    .*\n|\n)*)", text)
    assert block is not None
    code = re.sub("^    ", "", block[1], flags=re.MULTILINE)
    (tmp_path / "heart.h5").symlink_to(heart[0])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert len([*tmp_path.glob("images/*/*/*.dcm")]) == 16
