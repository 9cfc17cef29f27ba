"""What the tests of delivery are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


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
