"""A short soak: `python -m benchmarks.soak` runs the long one."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import PHASES, SLICES, images_lost, soak
from recon_node.offline.send import send_scan
from recon_node.online.serve import serving
from recon_node.settings import Settings


def test_scans_side_by_side_with_clients_killed_lose_nothing_and_leave_nothing_behind() -> None:
    result = soak(8, killed=0.25)
    assert result.troubles == []
    assert result.slices_received >= 6 * SLICES


def test_the_soak_sees_a_lost_image(tmp_path: Path) -> None:
    from recon_node.simulate import simulate_scan

    raw = tmp_path / "scan.h5"
    simulate_scan(
        raw, acceleration=2, pattern="uniform", coils=2, slices=SLICES, phases=PHASES, matrix=32, seed=1
    )
    settings = Settings().replace("recon", method="zero-filled", check_trust=False)
    folders = {"out": "dicom", "record": "recorded", "deferred": "deferred"}
    settings = settings.replace("server", port=0, **{k: str(tmp_path / v) for k, v in folders.items()})
    with serving(settings) as node:
        assert send_scan(raw, port=node.server.port).ok
    assert images_lost(tmp_path) == (SLICES, 0)
    next((tmp_path / "dicom").rglob("*.dcm")).unlink()
    assert images_lost(tmp_path) == (SLICES, 1)
