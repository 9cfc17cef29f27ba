from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration_servers import Certificates, Orthanc, answers, free_port, need, running, wait_until
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Start an Orthanc; keyword arguments go into its configuration."""
    program = need("Orthanc")
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Orthanc:
            folder = tmp_path / f"orthanc-{free_port()}"
            folder.mkdir()
            orthanc = Orthanc(free_port(), free_port(), folder)
            config = {
                "Name": "test",
                "HttpPort": orthanc.http_port,
                "DicomPort": orthanc.dicom_port,
                "DicomAet": "ORTHANC",
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "StorageDirectory": str(folder / "db"),
                "IndexDirectory": str(folder / "db"),
                "Plugins": [str(p) for p in Path("/usr/share/orthanc/plugins").glob("*DicomWeb*")],
                "DicomCheckCalledAet": True,
                "StableAge": 1,
                **options,
            }
            (folder / "orthanc.json").write_text(json.dumps(config))
            stack.enter_context(
                running([program, str(folder / "orthanc.json")], orthanc.http_port, folder / "log")
            )
            wait_until(lambda: answers(orthanc), 30)
            return orthanc

        yield start


@pytest.fixture
def mr_files(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Small MR instances."""
    folder = tmp_path / "mr"
    folder.mkdir()
    rng = np.random.default_rng(1)

    def make(count: int) -> list[Path]:
        files = []
        for number in range(count):
            dataset = Dataset()
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.SOPClassUID = MRImageStorage
            dataset.SOPInstanceUID = generate_uid("1.2.826.0.1.", ["integration", str(number)])
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.1", "1.2.826.2"
            dataset.PatientName, dataset.PatientID, dataset.Modality = "Phantom^Test", "P1", "MR"
            dataset.StudyID, dataset.AccessionNumber, dataset.InstanceNumber = "1", "", number + 1
            dataset.PatientSex, dataset.PatientBirthDate, dataset.SeriesNumber = "", "", 1
            dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20260101", "120000", ""
            dataset.Rows = dataset.Columns = 64
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
            dataset.PixelRepresentation, dataset.SamplesPerPixel = 0, 1
            dataset.PhotometricInterpretation = "MONOCHROME2"
            dataset.PixelData = rng.integers(0, 4000, (64, 64), dtype=np.uint16).tobytes()
            files.append(folder / f"{number}.dcm")
            dataset.save_as(files[-1], enforce_file_format=True)
        return files

    return make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    openssl = need("openssl")
    folder = tmp_path_factory.mktemp("tls")

    def call(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "rsa:2048", "-nodes"]
    extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    call(
        "req",
        "-x509",
        *curve,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=Test CA",
        *extensions,
    )
    for name, subject in (("server", "127.0.0.1"), ("client", "recon-node")):
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        call("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={subject}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext"]
        call("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem", "-days", "2")
    paths = (folder / n for n in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key"))
    return Certificates(*paths)
