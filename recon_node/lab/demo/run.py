"""The whole way in one run: a simulated heart, streamed to the node, reconstructed, stored in a PACS.

Every stage is the one that real scans take: raw data as a scanner writes it, the MRD server and client
on loopback, the pipeline, DICOM, the spool, C-STORE to a storage SCP. Only the scanner and the PACS are
made up, so the truth is known.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recon_node.core.errors import DeliveryError, ReconNodeError
from recon_node.core.types import ImageSeries
from recon_node.delivery import StorageScp
from recon_node.lab.demo.data import SliceResult, Truth, read_truth
from recon_node.lab.demo.page import write_demo_report
from recon_node.lab.evaluation import series_metrics
from recon_node.methods.registry import stand_in
from recon_node.offline.layers import layers_of
from recon_node.offline.send import send_scan
from recon_node.online.serve import serving
from recon_node.pipeline.result import Slice
from recon_node.pipeline.summary import summary_entry, write_summary
from recon_node.settings import Settings
from recon_node.simulate import ScanDescription, simulate_scan

BESIDE: tuple[str, ...] = ("zero-filled", "sense", "kt")
"""Methods shown beside the network."""
SCAN = ScanDescription(
    acceleration=8,
    pattern="random",
    coils=8,
    slices=3,
    phases=20,
    matrix=144,
    field=3.0,
    vendor="Siemens",
    modality="cine",
    breathing_mm=1.5,
    arrhythmia=0.03,
    heart="detailed",
)
"""What the demo's scanner measures: a drawn heart as hard as real ones (`benchmarks.hardness` has both)."""
_DELIVERY_S = 120.0
Say = Callable[[str], None]


def run_demo(out: Path, settings: Settings, *, seed: int = 0, say: Say = lambda line: None) -> Path:
    """Run it all; returns the report's path.

    Parameters
    ----------
    out : Path
        Gets ``report.html``, ``summary.json``, ``dicom/``, the raw data, the truth and ``pacs/``.
    settings : Settings
        Method, weights and device count; server, delivery and folders are the demo's own.
    seed : int
        Of the simulated heart.
    say : callable
        Told what goes on.

    Raises
    ------
    ReconNodeError
        A stage failed; everything it wrote before stays in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in ("dicom", "pacs", "spool"):
        shutil.rmtree(out / name, ignore_errors=True)
    raw, truth_file = out / "scan.h5", out / "truth.h5"
    say("simulating a beating heart as a scanner would send it")
    simulate_scan(raw, SCAN, seed=seed, truth=truth_file)
    truth = read_truth(truth_file)
    with StorageScp(out / "pacs", ae_title="DEMOPACS") as pacs:
        slices = _through_the_node(raw, out, pacs, settings, say)
    say("comparing with the truth and with classical methods")
    for part in slices:
        compare(part, truth, settings)
    write_summary(out / "summary.json", [_entry(part, raw) for part in slices])
    report = out / "report.html"
    for sentence in write_demo_report(report, slices, truth):
        say(sentence)
    return report


def _through_the_node(
    raw: Path, out: Path, pacs: StorageScp, settings: Settings, say: Say
) -> list[SliceResult]:
    settings = settings.replace(
        "server", host="127.0.0.1", port=0, out=str(out / "dicom"), deferred=str(out / "deferred")
    )
    settings = settings.replace(
        "delivery",
        spool=str(out / "spool"),
        destinations={"demo-pacs": {"address": pacs.address}},
        to=("demo-pacs",),
    )
    slices: list[SliceResult] = []
    stopped = threading.Event()

    def keep(done: Slice) -> None:
        if stopped.is_set():
            raise ReconNodeError("the demo was stopped")
        slices.append(SliceResult(done=done))

    with serving(settings) as running:
        running.node.observer = keep
        say(f"streaming it to the node's MRD server on port {running.server.port}")
        started = time.monotonic()
        try:
            sent = send_scan(raw, port=running.server.port, out=out / "images.h5", on_text=say)
        except BaseException:
            stopped.set()  # the node would go on for the PACS's sake: it does not need its client any more
            raise
        if not sent.ok:
            raise ReconNodeError(f"the node reports: {'; '.join(sent.errors) or 'no CLOSE'}")
        expected = sum(len(part.done.instances) for part in slices)
        say(f"{sent.images} images came back; waiting for {expected} instances in the PACS")
        _wait_for_pacs(pacs, expected)
        say(f"raw data to PACS took {time.monotonic() - started:.1f} s")
    return sorted(slices, key=lambda part: part.number)


def _wait_for_pacs(pacs: StorageScp, expected: int) -> None:
    end = time.monotonic() + _DELIVERY_S
    while len(pacs.files()) < expected:
        if time.monotonic() > end:
            raise DeliveryError(
                f"the PACS has {len(pacs.files())} of {expected} instances after {_DELIVERY_S:.0f} s"
            )
        time.sleep(0.1)


def compare(part: SliceResult, truth: Truth, settings: Settings) -> None:
    """Reconstruct a slice with the methods beside, and measure all of them against the truth."""
    kspace, maps = part.result.kspace, part.result.maps
    reference = truth.images[part.number]
    part.layers += layers_of(part.result)
    for name in BESIDE:
        part.beside[name] = stand_in(name, settings.recon).reconstruct(kspace, maps, None)
    methods: Mapping[str, ImageSeries] = {
        **part.beside,
        part.result.images.made_by.method: part.result.images,
    }
    for method, images in methods.items():
        part.metrics[method] = series_metrics(images.data, reference, normalise=False)


def _entry(part: SliceResult, raw: Path) -> dict[str, Any]:
    return summary_entry(
        part.done,
        source=str(raw),
        metrics={name: metrics.as_dict() for name, metrics in part.metrics.items()},
    )
