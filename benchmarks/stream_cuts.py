"""A stream cut at every byte, in both protocols: complete slices come out, then one clear error, exit 1.

    python -m benchmarks.stream_cuts [--every 1] [--format ismrmrd|mrd2]

``recon-node stream`` gets the first bytes of a small scan of two slices, for every number of them. Each time: as many
slices come out as had all of their lines, the same images as of the whole stream; the last line on standard error is
the only complaint; the exit code is 1, and 0 for the whole stream alone. With --every N only every N-th cut.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.as_mrd2 import as_mrd2
from recon_node.cli import run
from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.fft import centred_fft
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.messages import HeaderXml, ImageMessage, close_bytes, message_bytes
from recon_node.mrd.wire import read_messages

FORMATS = ("ismrmrd", "mrd2")
_SIZE, _COILS, _SLICES = 12, 2, 2
_BEHIND = {"ismrmrd": 0, "mrd2": 2}
"""Bytes of a line behind its samples: in MRD 2 the shape of its (empty) trajectory."""
_SPACE = "<matrixSize><x>12</x><y>12</y><z>1</z></matrixSize><fieldOfView_mm><x>320</x><y>320</y><z>8</z></fieldOfView_mm>"
_HEADER = f"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>63642459</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace>{_SPACE}</encodedSpace><reconSpace>{_SPACE}</reconSpace><encodingLimits>
<kspace_encoding_step_1><minimum>0</minimum><maximum>11</maximum><center>6</center></kspace_encoding_step_1>
<slice><minimum>0</minimum><maximum>1</maximum><center>0</center></slice>
</encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""
_SETTINGS = '[recon]\nmethod = "zero-filled"\nfallback = "zero-filled"\ncheck_trust = false\n'


@dataclass(slots=True)
class Result:
    """What came of the cuts of one stream."""

    cuts: int = 0
    size: int = 0
    troubles: list[str] = field(default_factory=list)


def small_scan(folder: Path) -> tuple[Path, Path]:
    """A scan of two slices as a file, and the settings it is reconstructed with."""
    y, x = np.mgrid[:_SIZE, :_SIZE]
    maps = np.stack([np.exp(-(((y - v) / _SIZE) ** 2) - (x / _SIZE) ** 2 + 1j * v) for v in (0, _SIZE)])
    parts = [bytes(message_bytes(HeaderXml(xml=_HEADER.encode())))]
    for place in range(_SLICES):
        image = 1.0 * (np.hypot(x - 5 - place, y - 6) < 4)
        kspace = centred_fft(maps * image).astype(np.complex64)
        for row in range(_SIZE):
            head = np.zeros(1, ACQUISITION_HEADER)
            head["version"], head["sample_time_us"] = 1, 5.0
            head["number_of_samples"], head["center_sample"] = _SIZE, _SIZE // 2
            head["active_channels"] = head["available_channels"] = _COILS
            head["idx"]["kspace_encode_step_1"], head["idx"]["slice"] = row, place
            head["read_dir"], head["phase_dir"], head["slice_dir"] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
            parts.append(bytes(message_bytes(Readouts(head=head, samples=kspace[None, :, row]))))
    path, config = folder / "scan.mrd", folder / "node.toml"
    path.write_bytes(b"".join([*parts, close_bytes()]))
    config.write_text(_SETTINGS)
    return path, config


def stream_of(path: Path, protocol: str) -> bytes:
    """The scan in one of the protocols."""
    return path.read_bytes() if protocol == "ismrmrd" else as_mrd2(path)


def cut(protocol: str, folder: Path, *, every: int = 1, first: int = 0) -> Result:
    """Cut one stream after every so many bytes.

    Parameters
    ----------
    protocol : str
        One of `FORMATS`.
    folder : Path
        For its files.
    every, first : int
        Step, and the first cut.
    """
    path, config = small_scan(folder)
    whole = stream_of(path, protocol)
    ends = [end + _BEHIND[protocol] for end in _ends(path, whole)]
    code, told, expected = _streamed(whole, folder, config)
    result = Result(size=len(whole))
    if code != 0 or len(expected) != _SLICES:
        result.troubles.append(f"the whole stream: exit {code}, {len(expected)} images: {told}")
        return result
    for at in range(first, len(whole), every):
        code, told, images = _streamed(whole[:at], folder, config)
        result.cuts += 1
        wanted = expected[: sum(end <= at for end in ends)]
        complaints = [line for line in told if line.startswith("recon-node: ")]
        same = len(images) == len(wanted) and all(map(np.array_equal, images, wanted))
        if code != 1 or not same or len(complaints) != 1 or told[-1] != complaints[0]:
            result.troubles.append(
                f"cut after {at} of {len(whole)} bytes: exit {code}, {len(images)} of {len(wanted)} images, "
                f"told {told[-2:]}"
            )
    return result


def _ends(path: Path, whole: bytes) -> list[int]:
    """Where in the stream the last sample of each slice ends."""
    with open_source(path) as source:
        lines = np.concatenate([block.samples for block in source if isinstance(block, Readouts)])
    ends, at = [], 0
    for number, line in enumerate(lines, start=1):
        data = np.ascontiguousarray(line).tobytes()
        at = whole.index(data, at) + len(data)
        if number % _SIZE == 0:
            ends.append(at)
    return ends


def _streamed(data: bytes, folder: Path, config: Path) -> tuple[int, list[str], list[np.ndarray]]:
    """Exit code, lines on standard error, and images that came out."""
    (folder / "in").write_bytes(data)
    told = io.StringIO()
    files = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--format", "ismrmrd"]
    with contextlib.redirect_stderr(told):
        code = run(["stream", *files, "--config", str(config)])
    out = (folder / "out").read_bytes()
    messages = list(read_messages(memoryview(out))) if out else []
    images = [np.array(message.data) for message in messages if isinstance(message, ImageMessage)]
    return code, told.getvalue().splitlines(), images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--every", type=int, default=1, help="bytes between two cuts (default: 1, every byte)"
    )
    parser.add_argument("--format", choices=FORMATS, help="one of them only")
    options = parser.parse_args()
    troubles = 0
    for protocol in FORMATS if options.format is None else (options.format,):
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            result = cut(protocol, Path(folder), every=options.every)
        troubles += len(result.troubles)
        print(
            f"{protocol}: {result.cuts} cuts of a stream of {result.size} bytes, {len(result.troubles)} wrong, "
            f"{time.process_time() - began:.0f} CPU s",
            flush=True,
        )
        for line in result.troubles[:20]:
            print(line)
    sys.exit(bool(troubles))


if __name__ == "__main__":
    main()
