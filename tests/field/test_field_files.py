"""Public data sets by their names and companions, and files that claim more than they hold."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from field_scans import alike, header, kspace_of, one_slice, phantom, replay

from recon_node.cli import run
from recon_node.core.errors import NoKSpace, SourceError, UnsupportedScan
from recon_node.core.fft import centred_fft
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.simulate.mrd import ACQUISITION

Capture = pytest.CaptureFixture[str]
PAIR = np.dtype([("real", "<f4"), ("imag", "<f4")])
INFO = (
    "Parameter,Value\nFOVx(mm),{x}\nFOVy(mm),320\nReconMatrix_X,40\nReconMatrix_Y,40\nReadOutOversample,2\n"
)


def mat(path: Path, **arrays: np.ndarray) -> Path:
    """A MATLAB v7.3 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            if np.iscomplexobj(array):
                pairs = np.empty(array.shape, PAIR)
                pairs["real"], pairs["imag"] = array.real, array.imag
                file[name] = pairs
            else:
                file[name] = array
    return path


def cine(times: int = 2, slices: int = 3, wide: int = 1) -> np.ndarray:
    """`(time, slice, coil, ky, kx)`, oversampled `wide` times, each frame another picture."""
    frames = []
    for number in range(times * slices):
        image = phantom(40, 40, shift=-0.1 * number)
        frames.append(kspace_of(np.pad(image, ((0, 0), (20 * (wide - 1),) * 2)), seed=number))
    return np.asarray(frames).reshape(times, slices, *frames[0].shape)


@pytest.mark.parametrize("name", ["kspace_single_full", "kspace_single_sub04"])
def test_single_coil_files_have_no_coil_axis(name: str, tmp_path: Path, capsys: Capture) -> None:
    single = centred_fft(np.stack([[phantom(40, 40, -0.1 * s) for s in range(3)]] * 2)).astype(np.complex64)
    found = replay(mat(tmp_path / "cine_sax.mat", **{name: single}), tmp_path / "out", capsys)
    assert [(entry["slice"], entry["phases"]) for entry in found.series] == [(0, 2), (1, 2), (2, 2)]
    assert alike(found.image(2), phantom(40, 40, -0.1)) > 0.95
    assert "pass" not in found.verdicts


def test_sizes_of_the_table_beside_reach_dicom_and_oversampling_is_removed(
    tmp_path: Path, capsys: Capture
) -> None:
    raw = mat(tmp_path / "cine_sax.mat", kspace_full=cine(wide=2))
    (tmp_path / "cine_sax_info.csv").write_text(
        INFO.format(x=320) + "SliceThickness(mm),8\nSliceNum,3\nTemporalPhase,2\nFieldStrength(T),3\n"
    )
    found = replay(raw, tmp_path / "out", capsys)
    for ds in found.instances:
        assert (ds.Rows, ds.Columns) == (40, 40)
        assert [float(value) for value in ds.PixelSpacing] == [8, 8]
        assert float(ds.SliceThickness) == 8
        assert "ImagePositionPatient" not in ds
    assert {tuple(entry["geometry"]["unknown"]) for entry in found.series} == {("pitch",)}


@pytest.mark.parametrize("table", [None, INFO.format(x=640), INFO.replace("FOVy(mm),320", "")])
def test_sizes_that_the_table_does_not_tell_are_left_out(
    table: str | None, tmp_path: Path, capsys: Capture
) -> None:
    raw = mat(tmp_path / "cine_sax_kus_Uniform4.mat", kus=cine(1, 1, wide=2))
    if table is not None:
        (tmp_path / "cine_sax_info.csv").write_text(table)
    found = replay(raw, tmp_path / "out", capsys)
    assert found.verdicts == ["warn"]
    assert "PixelSpacing" not in found.instances[0]
    assert not found.instances[0].SliceThickness


def test_a_table_that_contradicts_the_axes_is_told(tmp_path: Path) -> None:
    raw = mat(tmp_path / "a.mat", kspace_full=cine())
    (tmp_path / "a_info.csv").write_text("Parameter,Value\nSliceNum,2\nTemporalPhase,2\n")
    with pytest.raises(UnsupportedScan, match="contradicts"):
        open_source(raw)


NOT_KSPACE: dict[str, Callable[[], np.ndarray]] = {
    "coilmap": lambda: np.ones((4, 6, 8, 8), np.complex64),
    "usmask_ktGaussian": lambda: np.ones((1, 3, 1, 6, 7, 1), np.float32),
    "mask": lambda: np.ones((40, 40)),
    "segmask": lambda: np.ones((6, 7, 5)),
    "img4ranking": lambda: np.ones((2, 3, 8, 8), np.complex64),
}


@pytest.mark.parametrize("name", NOT_KSPACE)
def test_what_is_no_kspace_is_refused_by_what_it_is(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoKSpace, match="no k-space"):
        open_source(mat(tmp_path / f"{name}.mat", **{name: NOT_KSPACE[name]()}))


def test_companions_in_a_folder_are_left_out_and_told(tmp_path: Path, capsys: Capture) -> None:
    mat(tmp_path / "in" / "cine.mat", kspace_full=cine(1, 1))
    for name, make in NOT_KSPACE.items():
        mat(tmp_path / "in" / f"{name}.mat", **{name: make()})
    assert run(["replay", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--method", "sense"]) == 0
    told = capsys.readouterr()
    assert told.err.count("left out") == len(NOT_KSPACE)
    assert "1 series" in told.out


def test_a_flow_file_gives_its_partitions_times_and_velocity_encodings(tmp_path: Path) -> None:
    volume = np.stack([phantom(24, 24, 0.1 * z) for z in range(4)])
    kspace = centred_fft(volume, axes=(0, 1, 2)).astype(np.complex64)
    raw = mat(
        tmp_path / "kdata_full.mat", kdata_full=np.broadcast_to(kspace, (4, 2, 3, *kspace.shape)).copy()
    )
    (tmp_path / "params.csv").write_text("FOV,320;320;40\nVENC,150\nFA,8\n")
    with open_source(raw) as source:
        (head,) = source.headers
        blocks = [block for block in source if isinstance(block, Readouts)]
    assert head.encoded_matrix == (24, 24, 4)
    assert head.encoded_fov_mm == (320, 320, 40)
    assert head.user == {"VelocityEncodings": 3, "VENC_cm_s": 150}
    assert {int(n) for block in blocks for n in block.head["idx"]["set"]} == {0, 1, 2, 3}
    assert {int(n) for block in blocks for n in block.head["idx"]["kspace_encode_step_2"]} == {0, 1, 2, 3}


def test_empty_slices_of_a_fastmri_file_are_left_out_and_told(tmp_path: Path, capsys: Capture) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        kspace = np.stack([kspace_of(phantom(), seed=n).swapaxes(1, 2) for n in range(3)])
        kspace[1] = 0
        file["kspace"], file["ismrmrd_header"] = kspace, header()
    found = replay(tmp_path / "a.h5", tmp_path / "out", capsys)
    assert [entry["slice"] for entry in found.series] == [0, 2]
    assert any("without a sample, left out: 1" in note for note in found.notes)


def claiming(path: Path) -> None:
    """A table of three milliards of rows of which none is stored."""
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[header().encode()], dtype=h5py.string_dtype())
        group.create_dataset("data", (3_000_000_000,), maxshape=(None,), dtype=ACQUISITION, chunks=(64,))


def unfolding(path: Path) -> None:
    """Chunks that unfold to gibibytes."""
    with h5py.File(path, "w") as file:
        shape = (1, 1, 1, 8192, 65000)
        file.create_dataset("kspace_full", shape, PAIR, chunks=(1, 1, 1, 8192, 32500), compression="gzip")


def elsewhere(path: Path) -> None:
    """A link into a pipe that nobody writes to."""
    os.mkfifo(path.with_name("pipe"))
    with h5py.File(path, "w") as file:
        file["dataset"] = h5py.ExternalLink(str(path.with_name("pipe")), "/dataset")


@pytest.mark.parametrize("make", [claiming, unfolding, elsewhere])
def test_files_that_would_fill_the_memory_or_never_answer_are_refused(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "bomb.h5")
    with pytest.raises(SourceError, match=r"bomb\.h5"):
        open_source(tmp_path / "bomb.h5")


def test_a_pipe_is_no_raw_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.h5")
    with pytest.raises(SourceError, match="no plain file"):
        open_source(tmp_path / "scan.h5")


def test_a_file_name_that_is_no_text_ends_no_folder(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").mkdir()
    odd = os.fsdecode(os.fsencode(tmp_path / "in") + b"/sc\xffan.h5")
    shutil.copy(one_slice(tmp_path / "a.h5"), odd)
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/b\xfead.h5")).write_bytes(b"no raw data")
    code = run(["replay", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--method", "sense"])
    told = capsys.readouterr()
    assert code == 1
    assert "1 series from 1 of 2 files" in told.out
    assert "neither HDF5" in told.err


def flow_file(path: Path, mask: np.ndarray | None = None) -> Path:
    """Two velocity encodings of four partitions: what is bright turns the second one's phase by 0.4."""
    nz, ny, nx = 4, 32, 32
    volume = np.stack([phantom(ny, nx, 0.05 * z) for z in range(nz)])
    y, x = np.mgrid[:ny, :nx]
    corners = ((0, 0), (0, nx), (ny, nx), (ny, 0))
    coils = [
        np.exp(-(((y - v) / ny) ** 2) - ((x - u) / nx) ** 2 + 1j * n) for n, (v, u) in enumerate(corners)
    ]
    moving = volume * np.exp(0.4j * (volume > 0.9))
    sets = [centred_fft(np.stack([c * v for c in coils]), axes=(1, 2, 3)) for v in (volume, moving)]
    noise = np.random.default_rng(0).standard_normal((2, 1, 4, nz, ny, nx, 2)) * 0.01
    data = np.stack(sets)[:, None] + noise[..., 0] + 1j * noise[..., 1]
    name = "kdata_full" if mask is None else "kdata_ktGaussian4"
    (path.parent / "params.csv").write_text("FOV,320;320;40\nVENC,150\n")
    return mat(path, **{name: (data if mask is None else data * mask).astype(np.complex64)})


def test_velocity_encodings_come_out_as_phase_images(tmp_path: Path, capsys: Capture) -> None:
    found = replay(flow_file(tmp_path / "kdata_full.mat"), tmp_path / "out", capsys)
    assert len(found.series) == 8
    kinds = [str(ds.ImageType[2]) for ds in found.instances]
    assert (kinds.count("M"), kinds.count("P")) == (8, 8)
    by_place: dict[tuple[float, int], np.ndarray] = {}
    for entry in found.series:
        for uid in entry["instances"]:
            (ds,) = [ds for ds in found.instances if ds.SOPInstanceUID == uid]
            if ds.ImageType[2] == "P":
                shown = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
                by_place[entry["index"]["partition"], entry["index"]["set"]] = shown
    turned = np.exp(1j * (by_place[1, 1] - by_place[1, 0]))
    volume = phantom(32, 32, 0.05)
    assert np.angle(turned[volume > 0.9].mean()) == pytest.approx(0.4, abs=0.03)
    assert np.angle(turned[(volume > 0.2) & (volume < 0.5)].mean()) == pytest.approx(0.0, abs=0.03)


def test_flow_that_is_undersampled_along_the_slices_is_refused_by_what_it_is(
    tmp_path: Path, capsys: Capture
) -> None:
    mask = np.random.default_rng(1).random((1, 1, 1, 4, 32, 1)) < 0.4
    raw = flow_file(tmp_path / "kdata_ktGaussian4.mat", mask)
    mat(tmp_path / "usmask_ktGaussian4.mat", usmask_ktGaussian4=mask.astype(np.float32))
    found = replay(raw, tmp_path / "out", capsys)
    assert (found.code, found.series) == (1, [])
    assert "undersampled along the slice encoding" in found.errors


def test_a_fastmri_file_of_images_alone_is_left_out_and_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["reconstruction_rss"], file["ismrmrd_header"] = np.ones((2, 8, 8), np.float32), header()
    with pytest.raises(NoKSpace, match="reconstruction_rss"):
        open_source(tmp_path / "a.h5")


@pytest.mark.parametrize("coils", [None, 3])
def test_fastmri_kspace_has_a_coil_axis_only_where_it_has_four_axes(
    coils: int | None, tmp_path: Path, capsys: Capture
) -> None:
    kspace = np.stack([kspace_of(phantom(), seed=n) for n in range(2)]).swapaxes(2, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace if coils else kspace[:, 0]
        file["ismrmrd_header"] = header(limits={"slice": 1})
    found = replay(tmp_path / "a.h5", tmp_path / "out", capsys)
    assert [entry["slice"] for entry in found.series] == [0, 1]
    assert alike(found.image(), phantom()) > 0.95
