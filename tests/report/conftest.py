"""A scan to show, and a browser to look with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from report_browser import Browser, browsing

from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Prompt, Prompts, Sampling, Verdict
from recon_node.report import Layer, Report, SliceView

PHASES, NY, NX = 5, 32, 24
READY = "document.getElementById('viewer').dataset.ready === 'yes'"


def one_slice(number: int = 0) -> SliceView:
    """A bright square that beats, by two methods, with everything a page can show beside."""
    rng = np.random.default_rng(number)
    truth = np.full((PHASES, NY, NX), 0.02, np.complex64)
    for phase in range(PHASES):
        truth[phase, 8 + phase : 24, 6:18] = 1
    mask = rng.random((PHASES, NY, 1)) < 0.4
    kspace = KSpace(
        data=np.ones((PHASES, 3, NY, NX), np.complex64) * mask[:, None],
        mask=np.broadcast_to(mask, truth.shape).copy(),
        header=ScanHeader(
            encoded_matrix=(NX, NY, 1),
            encoded_fov_mm=(300.0, 300.0, 8.0),
            recon_matrix=(NX, NY, 1),
            recon_fov_mm=(300.0, 300.0, 8.0),
            vendor="<Vendor & Sons>",
        ),
        index=SliceIndex(slice=number),
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
    return SliceView(
        label=f"slice {number + 1}",
        images={"Zero-filled": 0.7 * truth, "CardioMM": truth + 0.05},
        truth=truth,
        focus=(15, 12),
        metrics={
            "Zero-filled": {"psnr": 10.5, "ssim": 0.5, "nmse": 0.2},
            "CardioMM": {"psnr": 26.0, "ssim": 0.9, "nmse": 0.01},
        },
        layers=[
            Layer(
                name="g-factor",
                data=np.full((NY, NX), 1.5),
                top=3.0,
                of="Zero-filled",
                said="Noise <beyond> sampling.",
            )
        ],
        kspace=kspace,
        maps=CoilMaps(data=np.ones((1, 3, NY, NX), np.complex64), support=np.ones((NY, NX), np.bool_)),
        prompts=Prompts(
            metadata=Prompt("A metadata sentence.", {"field": "3.0T from <path>"}),
            undersampling=Prompt("Undersampling: 8x random."),
        ),
        verdict=Verdict(verdict="warn", score=0.4, reasons=(f"a reason to look twice at {number + 1}",)),
        seconds={"coils": 0.25, "model": 1.5},
        times_ms=(0.0, 40.0, 80.0, 120.0, 160.0),
        frame_ms=40,
    )


@pytest.fixture
def report() -> Report:
    """Two slices."""
    slices = [one_slice(0), one_slice(1)]
    return Report(
        title="A <b>title</b>",
        slices=slices,
        sentences=["CardioMM is above."],
        metrics=slices[0].metrics,
        curves_ml={"Truth": np.array([9.0, 7, 4, 5, 8]), "CardioMM": np.array([9.0, 7, 5, 5, 8])},
        function={"Truth": {"EF (%)": 55.55}, "CardioMM": {"EF (%)": 44.44}},
        facts={"weights": "some"},
    )


@pytest.fixture(scope="session")
def browser(component: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One page in a headless Chromium; motion is reduced unless a test says otherwise."""
    with browsing(component("chromium"), tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def looking(browser: Browser) -> Callable[..., Browser]:
    """Opens a page, and waits until its viewer works."""

    def look(page: Path, *, motion: str = "reduce", scheme: str = "light", **size: object) -> Browser:
        browser.errors.clear()
        browser.requests.clear()
        browser.prefer(prefers_reduced_motion=motion, prefers_color_scheme=scheme)
        browser.open(page, **size)  # type: ignore[arg-type]
        if 'id="viewer"' in page.read_text():
            browser.until(READY)
        return browser

    return look
