"""A client with a scanner's manners (FIRE): 3 s to connect, no waveforms, images back within 3 s."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from node_scanner import ANSWER_S, acquisitions, opening, talk

from recon_node.mrd.messages import close_bytes, image_bytes
from recon_node.mrd.meta import parse_meta
from recon_node.online.serve import Running, serving
from recon_node.pipeline import row
from recon_node.settings import Settings


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Running]:
    settings = Settings().replace("recon", method="cardiomm", fallback="zero-filled", device="cpu")
    folders = {name: str(tmp_path / name) for name in ("out", "record", "deferred")}
    with serving(settings.replace("server", port=0, **folders)) as running:
        yield running


def test_quick_images_come_in_time_with_the_scanners_geometry_and_whole_windows(
    heart: tuple[Path, Path], node: Running
) -> None:
    parts = [opening(heart[0], mode="deferred"), *acquisitions(heart[0]), close_bytes()]
    images, texts, first = talk(node.server.port, parts)
    assert len(images) == 16
    assert not [text for text in texts if text.startswith("ERR")]
    assert first < ANSWER_S
    series: dict[int, set[str]] = {}
    for image in images:
        meta = parse_meta(image.attributes)
        assert meta["Keep_image_geometry"] == ("1",)
        assert all(value.isdigit() for name in meta if "Window" in name for value in meta[name])
        index = int(image.head["image_series_index"][0])
        series.setdefault(index, set()).add(meta["SeriesDescription"][0])
        assert "SeriesInstanceUID" not in meta, "it would have to agree with the index"
    assert [len(names) for names in series.values()] == [1]


def test_whatever_fails_the_scanner_gets_images(
    heart: tuple[Path, Path], node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(prepared, pipeline, clock):
        if pipeline.settings.recon.method != "zero-filled":
            raise ZeroDivisionError
        return go_on(prepared, pipeline, clock)

    go_on = row._reconstructed
    monkeypatch.setattr(row, "_reconstructed", fails)
    images, texts, _ = talk(node.server.port, [opening(heart[0]), *acquisitions(heart[0]), close_bytes()])
    assert len(images) == 16
    assert {parse_meta(image.attributes)["ReconMethod"][0] for image in images} == {"zero-filled"}
    assert not [text for text in texts if text.startswith("ERR")]


def test_originals_come_back_unchanged_also_when_all_fails(
    heart: tuple[Path, Path], node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [opening(heart[0]), *acquisitions(heart[0]), close_bytes()]
    made, _, _ = talk(node.server.port, parts)
    sent = [bytes(image_bytes(image)) for image in made[:3]]

    def fails(*given):
        raise ZeroDivisionError

    monkeypatch.setattr(row, "_reconstructed", fails)
    images, texts, _ = talk(
        node.server.port, [opening(heart[0]), *acquisitions(heart[0])[:1], *sent, close_bytes()]
    )
    assert [bytes(image_bytes(image)) for image in images] == sent
    assert any(text.startswith("ERR") for text in texts)
