"""Scans that fail once at every stage: each is answered, and each capture replays to the same pixels and UIDs.

    python -m benchmarks.captures [--scans 200] [--folder FOLDER] [--json]

A node in a process of its own, with server.record and one destination, receives one scan after the other. Each
fails once: while its header is read, prepared, calibrated, reconstructed, judged, written, queued or answered, for a
full disk, or by SIGKILL of the node, which is then started again. The scanner asks again (mode retrieve) where its
connection brought no images. In the end every capture is replayed: its DICOM files are compared, byte for byte, with
those of a plain replay of the raw data and with those that were delivered, and its pixels with those that the scanner
got.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from benchmarks.captures_node import STAGES, settings_in
from recon_node.core.errors import ReconNodeError
from recon_node.files.open import open_source
from recon_node.mrd.captures import Capture
from recon_node.mrd.messages import Close, HeaderXml, ImageMessage, message_bytes
from recon_node.mrd.wire import read_messages
from recon_node.offline.replay import replay
from recon_node.offline.send import send_scan
from recon_node.online.recall import recall
from recon_node.online.received import open_captures
from recon_node.simulate import simulate_scan

SLICES, PHASES = 2, 2
_PATIENCE_S = 300.0
"""On a busy machine a node that was killed takes a minute to start again."""

Pixels = dict[tuple[int, int], np.ndarray]


@dataclass(slots=True)
class Result:
    """What became of the scans."""

    scans: int = 0
    answered: int = 0
    answered_at_once: Counter[str] = field(default_factory=Counter)
    """By stage: over the connection that brought the scan."""
    equal: int = 0
    """Whose capture replays to the same files and pixels."""
    delivered: int = 0
    """All of whose instances are at the destination, as a replay makes them."""
    troubles: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Node:
    """The failing node; started again when it was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        with (self._folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.captures_node", str(self._folder)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def ensure(self) -> None:
        """Start it where it was killed."""
        if self.process.poll() is not None:
            self._close()
            self._start()

    def stop(self) -> None:
        """SIGTERM."""
        self.process.terminate()
        self.process.wait(60)
        self._close()

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()


def campaign(folder: Path, scans: int) -> Result:
    """Send so many scans, the stages in turn.

    Parameters
    ----------
    folder : Path
        Of everything that is written.
    scans : int
    """
    began = time.monotonic()
    result = Result(scans=scans)
    heart = folder / "heart.h5"
    simulate_scan(
        heart, acceleration=2, pattern="uniform", coils=2, slices=SLICES, phases=PHASES, matrix=32, seed=1
    )
    raws = [_scan(heart, folder / f"{number}.mrd", number) for number in range(scans)]
    got: dict[int, Pixels] = {}
    node = Node(folder)
    try:
        for number, raw in enumerate(raws):
            stage = STAGES[number % len(STAGES)]
            (folder / "inject").write_text(stage)
            got[number] = _answered(node, raw, stage, result)
            if (folder / "inject").exists():
                result.troubles.append(f"scan {number}: nothing failed at {stage}")
        _wait_for_delivery(folder, scans)
    finally:
        node.stop()
    _compare(folder, raws, got, result)
    result.seconds = time.monotonic() - began
    return result


def _scan(heart: Path, target: Path, number: int) -> Path:
    """The heart of another patient, in another study."""
    with open_source(heart) as source, target.open("wb") as file:
        header = source.headers[0]
        xml = header.xml.decode()
        study = header.study.study_instance_uid
        assert header.patient.patient_id is not None
        assert study is not None
        xml = xml.replace(header.patient.patient_id, f"P{number}").replace(
            study, f"1.2.826.0.1.9.{number + 1}"
        )
        file.write(message_bytes(HeaderXml(xml=xml.encode())))
        for block in source:
            file.write(message_bytes(block))
        file.write(message_bytes(Close()))
    return target


def _answered(node: Node, raw: Path, stage: str, result: Result) -> Pixels:
    """The images that the scanner gets, at once or when it asks again."""
    pixels = _ask(node, raw, "default")
    if len(pixels) == SLICES * PHASES:
        result.answered += 1
        result.answered_at_once[stage] += 1
        return pixels
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        node.ensure()
        pixels = _ask(node, raw, "fetch")
        if len(pixels) == SLICES * PHASES:
            result.answered += 1
            return pixels
        time.sleep(0.2)
    result.troubles.append(f"{raw.name}: no images after {stage}")
    return pixels


def _ask(node: Node, raw: Path, config: str) -> Pixels:
    pixels: Pixels = {}

    def take(image: ImageMessage) -> None:
        place = (int(image.head["slice"][0]), int(image.head["phase"][0]))
        if place in pixels:
            raise AssertionError(f"slice and phase {place} came twice")
        pixels[place] = np.array(image.data)

    try:
        send_scan(raw, port=node.port, config=config, on_image=take, timeout=30.0)
    except ReconNodeError:
        return pixels
    return pixels


def _wait_for_delivery(folder: Path, scans: int) -> None:
    """Until all instances are at the destination, or nothing more comes."""
    end = time.monotonic() + _PATIENCE_S
    while len(_files(folder / "pacs")) < scans * SLICES * PHASES and time.monotonic() < end:
        time.sleep(0.2)


def _compare(folder: Path, raws: list[Path], got: dict[int, Pixels], result: Result) -> None:
    settings = settings_in(folder)
    captures = {_patient(capture): capture for capture in open_captures(settings).all()}
    delivered = _files(folder / "pacs")
    for number, raw in enumerate(raws):
        again, plain = folder / "again" / str(number), folder / "plain" / str(number)
        found = recall(captures[f"P{number}"], settings, again)
        replay([raw], plain, settings)
        same = _files(again) == _files(plain) and len(_files(again)) == SLICES * PHASES
        if (
            found.error is None
            and found.likeness == "equal"
            and same
            and _same(got[number], captures[f"P{number}"])
        ):
            result.equal += 1
        else:
            result.troubles.append(f"scan {number}: {found.error or found.likeness}, files equal: {same}")
        result.delivered += _files(plain).items() <= delivered.items()


def _patient(capture: Capture) -> str | None:
    assert capture.raw is not None
    with open_source(capture.raw) as source:
        return source.headers[0].patient.patient_id


def _same(got: Pixels, capture: Capture) -> bool:
    """Whether the scanner got the images that the capture keeps (which the replay was compared with)."""
    kept = [
        message
        for message in read_messages(memoryview(capture.images.read_bytes()), close_optional=True)
        if isinstance(message, ImageMessage)
    ]
    return len(kept) == len(got) and all(
        np.array_equal(got[int(m.head["slice"][0]), int(m.head["phase"][0])], m.data) for m in kept
    )


def _files(folder: Path) -> dict[str, bytes]:
    """DICOM files by SOP Instance UID."""
    found = {}
    for path in folder.rglob("*.dcm"):
        data = path.read_bytes()
        found[str(pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID)] = data
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="kept; a temporary one otherwise")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.folder is not None:
        options.folder.mkdir(parents=True)
        result = campaign(options.folder, options.scans)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = campaign(Path(folder), options.scans)
    told: dict[str, Any] = {name: getattr(result, name) for name in Result.__slots__}
    if options.json:
        print(json.dumps(told))
    else:
        print(
            f"{result.scans} scans, a failure in each: {result.answered} answered "
            f"({result.answered_at_once.total()} at once), {result.equal} replay bit-equal, "
            f"{result.delivered} delivered, {result.seconds:.0f} s"
        )
        for line in result.troubles:
            print(line)
    sys.exit(bool(result.troubles))


if __name__ == "__main__":
    main()
