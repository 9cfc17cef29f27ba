"""The node says that it is ready only while it can be relied on to deliver."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from recon_node.delivery.sending import Sending
from recon_node.online.serve import serving
from recon_node.settings import Settings


def asked(port: int | None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(port: int | None, code: int) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found, text = asked(port)
        if found == code:
            return text
        time.sleep(0.05)
    raise AssertionError(f"never {code}: {asked(port)}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings().replace("recon", method="sense")
    folders = {"out": str(tmp_path / "dicom"), "deferred": str(tmp_path / "deferred")}
    return settings.replace("server", port=0, health_port=0, **folders).replace(
        "delivery",
        spool=str(tmp_path / "spool"),
        to=("box",),
        destinations={"box": {"address": str(tmp_path / "box")}},
    )


def test_a_delivery_thread_that_is_down_is_told_until_it_is_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failing = Sending.once, [False]

    def once(self: Sending) -> int:
        if failing[0]:
            raise SystemError
        return real(self)

    monkeypatch.setattr(Sending, "once", once)
    with serving(settings) as running:
        assert asked(running.health_port)[0] == 200
        failing[0] = True
        assert "deliver-0-box is down" in until(running.health_port, 503)
        failing[0] = False
        until(running.health_port, 200)


def test_a_spool_that_cannot_be_written_is_told(settings: Settings, tmp_path: Path) -> None:
    with serving(settings) as running:
        incoming = tmp_path / "spool" / "incoming"
        incoming.rename(tmp_path / "away")
        assert "spool" in until(running.health_port, 503)
        (tmp_path / "away").rename(incoming)
        until(running.health_port, 200)
