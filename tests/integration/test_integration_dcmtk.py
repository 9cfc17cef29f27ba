from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from integration_servers import free_port, need, running
from pydicom import dcmread

from recon_node.core.errors import DeliveryError
from recon_node.delivery import StorageScp, echo, open_destination
from recon_node.offline.export import export
from recon_node.settings import DeliverySettings

pytestmark = pytest.mark.real
Files = Callable[[int], list[Path]]


def assert_same_pixels(stored: list[Path], files: list[Path]) -> None:
    kept = {d.SOPInstanceUID: d.pixel_array.tobytes() for d in map(dcmread, stored)}
    assert kept == {d.SOPInstanceUID: d.pixel_array.tobytes() for d in map(dcmread, files)}


def deliver(address: str, files: list[Path]) -> None:
    destination = open_destination(address)
    try:
        destination.send(files)
    finally:
        destination.close()


@pytest.mark.parametrize("option", ["+x=", "+xi", "+xe"])
def test_storescp_stores_in_whatever_syntax_it_prefers(mr_files: Files, tmp_path: Path, option: str) -> None:
    port, folder, files = free_port(), tmp_path / "rx", mr_files(4)
    folder.mkdir()
    command = [need("storescp"), option, "-od", str(folder), str(port)]
    with running(command, port, tmp_path / "log"):
        assert echo(f"dicom://ANY@127.0.0.1:{port}") > 0
        deliver(f"dicom://ANY@127.0.0.1:{port}", files)
    assert_same_pixels(list(folder.iterdir()), files)


def test_a_pacs_without_storage_commitment_is_told_apart_from_one_that_is_slow(
    mr_files: Files, tmp_path: Path
) -> None:
    port = free_port()
    settings = DeliverySettings(
        spool=str(tmp_path / "spool"),
        destinations={"pacs": {"address": f"dicom://ANY@127.0.0.1:{port}", "commitment": True}},
        reserve_mb=0,
    )
    with running([need("storescp"), "-od", str(tmp_path), str(port)], port, tmp_path / "log"):
        with pytest.raises(DeliveryError, match="no presentation context for Storage Commitment"):
            export(mr_files(2), "pacs", settings)


def test_dcmqrscp_archives_what_is_sent(mr_files: Files, tmp_path: Path) -> None:
    port, folder, files = free_port(), tmp_path / "archive", mr_files(4)
    folder.mkdir()
    settings = tmp_path / "dcmqrscp.cfg"
    settings.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {folder} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with running([need("dcmqrscp"), "-c", str(settings), str(port)], port, tmp_path / "log"):
        deliver(f"dicom://ARCHIVE@127.0.0.1:{port}", files)
        deliver(f"dicom://ARCHIVE@127.0.0.1:{port}", files[:2])
    assert_same_pixels(list(folder.glob("*.dcm")), files)


@pytest.mark.parametrize("option", ["--refuse", "--abort-after", "--abort-during"])
def test_a_storescp_that_refuses_or_aborts_is_an_error(mr_files: Files, tmp_path: Path, option: str) -> None:
    port = free_port()
    with running([need("storescp"), option, "-od", str(tmp_path), str(port)], port, tmp_path / "log"):
        with pytest.raises(DeliveryError):
            deliver(f"dicom://ANY@127.0.0.1:{port}?associate=5&answer=5", mr_files(1))


def test_dcmsend_and_echoscu_talk_to_the_embedded_scp(mr_files: Files, tmp_path: Path) -> None:
    files = mr_files(3)
    with StorageScp(tmp_path / "pacs") as scp:
        where = [scp.host, str(scp.port)]
        subprocess.run([need("echoscu"), "-aec", scp.ae_title, *where], check=True, timeout=30)
        send = [need("dcmsend"), "-aec", scp.ae_title, *where, *map(str, files)]
        subprocess.run(send, check=True, timeout=30, capture_output=True)
        assert_same_pixels(scp.files(), files)
