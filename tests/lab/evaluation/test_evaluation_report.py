from __future__ import annotations

import base64
import io
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from recon_node.core.errors import DataError
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Prompt, Prompts, Sampling, Verdict
from recon_node.lab.evaluation.charts import marks
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.lab.evaluation.pictures import BACKGROUND, heat, mosaic
from recon_node.lab.evaluation.report import ReportData, write_report

PHASES, NY, NX = 5, 32, 24
VOID = {"meta", "img", "br", "link", "path", "line", "polyline"}


class Balanced(HTMLParser):
    """Collects addresses and complains about tags that do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    truth = (rng.random((PHASES, NY, NX)) + 0.5).astype(np.complex64)
    mask = rng.random((PHASES, NY, 1)) < 0.4
    mask = np.broadcast_to(mask, truth.shape).copy()
    kspace = KSpace(
        data=np.ones((PHASES, 3, NY, NX), np.complex64),
        mask=mask,
        header=ScanHeader(
            encoded_matrix=(NX, NY, 1),
            encoded_fov_mm=(300.0, 300.0, 8.0),
            recon_matrix=(NX, NY, 1),
            recon_fov_mm=(300.0, 300.0, 8.0),
            vendor="<Vendor & Sons>",
        ),
        index=SliceIndex(),
        geometry=SliceGeometry(
            position_mm=(0.0, 0.0, 0.0),
            read_dir=(1.0, 0.0, 0.0),
            phase_dir=(0.0, 1.0, 0.0),
            slice_dir=(0.0, 0.0, 1.0),
            fov_mm=(300.0, 300.0, 8.0),
        ),
        sampling=Sampling(pattern="random", acceleration=8.2, effective_acceleration=2.5, acs=4),
        notes=("an odd thing",),
    )
    images = {"Zero-filled": 0.7 * truth, "CardioMM": truth + 0.01}
    return ReportData(
        title="A <b>title</b>",
        images=images,
        truth=truth,
        metrics={name: series_metrics(image, truth, normalise=False) for name, image in images.items()},
        kspace=kspace,
        maps=CoilMaps(data=np.ones((1, 3, NY, NX), np.complex64), support=np.ones((NY, NX), np.bool_)),
        prompts=Prompts(
            metadata=Prompt("A metadata sentence.", {"field": "3.0T from <path>"}),
            undersampling=Prompt("Undersampling: 8x random."),
        ),
        verdict=Verdict(verdict="warn", score=0.4, reasons=("a reason to look twice",)),
        seconds={"coils": 0.25, "model": 1.5},
        volumes_ml={"Truth": np.array([9.0, 7, 4, 5, 8]), "CardioMM": np.array([9.0, 7, 5, 5, 8])},
        frame_ms=40,
    )


def written(tmp_path, data):
    path = tmp_path / "report.html"
    write_report(path, data)
    page = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    return page, parser.sources


def test_the_report_is_one_file_that_loads_nothing(tmp_path, data):
    page, sources = written(tmp_path, data)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert "<script" not in page
    assert "url(" not in page
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


@pytest.mark.real
def test_a_browser_shows_the_report_with_moving_pictures(tmp_path, data, component):
    path, picture = tmp_path / "report.html", tmp_path / "page.png"
    write_report(path, data)
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    command = [component("chromium"), *options.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    more = ["--window-size=1400,1000", "--hide-scrollbars", f"--screenshot={picture}", path.as_uri()]
    subprocess.run([*command, *more], check=True, capture_output=True, timeout=120)
    with Image.open(picture) as shown:
        page = np.asarray(shown.convert("L"), int)
    assert page.shape == (1000, 1400)
    assert np.quantile(page, 0.3) < 40  # dark, as the style sheet says
    assert (page > 200).mean() > 0.01  # with the truth's bright pixels and the text on it


def test_the_report_says_what_matters(tmp_path, data):
    page, _ = written(tmp_path, data)
    for said in (
        "not for clinical use",
        "A metadata sentence.",
        "Undersampling: 8x random.",
        "a reason to look twice",
        "an odd thing",
        "1.50 s",
        f"{data.metrics['CardioMM'].psnr:.2f}",
        "55.6",
    ):
        assert said in page


def test_text_from_the_scan_cannot_become_markup(tmp_path, data):
    page, _ = written(tmp_path, data)
    assert "<b>title</b>" not in page
    assert "&lt;Vendor &amp; Sons&gt;" in page
    assert "3.0T from &lt;path&gt;" in page


def test_a_title_with_template_signs_is_shown_as_it_is(tmp_path, data):
    page, _ = written(tmp_path, replace(data, title="$body costs $5"))
    assert "$body costs $5" in page


def test_all_methods_move_in_one_picture_with_a_frame_for_each_phase(tmp_path, data):
    _, sources = written(tmp_path, data)
    moving = [source for source in sources if source.startswith("data:image/webp")]
    assert len(moving) == 1
    with Image.open(io.BytesIO(base64.b64decode(moving[0].partition(",")[2]))) as picture:
        assert picture.n_frames == PHASES
        picture.load()
        assert picture.info["duration"] == 40


def test_a_focus_adds_a_row_of_enlarged_pictures(tmp_path, data):
    heights = []
    for focus in (None, (NY // 2, NX // 2), (0, NX - 1)):
        _, sources = written(tmp_path, replace(data, focus=focus))
        moving = next(source for source in sources if source.startswith("data:image/webp"))
        with Image.open(io.BytesIO(base64.b64decode(moving.partition(",")[2]))) as picture:
            heights.append(picture.height)
    assert heights[1] == heights[2] == pytest.approx(1.5 * heights[0], rel=0.02)


def test_air_around_the_object_is_not_shown(tmp_path, data):
    sizes = []
    for margin in (0, 8):
        image = np.pad(data.truth, ((0, 0), (margin, margin), (0, 0)))
        page = ReportData(title="t", images={"sense": image})
        _, sources = written(tmp_path, page)
        with Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))) as picture:
            sizes.append(picture.height / picture.width)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.15)


def test_the_best_method_stands_out(tmp_path, data):
    page, _ = written(tmp_path, data)
    best = re.search(r"<tr class=best>.*?</tr>", page).group()
    assert "CardioMM" in best
    assert "Zero-filled" not in best


def test_images_alone_make_a_report(tmp_path, data):
    page, sources = written(tmp_path, ReportData(title="t", images={"sense": data.truth[:1]}))
    assert "Image quality" not in page
    assert "absolute error" not in page
    assert len(sources) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "needs images"),
        ({"images": {"a": np.ones((2, 9, 9))}}, "one shape"),
        ({"images": {str(i): np.ones((PHASES, NY, NX)) for i in range(7)}}, "room for 6"),
        ({"truth": np.zeros((PHASES, NY, NX))}, "positive brightness"),
        ({"truth": np.full((PHASES, NY, NX), np.nan)}, "positive brightness"),
    ],
)
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
def test_what_cannot_be_shown_is_refused_and_leaves_no_file(tmp_path, data, change, message):
    with pytest.raises(DataError, match=message):
        write_report(tmp_path / "report.html", replace(data, **change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (5.4, 13.7), (-3.0, 120.0), (7.0, 7.0), (0.0, 0.0)])
def test_axis_marks_enclose_the_values_at_equal_steps(low, high):
    found = marks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    steps = [b - a for a, b in pairwise(found)]
    np.testing.assert_allclose(steps, steps[0])


def test_the_heat_scale_gets_brighter_with_the_error():
    brightness = heat(np.linspace(0, 1, 50), top=1.0).sum(axis=-1)
    assert (np.diff(brightness.astype(int)) >= 0).all()
    np.testing.assert_array_equal(heat(np.array(9.0), top=1.0), heat(np.array(1.0), top=1.0))


def test_a_mosaic_keeps_its_tiles_and_leaves_gaps_dark():
    tile = np.full((4, 6, 3), 200, np.uint8)
    canvas = mosaic([[tile, tile], [None, tile]], gap=2)
    assert canvas.shape == (10, 14, 3)
    assert (canvas[:4, :6] == 200).all()
    assert (canvas[6:, :6] == BACKGROUND).all()
    with pytest.raises(DataError, match="tiles of one size"):
        mosaic([[tile, tile[:2]]])
