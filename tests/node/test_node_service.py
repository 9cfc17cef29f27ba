from __future__ import annotations

import io
import logging
import shutil
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import h5py
import pytest

from recon_node.core.errors import ConfigError
from recon_node.delivery import Spool, SpoolFull, StorageScp
from recon_node.files.open import open_source
from recon_node.mrd.captures import Captures
from recon_node.offline.send import send_scan
from recon_node.online.log import setup_logging
from recon_node.online.serve import serving
from recon_node.pipeline.queue import open_spool
from recon_node.pipeline.scan import expected_slices
from recon_node.settings import Settings, with_properties


def _settings(folder: Path, **server: object) -> Settings:
    settings = Settings().replace("recon", method="sense")
    folders = {"out": str(folder / "dicom"), "deferred": str(folder / "deferred")}
    return settings.replace("server", port=0, **folders, **server)


def test_a_scan_sent_to_the_server_comes_back_and_reaches_the_pacs(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    with StorageScp(tmp_path / "pacs") as pacs:
        settings = _settings(tmp_path, health_port=0).replace(
            "delivery",
            spool=str(tmp_path / "spool"),
            destinations={"pacs": {"address": pacs.address}},
            to=("pacs",),
        )
        with serving(settings) as running:
            sent = send_scan(heart[0], port=running.server.port, out=tmp_path / "images.h5")
            assert sent.ok
            assert sent.images == 16
            url = f"http://127.0.0.1:{running.health_port}/readyz"
            assert urllib.request.urlopen(url, timeout=10).status == 200
            end = time.monotonic() + 60
            while len(pacs.files()) < 16 and time.monotonic() < end:
                time.sleep(0.05)
        assert len(pacs.files()) == 16
    with h5py.File(tmp_path / "images.h5") as file:
        assert sum(group["data"].shape[0] for group in file["images"].values()) == 16


def test_the_scan_is_answered_with_err_where_it_cannot_be_reconstructed(tmp_path: Path) -> None:
    from recon_node.simulate import simulate_scan

    raw = tmp_path / "no_acs.h5"
    simulate_scan(
        raw, acceleration=2, pattern="uniform", coils=4, slices=1, phases=2, matrix=64, seed=1, acs=0
    )
    with serving(_settings(tmp_path)) as running:
        sent = send_scan(raw, port=running.server.port)
        assert not sent.ok
        assert "calibration" in sent.errors[0]
        assert send_scan(raw, port=running.server.port).errors


MORE_THAN_ANY_DISK = 1 << 50


@pytest.mark.parametrize("mode", ["direct", "deferred"])
@pytest.mark.parametrize("destinations", [(), ("share",)])
def test_no_scan_is_taken_while_a_disk_that_it_is_written_to_is_nearly_full(
    mode: str, destinations: tuple[str, ...], heart: tuple[Path, Path], tmp_path: Path
) -> None:
    delivery = {"spool": str(tmp_path / "spool"), "to": tuple(str(tmp_path / d) for d in destinations)}
    settings = _settings(tmp_path).replace("delivery", **delivery, reserve_mb=MORE_THAN_ANY_DISK)
    settings = settings.replace("server", mode=mode, health_port=0)
    with serving(settings) as running:
        sent = send_scan(heart[0], port=running.server.port)
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{running.health_port}/readyz", timeout=20)
        assert b"nearly full" in refused.value.read()
        refused.value.close()
    assert not sent.ok
    assert "nearly full" in sent.errors[0]
    assert not (tmp_path / "dicom").exists()


def test_a_disk_that_fills_up_stops_recording_and_no_scan(
    heart: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(tmp_path).replace("server", record=str(tmp_path / "kept"))
    with serving(settings) as running:
        usage = shutil.disk_usage(tmp_path)

        def as_it_fills(folder: object) -> object:  # whoever asks, and however often
            kept = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*") if path.is_file())
            return usage._replace(free=0) if kept > 4096 else usage

        monkeypatch.setattr("recon_node.core.disk.shutil.disk_usage", as_it_fills)
        monkeypatch.setattr("recon_node.online.node.check_room", lambda *args: None)
        monkeypatch.setattr("recon_node.mrd.captures.arriving._ROOM_AT_A_TIME", 4096)
        monkeypatch.setattr("recon_node.mrd.captures.store._LOOK_AGAIN_S", -1.0)
        assert send_scan(heart[0], port=running.server.port).ok
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 16
    (kept,) = Captures(tmp_path / "kept", max_bytes=0).all()
    assert kept.state == "failed"
    assert "not all of it was kept: the 10000 MB of received scans, or the disk, are full" in kept.reason


def test_a_pacs_that_never_answers_only_fills_the_spool(heart: tuple[Path, Path], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"dicom://SILENT@127.0.0.1:{silent.getsockname()[1]}?associate=1&network=1"
        delivery = {"spool": str(tmp_path / "spool"), "destinations": {"pacs": {"address": address}}}
        settings = _settings(tmp_path).replace("delivery", **delivery, to=("pacs",))
        with serving(settings) as running:
            sent = send_scan(heart[0], port=running.server.port)
    assert sent.ok
    assert sent.images == 16
    with open_spool(settings.delivery) as spool:
        assert spool.counts()["pacs"]["waiting"] == 16


def test_a_spool_that_takes_nothing_more_does_not_withhold_images_from_the_scanner(
    heart: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SpoolFull("the disk filled up meanwhile")

    monkeypatch.setattr(Spool, "put", full)
    settings = _settings(tmp_path).replace(
        "delivery", spool=str(tmp_path / "spool"), to=(str(tmp_path),), reserve_mb=0
    )
    with serving(settings) as running:
        sent = send_scan(heart[0], port=running.server.port)
    assert sent.images == 16
    assert not sent.ok
    assert "2 slices did not get into the spool (the disk filled up meanwhile)" in sent.errors[0]
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 16


def test_patient_data_of_a_running_scan_stays_out_of_the_log(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    stream = io.StringIO()
    patients = setup_logging(stream=stream)
    log = logging.getLogger("recon_node.online.serve")
    with serving(_settings(tmp_path), patients=patients) as running:
        running.node.observer = lambda done: log.info(
            "reconstructed %s", done.result.kspace.header.patient.name
        )
        assert send_scan(heart[0], port=running.server.port).ok
    assert "[redacted]" in stream.getvalue()
    assert "Phantom" not in stream.getvalue()


def test_announced_slices_are_counted(heart: tuple[Path, Path]) -> None:
    with open_source(heart[0]) as source:
        assert expected_slices(source.headers) == 2


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ({"colour": "red"}, "known are"),
        ({"method": "magic"}, "allowed cardiomm"),
        ({"destination": "elsewhere"}, "not configured"),
        ({"weights": "../../etc/passwd"}, "never a path"),
        ({"priority": "10"}, "allowed a whole number, 0 to 9"),
    ],
)
def test_properties_from_the_network_are_checked(properties: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        with_properties(Settings(), properties)


def test_a_destination_that_a_chain_names_is_added_to_the_nodes_own() -> None:
    named = {"archive": {"address": "dicom://A@host"}, "viewer": {"address": "dicom://V@host"}}
    settings = Settings().replace("delivery", destinations=named, to=("archive",))
    assert with_properties(settings, {"destination": "viewer"}).delivery.to == ("archive", "viewer")
    assert with_properties(settings, {"destination": "archive"}).delivery.to == ("archive",)
