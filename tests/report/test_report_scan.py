"""The page about a scan, as a file."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from recon_node.core.errors import DataError
from recon_node.core.types import Verdict
from recon_node.report import Report, SliceView, write_report
from recon_node.report.charts import marks
from recon_node.report.pixels import BACKGROUND, companded, mosaic, packed

PHASES, NY, NX = 5, 32, 24
VOID = {"meta", "img", "br", "link", "path", "line", "polyline", "input", "rect"}


class Balanced(HTMLParser):
    """Collects addresses and complains about tags that do not close, and about controls without a name."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if (tag == "img" and not given.get("alt")) or (
            tag in ("input", "select") and "label" not in self.open and "aria-label" not in given
        ):
            self.unnamed.append(str(given))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def written(folder: Path, report: Report) -> tuple[str, Balanced]:
    path = folder / "report.html"
    write_report(path, report)
    page = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    return page, parser


def test_the_report_is_one_file_that_loads_nothing(tmp_path: Path, report: Report) -> None:
    page, found = written(tmp_path, report)
    assert found.sources
    assert all(source.startswith("data:") for source in found.sources)
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_every_picture_and_control_has_a_name(tmp_path: Path, report: Report) -> None:
    _, found = written(tmp_path, report)
    assert found.unnamed == []


def test_the_report_says_what_matters(tmp_path: Path, report: Report) -> None:
    page, _ = written(tmp_path, report)
    for said in (
        "Not for clinical use until validated",
        "A metadata sentence.",
        "Undersampling: 8x random.",
        "a reason to look twice at 1",
        "a reason to look twice at 2",
        "Trust: look twice",
        "an odd thing",
        "1.50 s",
        "26.00 dB",
        "one of 8.2 lines outside the 4 central ones (all sampled): 40 % of k-space in all.",
    ):
        assert said in page


def test_a_withheld_network_is_told_with_what_stands_in(tmp_path: Path, report: Report) -> None:
    verdict = Verdict(verdict="fallback", score=0.0, reasons=("held-out lines are missed",))
    slices = [replace(one, verdict=verdict) for one in report.slices]
    page, _ = written(tmp_path, replace(report, slices=slices))
    assert "Trust: network withheld" in page
    assert "CardioMM stands in the network's place" in page


def test_ejection_fraction_stands_once_for_each_method(tmp_path: Path, report: Report) -> None:
    page, _ = written(tmp_path, report)
    assert page.count("EF (%)") == 1
    assert [page.count(f">{value}<") for value in ("55.5", "55.6", "44.4")] in ([1, 0, 1], [0, 1, 1])


def test_text_from_the_scan_cannot_become_markup_or_script(tmp_path: Path, report: Report) -> None:
    page, _ = written(tmp_path, replace(report, title="{{ 7 * 7 }} </script><b>title</b>"))
    assert "<b>title</b>" not in page
    assert "{{ 7 * 7 }}" in page
    assert "&lt;Vendor &amp; Sons&gt;" in page
    assert "3.0T from &lt;path&gt;" in page
    assert "<beyond>" not in page
    assert page.count("</script>") == 3


def unpacked(image: dict[str, object]) -> np.ndarray:
    steps = np.frombuffer(zlib.decompress(base64.b64decode(str(image["packed"]))), np.uint8)
    return np.cumsum(steps.reshape(image["shape"]), axis=-1, dtype=np.uint8)


def shown(page: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def test_the_pixels_of_the_page_are_the_images(tmp_path: Path, report: Report) -> None:
    page, _ = written(tmp_path, report)
    one = shown(page)["slices"][0]
    truth = unpacked(one["panels"][0]["image"]).astype(float)
    white = 255**2 * one["white"]
    np.testing.assert_allclose(truth**2 / white, np.abs(report.slices[0].truth), atol=0.01)
    error = unpacked(one["panels"][2]["error"]) / 255 * 0.1
    np.testing.assert_allclose(error, 0.05, atol=0.002)
    kspace = unpacked(one["kspace"])
    np.testing.assert_array_equal(kspace > 0, report.slices[0].kspace.mask)
    assert unpacked(one["layers"][0]["image"]) == pytest.approx(255 / 2, abs=3)


def test_levels_survive_packing_whatever_they_are() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (3, 7, 11), np.uint8)
    np.testing.assert_array_equal(unpacked(packed(levels)), levels)


def test_pixels_that_are_no_numbers_are_black() -> None:
    np.testing.assert_array_equal(
        companded(np.array([[[np.nan, np.inf, 4.0, 1.0]]]), 4.0), [[[0, 0, 255, 128]]]
    )


def test_the_parts_to_look_at_leave_the_air_out_and_hold_the_heart(tmp_path: Path, report: Report) -> None:
    page, _ = written(tmp_path, report)
    boxes = shown(page)["slices"][0]["boxes"]
    top, left, height, width = boxes["object"]
    assert top <= 8 / NY < 24 / NY <= top + height
    assert height < 0.7
    assert left <= 6 / NX < 18 / NX <= left + width
    top, left, height, width = boxes["heart"]
    assert top < 15.5 / NY < top + height < 1
    assert left < 12.5 / NX < left + width < 1


def test_a_scan_of_very_many_phases_leaves_some_out_and_says_so(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon_node.report.page._MOST_VALUES", PHASES * NY * NX * 3)
    page, _ = written(tmp_path, report)
    one = shown(page)["slices"][0]
    assert one["panels"][0]["image"]["shape"] == [3, NY, NX]
    assert one["times"] == [0, 80, 160]
    assert one["frameMs"] == 80
    assert "Every 2th phase" not in page
    assert "One phase in 2 is shown" in page


def test_the_best_method_stands_out(tmp_path: Path, report: Report) -> None:
    page, _ = written(tmp_path, report)
    best = re.search(r'<tr class="best">.*?</tr>', page, re.DOTALL)
    assert best is not None
    assert "CardioMM" in best[0]
    assert "Zero-filled" not in best[0]


def test_images_alone_make_a_report(tmp_path: Path, report: Report) -> None:
    one = SliceView(images={"sense": report.slices[0].truth[:1]})
    page, _ = written(tmp_path, Report(title="t", slices=[one]))
    for absent in ("Image quality", "Coil maps", "Trust", "Motion</label>", "K-space</label>"):
        assert absent not in page


SOME = np.ones((PHASES, NY, NX))


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([], "no slice"),
        ([SliceView(images={})], "one shape"),
        ([SliceView(images={"a": np.ones((2, 9, 9)), "b": np.ones((2, 9, 8))})], "one shape"),
        ([SliceView(images={str(i): SOME for i in range(7)})], "room for 6"),
        ([SliceView(images={"a": SOME}), SliceView(images={"b": SOME})], "same methods"),
        ([SliceView(images={"a": 0 * SOME})], "positive brightness"),
        ([SliceView(images={"a": SOME}, truth=np.nan * SOME)], "positive brightness"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_leaves_no_file(
    tmp_path: Path, slices: list[SliceView], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_report(tmp_path / "report.html", Report(title="t", slices=slices))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (5.4, 13.7), (-3.0, 120.0), (7.0, 7.0), (0.0, 0.0)])
def test_axis_marks_enclose_the_values_at_equal_steps(low: float, high: float) -> None:
    found = marks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    steps = [b - a for a, b in pairwise(found)]
    np.testing.assert_allclose(steps, steps[0])


def test_a_mosaic_keeps_its_tiles_and_leaves_gaps_dark() -> None:
    tile = np.full((4, 6, 3), 200, np.uint8)
    canvas = mosaic([[tile, tile], [tile]], gap=2)
    assert canvas.shape == (10, 14, 3)
    assert (canvas[:4, :6] == 200).all()
    assert (canvas[6:, 8:] == BACKGROUND).all()
    with pytest.raises(DataError, match="tiles of one size"):
        mosaic([[tile, tile[:2]]])
