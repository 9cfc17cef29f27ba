"""``recon-node stream``: one scan from a pipe to a pipe, in both protocols."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import mrd
import numpy as np
import pydicom
import pytest
import yaml

import recon_node
from benchmarks.stream_cuts import FORMATS, cut
from recon_node.cli import run
from recon_node.core.acquisition import AcquisitionFlag
from recon_node.core.errors import ReconNodeError, SourceError, TruncatedStream
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.messages import HeaderXml, ImageMessage, close_bytes, message_bytes
from recon_node.mrd.wire import read_messages
from recon_node.offline.replay import replay
from recon_node.online.serve import serving
from recon_node.online.stream import StreamSummary, reconstruct_stream
from recon_node.settings import Settings

SETTINGS = Settings().replace("recon", method="view-sharing", check_trust=False)


def streamed(data: bytes, **options: object) -> tuple[StreamSummary, bytes]:
    out = io.BytesIO()
    summary = reconstruct_stream(io.BytesIO(data), out, SETTINGS, **options)  # type: ignore[arg-type]
    return summary, out.getvalue()


def ismrmrd_images(data: bytes) -> list[ImageMessage]:
    return [m for m in read_messages(memoryview(data)) if isinstance(m, ImageMessage)]


def mrd2_images(data: bytes) -> list[mrd.Image]:
    with mrd.BinaryMrdReader(io.BytesIO(data)) as reader:
        assert reader.read_header() is not None
        return [item.value for item in reader.read_data()]


def pixels(folder: Path) -> dict[str, np.ndarray]:
    found = (pydicom.dcmread(path) for path in folder.rglob("*.dcm"))
    return {str(one.SOPInstanceUID): one.pixel_array for one in found}


def test_images_leave_in_the_protocol_of_the_raw_data(ismrmrd_stream: bytes, mrd2_stream: bytes) -> None:
    old, old_out = streamed(ismrmrd_stream)
    new, new_out = streamed(mrd2_stream)
    assert old.error is None
    assert new.error is None
    assert old.images == new.images == 16
    for one, other in zip(ismrmrd_images(old_out), mrd2_images(new_out), strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-5, atol=1e-5 * float(one.data.max()))
        assert int(one.head["slice"][0]) == other.head.slice
        assert int(one.head["phase"][0]) == other.head.phase


def test_the_other_protocol_may_be_asked_for(ismrmrd_stream: bytes, mrd2_stream: bytes) -> None:
    _, out = streamed(mrd2_stream, protocol="ismrmrd")
    assert len(ismrmrd_images(out)) == 16
    _, out = streamed(ismrmrd_stream, protocol="mrd2")
    with mrd.BinaryMrdReader(io.BytesIO(out)) as reader:
        assert reader.read_header() is None
        assert len(list(reader.read_data())) == 16


def test_dicom_is_that_of_a_replay(heart: Path, ismrmrd_stream: bytes, tmp_path: Path) -> None:
    summary, _ = streamed(ismrmrd_stream, out=tmp_path / "streamed")
    assert summary.error is None
    (replayed,) = replay([heart], tmp_path / "replayed", SETTINGS)
    assert replayed.error is None
    one, other = pixels(tmp_path / "streamed"), pixels(tmp_path / "replayed")
    assert one.keys() == other.keys()
    for uid, image in one.items():
        np.testing.assert_array_equal(image, other[uid])


@pytest.mark.parametrize("protocol", ["ismrmrd", "mrd2"])
def test_a_stream_that_is_cut_gives_its_whole_slices_then_one_error(
    protocol: str, ismrmrd_stream: bytes, mrd2_stream: bytes
) -> None:
    data = {"ismrmrd": ismrmrd_stream, "mrd2": mrd2_stream}[protocol]
    counts = []
    for part in (0.02, 0.5, 0.75, 0.9, 1 - 1 / len(data)):
        summary, out = streamed(data[: int(part * len(data))])
        assert isinstance(summary.error, TruncatedStream)
        counts.append(summary.images)
        if part > 0.02:  # the header was whole
            assert len(ismrmrd_images(out) if protocol == "ismrmrd" else mrd2_images(out)) == summary.images
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == 16
    assert set(counts) <= {0, 8, 16}


@pytest.mark.parametrize("protocol", FORMATS)
def test_cut_at_any_byte_whole_slices_come_out_then_one_line_and_exit_1(
    protocol: str, tmp_path: Path
) -> None:
    """Every byte: ``python -m benchmarks.stream_cuts``."""
    result = cut(protocol, tmp_path, every=463, first=7)
    assert result.troubles == []
    assert result.cuts > 25


def test_images_leave_while_raw_data_still_arrives(ismrmrd_stream: bytes) -> None:
    source_end, sink_end = os.pipe()
    images_end, output_end = os.pipe()
    half = int(0.75 * len(ismrmrd_stream))
    first = threading.Event()
    got: list[bytes] = []

    def write() -> None:
        with os.fdopen(sink_end, "wb") as pipe:
            pipe.write(ismrmrd_stream[:half])
            pipe.flush()
            assert first.wait(60)
            pipe.write(ismrmrd_stream[half:])

    def read() -> None:
        with os.fdopen(images_end, "rb") as pipe:
            while data := pipe.read1(1 << 20):
                got.append(data)
                if sum(map(len, got)) > 20_000:  # images, not only the header
                    first.set()

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    with os.fdopen(source_end, "rb") as source, os.fdopen(output_end, "wb") as output:
        summary = reconstruct_stream(source, output, SETTINGS)
    for thread in threads:
        thread.join(60)
    assert summary.error is None
    assert len(ismrmrd_images(b"".join(got))) == 16


def test_a_noise_scan_may_come_apart(heart: Path, ismrmrd_stream: bytes, tmp_path: Path) -> None:
    flag = np.uint64(AcquisitionFlag.IS_NOISE_MEASUREMENT)
    parts, noise = [], []
    with open_source(heart) as source:
        header = bytes(message_bytes(HeaderXml(xml=source.headers[0].xml)))
        for block in source:
            if isinstance(block, Readouts) and (block.head["flags"] & flag).any():
                noise.append(bytes(message_bytes(block)))
            else:
                parts.append(bytes(message_bytes(block)))
    assert noise
    path = tmp_path / "noise.mrd"
    path.write_bytes(b"".join([header, *noise, close_bytes()]))
    whole, expected = streamed(ismrmrd_stream)
    apart, found = streamed(b"".join([header, *parts, close_bytes()]), noise=path)
    assert whole.error is None
    assert apart.error is None
    for one, other in zip(ismrmrd_images(expected), ismrmrd_images(found), strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-5, atol=1e-6)


def test_a_covariance_whitens_as_the_noise_it_describes(ismrmrd_stream: bytes, tmp_path: Path) -> None:
    np.save(tmp_path / "unit.npy", np.eye(4, dtype=np.complex64))
    np.save(tmp_path / "four.npy", 4 * np.eye(4, dtype=np.complex64))
    _, unit = streamed(ismrmrd_stream, noise=tmp_path / "unit.npy")
    _, four = streamed(ismrmrd_stream, noise=tmp_path / "four.npy")
    for one, other in zip(ismrmrd_images(unit), ismrmrd_images(four), strict=True):
        np.testing.assert_allclose(one.data, 2 * other.data, rtol=1e-3, atol=1e-4 * float(one.data.max()))


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.ones((3, 4)), "expected a .coil, coil. covariance"),
        (np.array([[1, 2], [0, 1]]), "not Hermitian"),
        (-np.eye(4), "not positive definite"),
        (np.full((2, 2), np.nan), "expected a .coil, coil. covariance"),
    ],
)
def test_what_is_no_covariance_is_told(
    matrix: np.ndarray, words: str, ismrmrd_stream: bytes, tmp_path: Path
) -> None:
    np.save(tmp_path / "noise.npy", matrix)
    summary, _ = streamed(ismrmrd_stream, noise=tmp_path / "noise.npy")
    with pytest.raises(ReconNodeError, match=words):
        raise summary.error or AssertionError


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "expected an ISMRMRD stream or an MRD 2 stream"),
        (close_bytes(), "no header"),
    ],
)
def test_another_protocol_is_one_line(data: bytes, words: str) -> None:
    summary, out = streamed(data)
    assert words in str(summary.error)
    assert out == b""


def test_both_ends_swapped_are_told(ismrmrd_stream: bytes) -> None:
    _, images = streamed(ismrmrd_stream)
    summary, _ = streamed(images)
    assert isinstance(summary.error, SourceError)
    assert "swapped" in str(summary.error)


def test_an_output_that_nobody_reads_loses_no_dicom(ismrmrd_stream: bytes, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as output:
        summary = reconstruct_stream(io.BytesIO(ismrmrd_stream), output, SETTINGS, out=tmp_path)
    assert "nobody reads the output" in str(summary.error)
    assert len(list(tmp_path.rglob("*.dcm"))) == 16


def test_named_pipes_in_an_empty_environment(mrd2_stream: bytes, heart: Path, tmp_path: Path) -> None:
    """As Tyger runs a codespec: named pipes for buffers, nothing in the environment, no home."""
    for name in ("scan", "noise", "images"):
        os.mkfifo(tmp_path / name)
    flag = np.uint64(AcquisitionFlag.IS_NOISE_MEASUREMENT)
    with open_source(heart) as source:
        header = bytes(message_bytes(HeaderXml(xml=source.headers[0].xml)))
        blocks = [b for b in source if isinstance(b, Readouts) and (b.head["flags"] & flag).any()]
    noise = b"".join([header, *(bytes(message_bytes(b)) for b in blocks), close_bytes()])
    writers = [
        threading.Thread(target=(tmp_path / name).write_bytes, args=(data,))
        for name, data in (("scan", mrd2_stream), ("noise", noise))
    ]
    for writer in writers:
        writer.start()
    codespec = yaml.safe_load(Path("gadget_configs/tyger.yml").read_text())["job"]["codespec"]
    assert codespec["buffers"] == {"inputs": ["input", "noise"], "outputs": ["output"]}
    pipes = {"$(INPUT_PIPE)": "scan", "$(NOISE_PIPE)": "noise", "$(OUTPUT_PIPE)": "images"}
    arguments = codespec["args"]
    for variable, name in pipes.items():
        arguments = [part.replace(variable, str(tmp_path / name)) for part in arguments]
    assert "$(" not in "".join(arguments)
    command = [sys.executable, "-m", "recon_node", *arguments, "--method", "view-sharing"]
    process = subprocess.Popen(
        command, env={"PYTHONPATH": str(Path.cwd())}, stderr=subprocess.PIPE, text=True
    )
    images = (tmp_path / "images").read_bytes()
    told = process.communicate(timeout=60)[1]
    for writer in writers:
        writer.join(10)
    assert process.returncode == 0, told
    assert len(mrd2_images(images)) == 16
    assert "slice 1: 8 images by view-sharing" in told
    assert "Not for clinical use" in told


def test_in_a_pipe_between_the_tools_of_the_mrd_package(tmp_path: Path) -> None:
    """``phantom | recon-node stream | export_png_images``: programs that know nothing of each other."""
    python = sys.executable
    pipe = (
        f"{python} -m mrd.tools.phantom -c 4 -m 32 -r 2 | "
        f"{python} -m recon_node stream --method view-sharing | "
        f"{python} -m mrd.tools.export_png_images -o {tmp_path}/image"
    )
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", pipe], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("image*.png"))) == 2


def test_an_mrd2_file_is_inspected_and_sent_as_any_other(
    mrd2_stream: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "scan.mrd2"
    raw.write_bytes(mrd2_stream)
    assert run(["inspect", str(raw)]) == 0
    assert "receiver_channels" in capsys.readouterr().out
    folders = {name: str(tmp_path / name) for name in ("out", "deferred")}
    with serving(SETTINGS.replace("server", port=0, **folders)) as running:
        assert run(["send", str(raw), "--port", str(running.server.port), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 16


def test_exit_codes_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.bin").write_bytes(b"nonsense")
    command = ["stream", "--input", str(tmp_path / "x.bin"), "--output", str(tmp_path / "out")]
    assert run([*command, "--method", "zero-filled"]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("recon-node: the input starts with")
    assert run(["stream", "--input", str(tmp_path / "absent"), "--output", str(tmp_path / "out")]) == 1
    assert "No such file" in capsys.readouterr().err
    assert run([*command, "--method", "nothing"]) == 2


PRINTING = """
import os
import numpy as np
class Printing:
    learned = False
    def reconstruct(self, kspace, maps, text):
        print("printed by python")
        os.write(1, b"printed by C")
        return np.ones((len(kspace.data), *kspace.data.shape[2:]), np.complex64)
"""


def test_what_other_packages_print_is_not_among_the_images(ismrmrd_stream: bytes, tmp_path: Path) -> None:
    (tmp_path / "printing.py").write_text(PRINTING)
    command = [sys.executable, "-m", "recon_node", "stream", "--method", "printing:Printing"]
    done = subprocess.run(
        command,
        input=ismrmrd_stream,
        capture_output=True,
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(recon_node.__file__).parents[1]}"},
    )
    assert len(ismrmrd_images(done.stdout)) == 16
    assert b"printed by" not in done.stdout
    assert b"printed by python" in done.stderr
    assert b"printed by C" in done.stderr
