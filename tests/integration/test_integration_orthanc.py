from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration_servers import Certificates, Orthanc, free_port
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dicom"))

from dicom_samples import HEADER, MADE_BY, blob, geometry

from recon_node.core.errors import PacsMisconfigured
from recon_node.core.scan import SliceIndex
from recon_node.core.types import ImageSeries
from recon_node.delivery import (
    CommitmentListener,
    DeliveryWorker,
    Policy,
    Spool,
    echo,
    open_destination,
)
from recon_node.dicom import Provenance, write_series
from recon_node.images import scale_series
from recon_node.offline.export import export
from recon_node.settings import DeliverySettings

pytestmark = pytest.mark.real
Start = Callable[..., Orthanc]
Files = Callable[[int], list[Path]]


def assert_same_pixels(orthanc: Orthanc, files: list[Path]) -> None:
    kept = {}
    for instance in orthanc.instances():
        dataset = dcmread(DicomBytesIO(orthanc.file(instance)))
        kept[dataset.SOPInstanceUID] = dataset.PixelData
    sent = {d.SOPInstanceUID: d.PixelData for d in map(dcmread, files)}
    assert kept == sent


def test_orthanc_stores_what_is_sent_and_gives_the_same_pixels_back(
    start_orthanc: Start, mr_files: Files
) -> None:
    orthanc = start_orthanc()
    files = mr_files(5)
    assert echo(orthanc.address) > 0
    destination = open_destination(orthanc.address)
    destination.send(files)
    destination.send(files[:2])
    destination.close()
    assert_same_pixels(orthanc, files)


def test_orthanc_takes_stow_rs_and_gives_the_same_pixels_back(start_orthanc: Start, mr_files: Files) -> None:
    orthanc = start_orthanc()
    files = mr_files(5)
    destination = open_destination(orthanc.web + "/dicom-web/")
    assert destination.echo() > 0
    destination.send(files)
    destination.send(files[:2])
    destination.close()
    assert_same_pixels(orthanc, files)


def test_orthanc_asks_for_a_password_and_gets_it(start_orthanc: Start, mr_files: Files) -> None:
    orthanc = start_orthanc(AuthenticationEnabled=True, RegisteredUsers={"node": "secret"})
    url = orthanc.web + "/dicom-web"
    with pytest.raises(PacsMisconfigured, match="log in refused"):
        echo(url)
    with pytest.raises(PacsMisconfigured, match="log in refused"):
        open_destination(url).send(mr_files(1))
    named = {"web": {"address": url, "user": "node", "password": "secret"}}
    destination = open_destination("web", named=named)
    destination.send(mr_files(2))
    destination.close()


def test_a_wrong_stow_url_is_told(start_orthanc: Start, mr_files: Files) -> None:
    orthanc = start_orthanc()
    with pytest.raises(PacsMisconfigured, match="no STOW-RS service"):
        open_destination(orthanc.web + "/elsewhere").send(mr_files(1))


def test_orthanc_refuses_a_wrong_ae_title(start_orthanc: Start) -> None:
    orthanc = start_orthanc()
    with pytest.raises(PacsMisconfigured, match="not called 'OTHER'"):
        echo(f"dicom://OTHER@127.0.0.1:{orthanc.dicom_port}")


def test_orthanc_commits_itself_over_an_association_of_its_own(
    start_orthanc: Start, mr_files: Files, tmp_path: Path
) -> None:
    port = free_port()
    modality = {"AET": "RECON-NODE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    orthanc = start_orthanc(DicomModalities={"node": modality})
    files = mr_files(4)
    settings = DeliverySettings(
        spool=str(tmp_path / "spool"),
        destinations={"pacs": {"address": orthanc.address, "commitment": True}},
        listen=f"dicom://RECON-NODE@127.0.0.1:{port}",
        reserve_mb=0,
    )
    assert export(files, "pacs", settings).delivered == 4
    assert_same_pixels(orthanc, files)


def test_an_instance_that_orthanc_lost_is_sent_again(
    start_orthanc: Start, mr_files: Files, tmp_path: Path
) -> None:
    import urllib.request

    port = free_port()
    modality = {"AET": "RECON-NODE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    orthanc = start_orthanc(DicomModalities={"node": modality})
    files = mr_files(2)
    named = {"pacs": {"address": orthanc.address, "commitment": True}}
    with Spool(tmp_path / "spool") as spool:
        policy = Policy(poll=0.05, first_wait=0.1)
        worker = DeliveryWorker(spool, {"pacs": open_destination("pacs", named=named)}, policy=policy)
        spool.put(files, ["pacs"])
        assert worker.send_once("pacs") == 2
        request = urllib.request.Request(f"{orthanc.web}/instances/{orthanc.instances()[0]}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()
        with CommitmentListener(worker.on_report, port=port), worker:
            assert worker.drain(timeout=60)
    assert_same_pixels(orthanc, files)


def test_the_spool_outlives_a_restart_of_orthanc(
    start_orthanc: Start, mr_files: Files, tmp_path: Path
) -> None:
    port = free_port()
    files = mr_files(4)
    address = f"dicom://ORTHANC@127.0.0.1:{port}"
    with Spool(tmp_path / "spool") as spool:
        policy = Policy(poll=0.05, first_wait=0.1, longest_wait=0.5)
        worker = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=policy)
        spool.put(files, ["pacs"])
        with worker:
            time.sleep(1)
            assert spool.counts()["pacs"]["waiting"] == 4
            orthanc = start_orthanc(DicomPort=port)
            assert worker.drain(timeout=60)
    assert_same_pixels(orthanc, files)


def test_orthanc_over_tls_with_client_certificates_both_ways(
    start_orthanc: Start, mr_files: Files, certificates: Certificates, tmp_path: Path
) -> None:
    port = free_port()
    modality = {"AET": "RECON-NODE", "Host": "127.0.0.1", "Port": port, "UseDicomTls": True}
    orthanc = start_orthanc(
        DicomModalities={"node": {**modality, "AllowStorageCommitment": True}},
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(certificates.server),
        DicomTlsPrivateKey=str(certificates.server_key),
        DicomTlsTrustedCertificates=str(certificates.ca),
    )
    address = f"dicoms://ORTHANC@127.0.0.1:{orthanc.dicom_port}"
    trusting = f"{address}?ca={certificates.ca}&connect=3&associate=3"
    full = f"{trusting}&certificate={certificates.client}&key={certificates.client_key}"
    files = mr_files(2)
    own = f"certificate={certificates.client}&key={certificates.client_key}&ca={certificates.ca}"
    settings = DeliverySettings(
        spool=str(tmp_path / "spool"),
        destinations={"pacs": {"address": full, "commitment": True}},
        listen=f"dicoms://RECON-NODE@127.0.0.1:{port}?{own}",
        reserve_mb=0,
    )
    assert export(files, "pacs", settings).delivered == 2
    assert_same_pixels(orthanc, files)
    with pytest.raises(PacsMisconfigured, match="TLS"):
        echo(trusting)
    with pytest.raises(PacsMisconfigured, match="certificate not accepted"):
        echo(full.replace(f"ca={certificates.ca}&", ""))
    with pytest.raises(PacsMisconfigured, match="elsewhere"):
        echo(full + "&server_name=elsewhere.example")


def content(file: bytes) -> bytes:
    """A file without preamble and file meta information, which are the keeper's own."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def test_orthanc_gives_back_the_bytes_of_every_kind_of_series(start_orthanc: Start, tmp_path: Path) -> None:
    images = ImageSeries(
        data=blob((3, 40, 48)), geometry=geometry(), header=HEADER, index=SliceIndex(), made_by=MADE_BY
    )
    kinds: list[dict[str, Any]] = [
        {"compression": "none"},
        {"compression": "rle"},
        {"compression": "jpeg-ls"},
        {"compression": "jpeg-2000"},
        {"form": "enhanced-mr"},
        {"form": "legacy-enhanced-mr"},
    ]
    orthanc = start_orthanc()
    for number, kind in enumerate(kinds):
        # Compression leaves the UIDs alone, and Orthanc keeps the first of each.
        provenance = Provenance(made_by=MADE_BY, source_id=str(number))
        written = write_series(
            images, tmp_path / str(number), pixels=scale_series(images), provenance=provenance, **kind
        )
        destination = open_destination(orthanc.address)
        destination.send([instance.path for instance in written])
        destination.close()
        kept = {content(orthanc.file(instance)) for instance in orthanc.instances()}
        assert {content(instance.path.read_bytes()) for instance in written} <= kept, kind
