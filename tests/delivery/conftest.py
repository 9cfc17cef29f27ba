from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from recon_node.delivery import Spool


def make_instance(path: Path, number: int, **attributes: object) -> Path:
    """A small MR instance; the same number gives the same bytes."""
    rng = np.random.default_rng(number)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid("1.2.826.0.1.", [str(number)])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Phantom^Test", "P1", "MR"
    dataset.InstanceNumber, dataset.Rows, dataset.Columns = number, 16, 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.SamplesPerPixel = 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = rng.integers(0, 4000, (16, 16), dtype=np.uint16).tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def instances(tmp_path: Path) -> Callable[..., list[Path]]:
    folder = tmp_path / "instances"
    folder.mkdir()

    def make(count: int, *, start: int = 1, **attributes: object) -> list[Path]:
        return [make_instance(folder / f"{n}.dcm", n, **attributes) for n in range(start, start + count)]

    return make


class FakeClock:
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.now, self.date, self.boots = 1000.0, 1.7e9, 0

    def wall(self) -> float:
        return self.date

    def steady(self) -> float:
        return self.now

    def boot(self) -> str:
        return f"boot-{self.boots}"

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.date += seconds

    def restart(self) -> None:
        self.boots += 1
        self.now = 5.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path, clock: FakeClock) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", clock=clock) as opened:
        yield opened
