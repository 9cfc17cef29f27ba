"""Clients that vanish: what was complete is finished, what was not never becomes an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import ProtocolError, ReconNodeError, SourceError, TruncatedStream
from recon_node.core.scan import Readouts, Waveform
from recon_node.core.types import ImageSeries
from recon_node.files.open import open_source
from recon_node.mrd.request import ScanConfig
from recon_node.offline.send import send_scan
from recon_node.online.node import Node
from recon_node.online.serve import serving
from recon_node.pipeline.row import Pipeline
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan


def settings_in(folder: Path, **server: object) -> Settings:
    settings = Settings().replace("recon", method="zero-filled", check_trust=False)
    folders = {"out": str(folder / "dicom"), "deferred": str(folder / "deferred")}
    return settings.replace("server", port=0, **folders, **server)


def images_in(folder: Path) -> int:
    return len(list((folder / "dicom").rglob("*.dcm")))


class Peer:
    """A session that breaks off after its readouts, and whose console may be gone."""

    scan_id = "test"
    config = ScanConfig()
    last_data = 0.0
    capture = None

    def __init__(self, raw: Path, *, error: ReconNodeError | None = None, gone: bool = False) -> None:
        with open_source(raw) as source:
            self.headers = source.headers
            self.items = list(source)
        self.error = error
        self.peer_gone = gone
        self.replies = 0

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        yield from self.items
        if self.error is not None:
            raise self.error

    def reply(self, images: ImageSeries, **options: object) -> bool:
        self.replies += 1
        return not self.peer_gone

    def send_image(self, image: object) -> bool:
        return not self.peer_gone

    def text(self, line: str) -> bool:
        return not self.peer_gone

    def without_ends(self) -> Peer:
        """Lines are not flagged as the last of their slice, so that only the end of the scan tells."""
        ends = Flag.LAST_IN_SLICE | Flag.LAST_IN_REPETITION | Flag.LAST_IN_MEASUREMENT
        for number, item in enumerate(self.items):
            if isinstance(item, Readouts):
                head = item.head.copy()
                head["flags"] &= ~np.uint64(ends)
                self.items[number] = Readouts(head=head, samples=item.samples)
        return self


def test_a_client_that_vanishes_over_the_wire_leaves_its_complete_slices(
    cut_heart: bytes, vanish: Callable[..., None], tmp_path: Path
) -> None:
    with serving(settings_in(tmp_path)) as running:
        vanish(running.server.port, cut_heart)
    assert images_in(tmp_path) == 8


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan that has as many lines as its header announces."""
    raw = tmp_path_factory.mktemp("uniform") / "uniform.h5"
    simulate_scan(raw, acceleration=2, pattern="uniform", coils=4, slices=2, phases=8, matrix=48, seed=5)
    return raw


@pytest.mark.parametrize("error", [TruncatedStream("gone"), ProtocolError("silent")])
@pytest.mark.parametrize(("policy", "images"), [("finish", 16), ("stop", 8)])
def test_a_last_slice_that_only_the_end_would_have_told_is_finished_if_its_lines_are_all_there(
    uniform: Path, tmp_path: Path, policy: str, images: int, error: SourceError
) -> None:
    settings = settings_in(tmp_path, on_vanish=policy)
    with pytest.raises(type(error), match=str(error)):
        Node(settings).reconstruct(Peer(uniform, error=error).without_ends(), settings)
    assert images_in(tmp_path) == images


@pytest.mark.parametrize(("policy", "images"), [("finish", 16), ("stop", 8)])
def test_slices_that_no_console_takes_any_more_are_finished_if_the_policy_says_so(
    heart: tuple[Path, Path], tmp_path: Path, policy: str, images: int
) -> None:
    settings = settings_in(tmp_path, on_vanish=policy)
    peer = Peer(heart[0], gone=True)
    if policy == "stop":
        with pytest.raises(TruncatedStream, match="its scan is stopped"):
            Node(settings).reconstruct(peer, settings)
    else:
        Node(settings).reconstruct(peer, settings)
    assert images_in(tmp_path) == images


def test_what_a_broken_stream_leaves_behind_is_never_an_incomplete_image(
    uniform: Path, tmp_path: Path
) -> None:
    peer = Peer(uniform, error=TruncatedStream("gone")).without_ends()
    last = max(i for i, item in enumerate(peer.items) if isinstance(item, Readouts))
    block = peer.items[last]
    peer.items[last] = block.select(slice(0, len(block) // 2))
    del peer.items[last + 1 :]
    settings = settings_in(tmp_path)
    with pytest.raises(TruncatedStream):
        Node(settings).reconstruct(peer, settings)
    assert images_in(tmp_path) == 8


def test_counters_tell_of_slices_verdicts_and_how_long_they_took(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = settings_in(tmp_path)
    node = Node(settings)
    peer = Peer(heart[0])
    peer.last_data = time.monotonic() - 7.0
    node.reconstruct(peer, settings)
    values = counters(node)
    assert values["recon_node_instances_total"] == 16
    assert values["recon_node_slice_latency_seconds_count"] == 2
    assert 14.0 < values["recon_node_slice_latency_seconds_sum"] < 60.0
    assert values['recon_node_verdicts_total{verdict="warn"}'] == 2
    assert values['recon_node_stage_seconds_count{stage="model"}'] == 2


def counters(node: Node) -> Mapping[str, float]:
    lines = (line.rsplit(" ", 1) for line in node.metrics.text().decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, value in lines}


def test_the_spool_and_deferred_scans_are_counted_when_somebody_looks(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = settings_in(tmp_path).replace(
        "delivery",
        spool=str(tmp_path / "spool"),
        destinations={"away": {"address": "dicom://NOBODY@127.0.0.1:9"}},
        to=("away",),
    )
    with serving(settings) as running:
        assert send_scan(heart[0], port=running.server.port).ok
        values = counters(running.node)
    assert values['recon_node_spool_instances{destination="away",state="waiting"}'] == 16
    assert values['recon_node_deferred_scans{state="waiting"}'] == 0
    assert values['recon_node_delivered_total{destination="away"}'] == 0
    assert values['recon_node_thread_failures{thread="deliver-0-away"}'] == 0
    assert values['recon_node_oldest_waiting_seconds{destination="away"}'] > 0
    assert 'recon_node_destination_up{destination="away"}' in values


def test_networks_of_the_latest_settings_stay_loaded_and_no_more(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    first = Pipeline(settings).methods
    other = settings.replace("server", mode="deferred").replace("delivery", priority=3)
    assert Pipeline(other).methods is first
    for method in ("sense", "kt", "l1-wavelet", "view-sharing"):
        Pipeline(settings.replace("recon", method=method))
    assert Pipeline(settings).methods is not first
