"""The node says that it is ready only while it can be relied on to deliver."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from recon_node.delivery import StorageScp
from recon_node.delivery.sending import Sending
from recon_node.online.serve import serving
from recon_node.settings import Settings

Asked = Callable[[int | None], tuple[int, str]]


def asked(port: int | None, query: str = "") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz{query}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(port: int | None, code: int, asked: Asked = asked) -> str:
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


def test_a_pacs_that_goes_away_is_told_while_nothing_is_to_be_sent(
    settings: Settings, tmp_path: Path
) -> None:
    def asks(port: int | None) -> tuple[int, str]:
        return asked(port, "?destination=pacs")

    with StorageScp(tmp_path / "pacs") as scp:
        port, named = scp.port, {"pacs": {"address": scp.address}}
        probed = settings.replace("delivery", to=("pacs",), destinations=named, probe_s=0.1)
        with serving(probed) as running:
            assert asks(running.health_port)[0] == 200
            scp.__exit__(None, None, None)
            assert "away" in until(running.health_port, 503, asks)
            assert "nothing listens" in asked(running.health_port)[1]
            assert asked(running.health_port)[0] == 200
            with StorageScp(tmp_path / "pacs", port=port):
                until(running.health_port, 200, asks)
