"""Every built-in format and destination keeps to what the shipped tests ask."""

from __future__ import annotations

import io
import shutil
from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np
import pytest

from recon_node.core.errors import PacsUnreachable
from recon_node.delivery import OpenDestination, StorageScp, open_destination, read_instance
from recon_node.files.open import open_source
from recon_node.mrd.messages import ConfigFile, HeaderXml, close_bytes, message_bytes
from recon_node.mrd.v2.encode import encoder
from recon_node.mrd.v2.writer import MrdV2Writer, installed_schema
from recon_node.simulate import simulate_scan
from recon_node.testing import DestinationTests, SourceTests


@pytest.fixture(scope="module", autouse=True)
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scan, as a scanner would write it."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    simulate_scan(path, acceleration=2, pattern="uniform", coils=3, slices=1, phases=2, matrix=32, seed=3)
    SCANS[:] = [path]
    return path


SCANS: list[Path] = []


class TestIsmrmrd(SourceTests):
    def write(self, folder: Path) -> Path:
        return Path(shutil.copy(SCANS[0], folder / "copy.h5"))


class TestMrdStream(SourceTests):
    def write(self, folder: Path) -> Path:
        path = folder / "scan.mrd"
        with open_source(SCANS[0]) as source, path.open("wb") as file:
            file.write(bytes(message_bytes(ConfigFile(name="default"))))
            file.write(bytes(message_bytes(HeaderXml(xml=source.headers[0].xml))))
            for block in source:
                file.write(bytes(message_bytes(block)))
            file.write(close_bytes())
        return path


class TestMatlab(SourceTests):
    def write(self, folder: Path) -> Path:
        rng = np.random.default_rng(0)
        pairs = np.zeros((2, 1, 3, 16, 12), [("real", np.float32), ("imag", np.float32)])
        pairs["real"], pairs["imag"] = rng.standard_normal((2, *pairs.shape))
        with h5py.File(folder / "scan.mat", "w") as file:
            file["kspace_full"] = pairs
        return folder / "scan.mat"


class TestFastMri(SourceTests):
    def write(self, folder: Path) -> Path:
        rng = np.random.default_rng(0)
        with open_source(SCANS[0]) as source, h5py.File(folder / "scan.h5", "w") as file:
            file["kspace"] = (rng.standard_normal((2, 3, 16, 12)) + 1j).astype(np.complex64)
            file["ismrmrd_header"] = source.headers[0].xml
        return folder / "scan.h5"


class TestMrd2Stream(SourceTests):
    rereads = False  # read forward, as from a pipe

    def write(self, folder: Path) -> Path:
        schema, out = installed_schema(), io.BytesIO()
        space = {"matrixSize": {"x": 4, "y": 4, "z": 1}, "fieldOfViewMm": {"x": 100.0, "y": 100.0, "z": 5.0}}
        header = encoder(schema.header)({"encoding": [{"encodedSpace": space, "reconSpace": space}]})
        writer = MrdV2Writer(out, schema, header=header)
        for line in range(4):
            head = {"idx": {"kspaceEncodeStep1": line, "slice": 0}}
            data = np.full((2, 4), line + 1, np.complex64)
            writer.item("Acquisition", {"head": head, "data": data, "trajectory": np.zeros((0, 0))})
        writer.close()
        (folder / "scan.mrd2").write_bytes(out.getvalue())
        return folder / "scan.mrd2"


class TestFolder(DestinationTests):
    def make(self, folder: Path) -> OpenDestination:
        return open_destination(str(folder / "images"))

    def arrived(self, folder: Path) -> Collection[str]:
        return [read_instance(file).uid for file in (folder / "images").rglob("*") if file.is_file()]

    def broken(self, folder: Path) -> OpenDestination:
        (folder / "taken").write_text("a file stands in the way")
        return open_destination(str(folder / "taken" / "images"))


class TestDicom(DestinationTests):
    @pytest.fixture(autouse=True)
    def pacs(self, tmp_path: Path):
        with StorageScp(tmp_path / "pacs") as scp:
            self.scp = scp
            yield

    def make(self, folder: Path) -> OpenDestination:
        return open_destination(self.scp.address)

    def arrived(self, folder: Path) -> Collection[str]:
        return [read_instance(file).uid for file in self.scp.files()]

    def broken(self, folder: Path) -> OpenDestination:
        return open_destination("dicom://NOBODY@127.0.0.1:9?connect=2")


class Shelf:
    """What a third party writes: one function."""

    name = "shelf"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, files: list[Path]) -> None:
        for file in files:
            shutil.copy(file, self.folder / file.name)

    def echo(self) -> float:
        return 0.0


class TestShelf(DestinationTests):
    def make(self, folder: Path) -> Shelf:
        return Shelf(folder)

    def arrived(self, folder: Path) -> Collection[str]:
        return [read_instance(file).uid for file in folder.iterdir() if file.read_bytes()[128:132] == b"DICM"]

    def broken(self, folder: Path) -> Shelf:
        return Shelf(folder / "absent")


class Forgetting(Shelf):
    def send(self, files: list[Path]) -> None:
        super().send(files[1:])


class Hopeful(Shelf):
    def send(self, files: list[Path]) -> None:
        if self.folder.exists():
            super().send(files)


class Moving(Shelf):
    def send(self, files: list[Path]) -> None:
        for file in files:
            file.rename(self.folder / file.name)


class Doubling(Shelf):
    sent = 0

    def send(self, files: list[Path]) -> None:
        for file in files:
            self.sent += 1
            shutil.copy(file, self.folder / f"{self.sent}.dcm")


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (Forgetting, "test_returning_means_that_every_instance_is_at_the_other_end"),
        (Hopeful, "test_nothing_is_said_to_be_sent_where_nobody_answers"),
        (Moving, "test_what_is_sent_stays_as_it_was"),
        (Doubling, "test_an_instance_that_is_sent_twice_is_there_once"),
    ],
)
def test_a_destination_that_breaks_a_promise_fails_its_test(wrong: type, test: str, tmp_path: Path) -> None:
    class Tests(TestShelf):
        def make(self, folder: Path) -> Shelf:
            return wrong(folder)

        def broken(self, folder: Path) -> Shelf:
            return wrong(folder / "absent")

    with pytest.raises((AssertionError, FileNotFoundError, PacsUnreachable)):
        getattr(Tests(), test)(tmp_path)


class NotClosing(SourceTests):
    """A format whose reader goes on with what it could not read."""

    def write(self, folder: Path) -> Path:
        return TestIsmrmrd().write(folder)

    def open(self, path: Path):
        source = open_source(path)
        if path.stem == "damaged":
            raise OSError("a raw exception\nof two lines")
        return source


def test_a_format_that_breaks_a_promise_fails_its_test(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="raw exception"):
        NotClosing().test_a_damaged_file_is_an_error_of_one_line_or_read_in_part(tmp_path)
