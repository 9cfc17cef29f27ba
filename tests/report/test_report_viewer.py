"""The viewer, in a real browser: what moves, what the keys do, what fits on a phone."""

from __future__ import annotations

import base64
import io
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_browser import Browser

from recon_node.report import (
    Line,
    Overview,
    Report,
    Study,
    link_slices,
    write_overview,
    write_report,
    write_study,
)

pytestmark = pytest.mark.real
Looking = Callable[..., Browser]

TEXT = "document.getElementById('{}').textContent"
FRAME = "Number(document.getElementById('frame').value)"
FOCUS = "document.getElementById('viewer').focus()"
PIXELS = """const pixels = (canvas) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height)
    .getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  return copy;
};"""
"""To read without the browser's advice about it."""
CENTRE = (
    """(() => {{
  """
    + PIXELS.replace("{", "{{").replace("}", "}}")
    + """
  const canvas = document.querySelectorAll('[data-panel="{panel}"] canvas')[{which}];
  return [...pixels(canvas).getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
}})()"""
)
"""Colour in the middle of a panel's image (0) or of the map below it (1)."""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SHOWN = "[...document.querySelectorAll('#panels figure')].filter((one) => one.offsetParent).length"


def put(browser: Browser, control: str, value: object) -> None:
    """Set a control as a person does."""
    found = f"document.getElementById('{control}')"
    browser.run(f"{found}.value = '{value}'; {found}.dispatchEvent(new Event('input'))")


@pytest.fixture
def page(tmp_path: Path, report: Report) -> Path:
    path = tmp_path / "report.html"
    write_report(path, report)
    return path


def test_the_page_runs_without_a_complaint_and_asks_for_nothing(looking: Looking, page: Path) -> None:
    browser = looking(page)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
    assert browser.run(SHOWN) == 3
    assert not browser.run("document.getElementById('still').offsetParent")


def test_images_move_until_somebody_stops_them(looking: Looking, page: Path) -> None:
    browser = looking(page, motion="no-preference")
    first = browser.run(FRAME)
    browser.until(f"{FRAME} !== {first}")
    assert browser.run(TEXT.format("play")) == "Pause"
    browser.run("document.getElementById('play').click()")
    held = browser.run(FRAME)
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run(FRAME) == held
    assert browser.run(TEXT.format("play")) == "Play"
    assert browser.errors == []


def test_whoever_wants_less_motion_gets_still_images(looking: Looking, page: Path) -> None:
    browser = looking(page)
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run(FRAME) == 0
    assert browser.run(TEXT.format("play")) == "Play"


@pytest.mark.parametrize(("speed", "frame"), [("0.25", 1), ("0.5", 2), ("1", 4), ("2", 3)])
def test_frames_follow_the_clock_and_the_speed(looking: Looking, page: Path, speed: str, frame: int) -> None:
    browser = looking(page)
    browser.run(
        f"""(() => {{
          let next;
          window.requestAnimationFrame = (act) => {{ next = act; }};
          document.getElementById('speed').value = '{speed}';
          document.getElementById('play').click();
          next(1000);
          next(1081);
          next(1161);
        }})()"""
    )
    assert browser.run(FRAME) == frame  # 161 ms at 40 ms a frame, of five frames


def test_the_keyboard_does_what_the_mouse_does(looking: Looking, page: Path) -> None:
    browser = looking(page)
    browser.run(FOCUS)
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert browser.run(FRAME) == 2
    assert "frame 3 of 5, 80 ms" in browser.run(TEXT.format("live"))
    assert "frame 3 of 5" in browser.run("document.getElementById('frame').getAttribute('aria-valuetext')")
    browser.press("ArrowLeft")
    assert browser.run(FRAME) == 1
    browser.press("+")
    assert browser.run("document.getElementById('zoom').value") == "1.5"
    browser.press("]")
    browser.press(".")
    assert (
        browser.run("['window', 'level'].map((id) => document.getElementById(id).value).join()") == "105,55"
    )
    browser.press("0")
    values = "['zoom', 'window', 'level'].map((id) => document.getElementById(id).value).join()"
    assert browser.run(values) == "1,100,50"
    browser.press(" ")
    assert browser.run(TEXT.format("play")) == "Pause"
    browser.press(" ")
    assert browser.run(TEXT.format("play")) == "Play"
    assert browser.errors == []


def test_keys_belong_to_the_viewer_only(looking: Looking, page: Path) -> None:
    browser = looking(page)
    browser.run("document.activeElement.blur()")
    browser.press("+")
    assert browser.run("document.getElementById('zoom').value") == "1"


def test_every_control_is_reached_by_tab_and_has_a_name(looking: Looking, page: Path) -> None:
    browser = looking(page)
    reached = set()
    for _ in range(60):
        browser.press("Tab")
        reached.add(browser.run("document.activeElement.id"))
    wanted = {
        "viewer",
        "slice",
        "play",
        "back",
        "frame",
        "next",
        "speed",
        "zoom",
        "window",
        "level",
        "png",
        "gif",
    }
    assert reached >= wanted
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "combobox", "checkbox", "radio", "image", "link"}
    seen = [node for node in tree if not node["ignored"] and node.get("role", {}).get("value") in roles]
    assert len(seen) > 15
    assert [node["role"]["value"] for node in seen if not node.get("name", {}).get("value")] == []


def test_window_and_level_change_the_grey_values(looking: Looking, page: Path) -> None:
    browser = looking(page)
    zero_filled = CENTRE.format(panel=1, which=0)
    assert browser.run(zero_filled)[0] == pytest.approx(0.7 * 255, abs=4)
    put(browser, "window", 200)
    assert browser.run(zero_filled)[0] == pytest.approx((0.7 + 0.5) / 2 * 255, abs=4)
    put(browser, "level", 100)
    assert browser.run(zero_filled)[0] == pytest.approx(0.7 / 2 * 255, abs=4)


def test_error_and_layers_are_shown_below_or_over_the_images(looking: Looking, page: Path) -> None:
    browser = looking(page)
    assert browser.run("[...document.getElementById('overlay').options].map((one) => one.text).join()") == (
        "none,absolute error,g-factor"
    )
    half = browser.run(CENTRE.format(panel=2, which=1))
    assert half[0] > half[2] > 50  # half way up the colours: 0.05 of 0.1
    put(browser, "overlay", "0")
    assert browser.run(TEXT.format("said")) == "Noise <beyond> sampling."
    assert "0 to 3" in browser.run(TEXT.format("scale"))
    put(browser, "place", "over")
    red, _, blue, _ = browser.run(CENTRE.format(panel=1, which=0))
    assert red > blue + 20
    red, _, blue, _ = browser.run(CENTRE.format(panel=2, which=0))
    assert red == blue  # the map belongs to the other method
    put(browser, "overlay", "")
    red, _, blue, _ = browser.run(CENTRE.format(panel=1, which=0))
    assert red == blue


def test_k_space_and_mask_take_the_images_place(looking: Looking, page: Path, report: Report) -> None:
    browser = looking(page)
    browser.run(FOCUS)
    browser.press("k")
    assert browser.run(SHOWN) == 2
    rows = browser.run(
        """(() => { const canvas = document.querySelector('[data-special="mask"] canvas');
        """
        + PIXELS
        + """return Array.from({ length: 32 }, (_, row) => pixels(canvas).getImageData(
          canvas.width / 2, (row + 0.5) * canvas.height / 32, 1, 1).data[0] > 127); })()"""
    )
    kspace = report.slices[0].kspace
    assert kspace is not None
    np.testing.assert_array_equal(rows, kspace.mask[0, :, 0])
    browser.press("k")
    assert browser.run(SHOWN) == 3
    assert browser.errors == []


def test_motion_shows_one_row_over_time(looking: Looking, page: Path) -> None:
    browser = looking(page)
    browser.run("document.querySelector('input[value=motion]').click()")
    assert browser.run(SHOWN) == 3
    assert browser.errors == []


def test_another_slice_brings_its_own_images_and_verdict(looking: Looking, page: Path) -> None:
    browser = looking(page)
    browser.run(FOCUS)
    browser.press("ArrowDown")
    browser.until("document.getElementById('live').textContent === 'slice 2'")
    seen = "[...document.querySelectorAll('li')].filter((li) => li.offsetParent)"
    shown = f"{seen}.map((li) => li.textContent).join()"
    assert "twice at 2" in browser.run(shown)
    assert "twice at 1" not in browser.run(shown)


def test_an_enlarged_image_is_moved_by_dragging(looking: Looking, page: Path) -> None:
    browser = looking(page)
    put(browser, "box", "whole")
    put(browser, "zoom", 4)
    before = browser.run(CENTRE.format(panel=1, which=0))
    x, y = browser.run(
        "(() => { const box = document.querySelector('[data-panel=\"1\"] canvas').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    for kind, at in (("mousePressed", 0), ("mouseMoved", 150), ("mouseMoved", 400), ("mouseReleased", 400)):
        browser.call(
            "Input.dispatchMouseEvent", type=kind, x=x + at, y=y, button="left", buttons=1, clickCount=1
        )
    assert before[0] > 150
    browser.until(f"{CENTRE.format(panel=1, which=0)}[0] < 60")


def downloaded(browser: Browser, button: str) -> bytes:
    """What a button saves."""
    text = browser.run(
        f"""new Promise((done) => {{
          const make = URL.createObjectURL;
          URL.createObjectURL = (blob) => {{
            URL.createObjectURL = make;
            const reader = new FileReader();
            reader.onload = () => done(reader.result);
            reader.readAsDataURL(blob);
            return '#';
          }};
          document.getElementById('{button}').click();
        }})"""
    )
    return base64.b64decode(text.partition(",")[2])


def test_downloads_are_pictures_that_others_read(looking: Looking, page: Path) -> None:
    browser = looking(page)
    with Image.open(io.BytesIO(downloaded(browser, "png"))) as still:
        assert still.format == "PNG"
        size = still.size
    with Image.open(io.BytesIO(downloaded(browser, "gif"))) as moving:
        assert (moving.format, moving.n_frames, moving.size) == ("GIF", 5, size)
        assert moving.info["duration"] == 40
        frames = []
        for number in range(5):
            moving.seek(number)
            frames.append(np.asarray(moving.convert("L"), int))
    canvas = "document.querySelector('[data-panel=\"0\"] canvas')"
    width, height = browser.run(f"[{canvas}.width, {canvas}.height]")
    truth = np.stack(frames)[:, 26 : 26 + height, :width]
    assert (truth[0] > 240).mean() > (truth[4] > 240).mean() + 0.05
    assert browser.errors == []


def test_a_video_is_recorded_where_the_browser_can(looking: Looking, page: Path) -> None:
    browser = looking(page)
    if browser.run("document.getElementById('video').hidden"):
        assert browser.run(
            "typeof MediaRecorder !== 'function' || !MediaRecorder.isTypeSupported('video/webm')"
        )
        return
    data = downloaded(browser, "video")
    assert data[4:8] == b"ftyp" or data[:4] == b"\x1aE\xdf\xa3"
    assert len(data) > 500


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_everything_without_a_sideways_scroll(looking: Looking, page: Path, width: int) -> None:
    browser = looking(page, width=width, height=844, phone=True)
    assert browser.run(SIDEWAYS) <= 0
    narrowest = (
        "Math.min(...[...document.querySelectorAll('#panels [data-panel]')].map((one) => one.clientWidth))"
    )
    assert browser.run(narrowest) > 120
    beyond = (
        "[...document.querySelectorAll('button, input, select, canvas, img, h1, h2, li, p')]"
        ".filter((one) => one.offsetParent && one.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert browser.run(beyond) == 0
    assert browser.errors == []


def test_the_page_follows_the_colour_scheme(looking: Looking, page: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert min(looking(page).run(colour)) > 200
    assert max(looking(page, scheme="dark").run(colour)) < 60


def test_without_script_the_first_frame_and_all_words_are_there(browser: Browser, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        for selector in ("#still", "#nojs", ".pill"):
            found = browser.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
            assert browser.call("DOM.getBoxModel", nodeId=found)["model"]["height"] > 10
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_script_of_the_readmes_picture_draws_the_dark_page_with_moving_images_stopped(
    page: Path, tmp_path: Path, pytestconfig: pytest.Config, component: Callable[[str], str]
) -> None:
    component("chromium")
    subprocess.run(
        [pytestconfig.rootpath / "scripts/picture", page, tmp_path / "a.png"], check=True, timeout=90
    )
    with Image.open(tmp_path / "a.png") as picture:
        shown = np.asarray(picture.convert("L"), int)
    assert shown.shape == (1010, 1400)
    assert np.quantile(shown, 0.3) < 40
    assert (shown > 200).mean() > 0.01  # the square, and the text


def test_pages_of_one_scan_lead_to_each_other(looking: Looking, tmp_path: Path, report: Report) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for path, one in zip(pages, report.slices, strict=True):
        write_report(path, Report(title=one.label, slices=[one]))
    link_slices(pages, ["slice 1", "slice 2"])
    browser = looking(pages[0])
    assert browser.run("document.getElementById('slice').selectedOptions[0].text") == "slice 1"
    browser.run(FOCUS)
    browser.press("ArrowDown")
    browser.until("document.title === 'slice 2'")
    assert browser.errors == []


def line(number: int, trust: str, score: float) -> Line:
    return Line(
        name=f"<heart> {number}.h5",
        label="slice 1",
        trust=trust,
        score=score,
        method="cardiomm",
        pattern="random",
        acceleration=4.0 + number,
        reasons="held-out lines are predicted badly, said in a rather long sentence" if score < 1 else "",
        field_t=3.0,
        phases=25,
        seconds=2.0,
    )


def test_the_overview_is_found_through_and_fits_a_phone(looking: Looking, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    lines = [line(1, "pass", 0.9), line(2, "fallback", 0.0), line(3, "warn", 0.4)]
    write_overview(page, Overview(lines=lines, troubles=[("bad.h5", "failed, no raw data")]))
    browser = looking(page, width=390, height=844, phone=True)
    assert browser.run(SIDEWAYS) <= 0
    seen = "[...document.querySelectorAll('.cards > li')].filter((li) => !li.hidden)"
    cards = f"{seen}.map((li) => li.dataset.trust)"
    assert browser.run(cards) == ["fallback", "warn", "pass"]
    browser.run("document.querySelector('[data-filter=pass]').click()")
    assert browser.run(cards) == ["fallback", "warn"]
    put(browser, "find", "3.h5")
    assert browser.run(cards) == ["warn"]
    assert browser.run(TEXT.format("found")) == "1 of 3"
    assert browser.run("document.querySelectorAll('svg circle').length") == 3
    assert browser.errors == []


def test_very_many_slices_are_counted_whole_and_drawn_in_part(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    lines = [replace(line(1, "pass", 0.9), label=f"slice {n}", acceleration=4.0 + n % 7) for n in range(4999)]
    write_overview(page, Overview(lines=[*lines, line(2, "warn", 0.3)]))
    text = page.read_text()
    assert "5,000 reconstructed slices" in text
    assert text.count("<circle") == 1667
    assert text.count("<li data-trust") == 500
    assert text.index('<li data-trust="warn"') < text.index('<li data-trust="pass"')
    assert len(text) < 1_000_000


def test_the_page_of_a_study_fits_a_phone(looking: Looking, tmp_path: Path) -> None:
    page = tmp_path / "study.html"
    study = Study(
        title="Methods",
        subtitle="on hearts",
        headings=("condition", "method", "hearts", "PSNR dB", "SSIM", "NMSE", "one more column"),
        rows=[
            ("random 8x", name, "3", value, "0.9876", "0.0012", "+1.00")
            for name, value in (("sense", "20.00"), ("cardiomm", "40.00"))
        ],
        drawn=3,
        sentences=["cardiomm is above."],
    )
    write_study(page, study)
    browser = looking(page, width=390, height=844, phone=True)
    assert browser.run(SIDEWAYS) <= 0
    widths = "[...document.querySelectorAll('svg rect')].map((one) => Number(one.getAttribute('width')))"
    assert browser.run(widths) == [50, 100]
    assert browser.errors == []
