"""Whatever goes wrong, something comes back in time: quick images, the fallback's, or the originals."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from field_scans import Lines, axial, header, kspace_of, phantom, replay, write

from recon_node.core.errors import ModelError
from recon_node.files.open import open_source
from recon_node.mrd.frames import FrameReader
from recon_node.mrd.messages import (
    Close,
    ConfigText,
    HeaderXml,
    ImageMessage,
    Text,
    message_bytes,
)
from recon_node.mrd.meta import parse_meta
from recon_node.mrd.wire import read_messages
from recon_node.offline.send import SendSummary, send_scan
from recon_node.online.serve import Running, serving
from recon_node.pipeline.queue import open_spool
from recon_node.settings import Settings

Capture = pytest.CaptureFixture[str]
MORE_THAN_ANY_DISK = 1 << 50


class Failing:
    """A method that fails outright."""

    def reconstruct(self, kspace: Any, maps: Any, text: Any) -> Any:
        raise KeyError("layer 3")


class Garbage:
    """A method whose images have nothing to do with the data."""

    def reconstruct(self, kspace: Any, maps: Any, text: Any) -> Any:
        rng = np.random.default_rng(0)
        return rng.standard_normal((kspace.data.shape[0], *kspace.data.shape[2:])) * 50 + 0j


@pytest.fixture(autouse=True)
def field_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("field_methods")
    module.Failing, module.Garbage = Failing, Garbage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "field_methods", module)


Serve = Callable[..., Running]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    contexts = []

    def start(method: str = "sense", **sections: dict[str, Any]) -> Running:
        folders = {"out": str(tmp_path / "served"), "deferred": str(tmp_path / "deferred")}
        settings = Settings().replace("server", port=0, **folders)
        settings = settings.replace("recon", method=method, **sections.pop("recon", {}))
        for name, values in sections.items():
            settings = settings.replace(name, **values)
        contexts.append(serving(settings))
        return contexts[-1].__enter__()

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two slices, every other line outside the calibration lines."""
    lines = Lines()
    rows = sorted({*range(0, 40, 2), *range(10, 30)})
    for number in range(2):
        data = kspace_of(phantom(shift=-0.1 * number), noise=0.003, seed=number)
        lines.add(data, rows, slice=number, **axial(12.0 * number))
    return write(tmp_path / "raw.h5", header(limits={"slice": 1, "phase": 0}), lines)


def sent(raw: Path, node: Running, **options: Any) -> tuple[SendSummary, list[dict[str, tuple[str, ...]]]]:
    """What became of a scan, and the attributes of the images that came back."""
    images: list[ImageMessage] = []
    told = send_scan(raw, port=node.server.port, on_image=images.append, **options)
    return told, [
        {**parse_meta(i.attributes), "series": (str(int(i.head["image_series_index"][0])),)} for i in images
    ]


def values(images: list[dict[str, tuple[str, ...]]], name: str) -> list[str]:
    return [image[name][0] for image in images]


@pytest.mark.parametrize(
    ("options", "sections", "word"),
    [
        ({"properties": {"weights": "nowhere", "method": "cardiomm"}}, {}, "nowhere"),
        ({"properties": {"methud": "sense"}}, {}, "methud"),
        ({"config": "nobodys"}, {}, "unknown configuration"),
        ({}, {"delivery": {"reserve_mb": MORE_THAN_ANY_DISK}}, "nearly full"),
        (
            {},
            {"delivery": {"reserve_mb": MORE_THAN_ANY_DISK}, "server": {"mode": "deferred"}},
            "nearly full",
        ),
    ],
    ids=["weights missing", "unknown property", "unknown configuration", "disk full", "deferred, disk full"],
)
def test_a_refused_scan_gets_quick_images_that_say_so_and_then_the_error(
    options: dict[str, Any], sections: dict[str, Any], word: str, raw: Path, serve: Serve, tmp_path: Path
) -> None:
    told, images = sent(raw, serve(**sections), **options)
    assert len(told.errors) == 1
    assert word in told.errors[0]
    assert values(images, "ReconMethod") == ["sense", "sense"]
    assert values(images, "TrustVerdict") == ["fallback", "fallback"]
    assert all("quick look" in image["SeriesDescription"][0] for image in images)
    assert all("the scan was refused" in image["TrustReasons"][0] for image in images)
    assert not list(tmp_path.rglob("*.dcm"))


def test_originals_come_back_before_the_error_where_nothing_can_be_reconstructed(
    raw: Path, serve: Serve
) -> None:
    import socket

    original = ImageMessage(
        head=_image_head(4, 6), attributes="", data=np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)
    )
    with open_source(raw) as source:
        readouts = next(iter(source))
    messages = (
        ConfigText(text="<configuration/>"),
        HeaderXml(xml=header(trajectory="radial").encode()),
        readouts,
        original,
        Close(),
    )
    with socket.create_connection(("127.0.0.1", serve().server.port), 60) as sock:
        sock.sendall(b"".join(bytes(message_bytes(m)) for m in messages))
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    back = list(read_messages(memoryview(answer)))
    (image,) = [m for m in back if isinstance(m, ImageMessage)]
    np.testing.assert_array_equal(image.data, original.data)
    errors = [n for n, m in enumerate(back) if isinstance(m, Text) and m.text.startswith("ERR")]
    assert errors
    assert back.index(image) < errors[0]
    assert "radial" in back[errors[0]].text
    texts = [bytes(f.raw) for f in FrameReader(memoryview(answer)) if f.message_id.name == "TEXT"]
    assert texts
    assert all(text.endswith(b"\n") for text in texts)


def _image_head(ny: int, nx: int) -> np.ndarray:
    from recon_node.mrd.messages import IMAGE_HEADER

    head = np.zeros(1, IMAGE_HEADER)
    head["version"], head["matrix_size"], head["channels"] = 1, (nx, ny, 1), 1
    head["data_type"], head["image_type"], head["image_series_index"] = 5, 1, 7
    return head


def test_where_the_method_fails_outright_the_fallbacks_images_leave_marked(
    raw: Path, serve: Serve, tmp_path: Path
) -> None:
    told, images = sent(raw, serve("field_methods:Failing"))
    assert told.ok
    assert values(images, "ReconMethod") == ["sense", "sense"]
    assert values(images, "TrustVerdict") == ["fallback", "fallback"]
    assert all("Failing failed" in image["TrustReasons"][0] for image in images)
    assert len(list((tmp_path / "served").rglob("*.dcm"))) == 2
    assert any("Failing failed" in line for line in told.warnings)


def test_where_the_fallback_fails_as_well_the_methods_own_error_is_told(
    raw: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = serve("field_methods:Failing")

    def fails(*_: Any) -> None:
        raise ModelError("so does the fallback")

    monkeypatch.setattr("recon_node.methods.sense.Sense.reconstruct", fails)
    told, images = sent(raw, node)
    assert images == []
    assert "Failing failed" in told.errors[0]


def test_an_archives_scan_is_not_made_by_another_method_without_a_word(
    raw: Path, tmp_path: Path, capsys: Capture
) -> None:
    found = replay(raw, tmp_path / "out", capsys, method="field_methods:Failing")
    assert (found.code, found.series) == (1, [])
    assert "Failing failed" in found.errors


def test_images_whose_dicom_finds_no_place_reach_the_scanner_before_the_error(
    raw: Path, serve: Serve, tmp_path: Path
) -> None:
    node = serve()
    assert sent(raw, node)[0].ok
    (study,) = [path for path in (tmp_path / "served").iterdir() if path.is_dir()]
    shutil.rmtree(study)
    study.write_text("no folder")
    told, images = sent(raw, node)
    assert values(images, "ReconMethod") == ["sense", "sense"]
    assert len(told.errors) == 1
    assert "2 slices are not on the disk" in told.errors[0]


POLICIES = {
    "warn": ([("1", "Garbage", "warn")], 1, 1),
    "fallback": ([("3", "sense", "fallback")], 1, 1),
    "both": ([("3", "sense", "fallback"), ("2", "Garbage", "warn")], 2, 2),
    "hold": ([], 2, 0),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_says_what_leaves_of_an_image_that_is_not_to_be_believed(
    policy: str, raw: Path, serve: Serve, tmp_path: Path
) -> None:
    expected, written, queued = POLICIES[policy]
    away = {"away": {"address": "dicom://NOBODY@127.0.0.1:9"}}
    delivery = {"spool": str(tmp_path / "spool"), "destinations": away, "to": ("away",)}
    node = serve("field_methods:Garbage", recon={"on_distrust": policy}, delivery=delivery)
    told, images = sent(raw, node)
    assert told.ok
    names = ("series", "ReconMethod", "TrustVerdict")
    assert [tuple(image[name][0] for name in names) for image in images] == expected * 2
    found = [pydicom.dcmread(path) for path in (tmp_path / "served").rglob("*.dcm")]
    assert len(found) == 2 * written
    with open_spool(node.node.settings.delivery) as spool:
        assert sum(sum(states.values()) for states in spool.counts().values()) == 2 * queued
    if policy == "both":
        assert {"withheld" in str(ds.SeriesDescription) for ds in found} == {True, False}
        assert len({ds.SeriesInstanceUID for ds in found}) == 4
        assert len({int(ds.SeriesNumber) for ds in found}) == 4
    if policy == "hold":
        assert any("held for review" in line for line in told.warnings)


def test_a_series_has_one_description_and_whole_number_windows(raw: Path, serve: Serve) -> None:
    _, images = sent(raw, serve("field_methods:Garbage", recon={"on_distrust": "both"}))
    described = {(image["series"][0], image["SeriesDescription"][0]) for image in images}
    assert len(described) == len({index for index, _ in described}) == 2
    assert set(values(images, "Keep_image_geometry")) == {"1"}
    for image in images:
        for name in ("WindowCenter", "WindowWidth"):
            assert image.get(name, ("1",))[0].isdigit()


def test_the_replayed_summary_says_what_is_held_and_nothing_of_it_is_delivered(
    raw: Path, tmp_path: Path, capsys: Capture
) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[recon]\non_distrust = "hold"\n')
    options = ("--config", str(config), "--to", str(tmp_path / "share"))
    found = replay(raw, tmp_path / "out", capsys, *options, method="field_methods:Garbage")
    assert [entry["trust"]["held"] for entry in found.series] == [True, True]
    assert [entry["trust"]["withheld"] for entry in found.series] == ["Garbage", "Garbage"]
    assert len(found.instances) == 4
    assert not list((tmp_path / "share").rglob("*.dcm"))
