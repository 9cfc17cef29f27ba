from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from node_measured import write_measured

from recon_node.cli import run

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """Measured k-space `(coil, ky, kx)` of a head, undersampled in both directions."""
    return np.load(DATA / "brain_kspace.npy")


@pytest.fixture(scope="module")
def raw(brain: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "brain.h5"
    write_measured(path, brain)
    return path


def replayed(raw: Path, out: Path, method: str) -> tuple[dict[str, object], np.ndarray]:
    assert run(["replay", str(raw), "--out", str(out), "--method", method]) == 0
    [entry] = json.loads((out / "summary.json").read_text())["series"]
    [file] = out.rglob("*.dcm")
    return entry, pydicom.dcmread(file).pixel_array.astype(float)


def likeness(image: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(image.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("method", ["sense", "cardiomm"])
def test_measured_kspace_becomes_a_brain_the_right_way_up(
    raw: Path, brain: np.ndarray, method: str, tmp_path: Path
) -> None:
    entry, image = replayed(raw, tmp_path, method)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(brain, axes=(1, 2))), axes=(1, 2))
    expected = np.sqrt(np.sum(np.abs(coils) ** 2, axis=0))
    right = likeness(image, expected)
    assert right > 0.9
    for axes in ((0,), (1,), (0, 1)):
        assert likeness(np.flip(image, axes), expected) < right - 0.02
    assert entry["lines"]["found"] == 64
    assert any("not whitened" in note for note in entry["notes"])


def test_sense_fills_what_zero_filling_leaves_blurred(raw: Path, tmp_path: Path) -> None:
    def edges(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image, axis=0)).mean() / image.mean())

    _, sense = replayed(raw, tmp_path / "sense", "sense")
    _, blurred = replayed(raw, tmp_path / "zero", "zero-filled")
    assert edges(sense) > 1.2 * edges(blurred)


def test_words_that_the_header_lacks_are_unknown_and_say_so(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(raw), "--json"]) == 0
    [scan] = json.loads(capsys.readouterr().out)["kspace"]
    assert scan["prompts"]["metadata"] == (
        "unknown cardiac MRI reconstruction.Vendor: 1.5T, GE, unknown. Modality: unknown, unknown."
    )
    origins = scan["prompts"]["provenance"]["metadata"]
    assert "H1resonanceFrequency" in origins["field"]
    assert origins["modality"].startswith("unknown as")
