from __future__ import annotations

import os
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
from written_files import acquisition, header_xml, write_h5

from recon_node.core.errors import InconsistentReadouts, SourceError, TruncatedStream, UnsupportedScan
from recon_node.core.scan import Readouts, Waveform
from recon_node.files.hdf5 import Hdf5Source
from recon_node.files.mrd_file import MrdFileSource
from recon_node.files.open import open_source

Scan = tuple[Path, list[ismrmrd.Acquisition]]


@pytest.fixture
def small_scan(tmp_path: Path) -> Scan:
    rng = np.random.default_rng(5)
    acquisitions = [acquisition(rng, line=line) for line in range(16)]
    return write_h5(tmp_path / "scan.h5", acquisitions, xml=header_xml()), acquisitions


def readouts(path: Path, **options: int) -> list[Readouts]:
    with Hdf5Source(path, **options) as source:
        return [block for block in source if isinstance(block, Readouts)]


def assert_same(blocks: list[Readouts], acquisitions: list[ismrmrd.Acquisition]) -> None:
    rows = [(head, data) for block in blocks for head, data in zip(block.head, block.samples, strict=True)]
    assert len(rows) == len(acquisitions)
    for (head, data), acq in zip(rows, acquisitions, strict=True):
        assert head["idx"]["kspace_encode_step_1"] == acq.idx.kspace_encode_step_1
        assert head["scan_counter"] == acq.scan_counter
        np.testing.assert_array_equal(data, acq.data)


def test_bulk_reading_gives_what_the_ismrmrd_package_wrote(small_scan: Scan) -> None:
    path, acquisitions = small_scan
    blocks = readouts(path)
    assert len(blocks) == 1
    assert_same(blocks, acquisitions)


def test_small_blocks_bound_the_memory_of_a_run(small_scan: Scan) -> None:
    path, acquisitions = small_scan
    blocks = readouts(path, block_bytes=5 * 3 * 32 * 8)
    assert [len(block) for block in blocks] == [5, 5, 5, 1]
    assert_same(blocks, acquisitions)


def test_a_change_of_channels_or_samples_splits_the_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shapes = [(2, 64), (3, 32), (3, 32), (3, 16)]
    acqs = [acquisition(rng, line=i, coils=c, samples=n) for i, (c, n) in enumerate(shapes)]
    blocks = readouts(write_h5(tmp_path / "mixed.h5", acqs, xml=header_xml()))
    assert [block.samples.shape for block in blocks] == [(1, 2, 64), (2, 3, 32), (1, 3, 16)]
    assert_same(blocks, acqs)


def test_a_compressed_table_reads_the_same_through_the_slower_way(tmp_path: Path, small_scan: Scan) -> None:
    path, acquisitions = small_scan
    packed = tmp_path / "packed.h5"
    with h5py.File(path) as old, h5py.File(packed, "w") as new:
        group = new.create_group("dataset")
        group["xml"] = old["dataset/xml"][()]
        table = old["dataset/data"]
        group.create_dataset("data", data=table[:], dtype=table.dtype, chunks=(4,), compression="gzip")
    assert_same(readouts(packed), acquisitions)


def test_a_file_of_the_ismrmrd_tools_layout_with_stored_trajectories_reads_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    acqs = []
    for line in range(4):
        acq = acquisition(rng, line=line)
        data = acq.data.copy()
        acq.resize(number_of_samples=32, active_channels=3, trajectory_dimensions=2)
        acq.data[:] = data
        acq.traj[:] = rng.standard_normal((32, 2))
        acqs.append(acq)
    assert_same(readouts(write_h5(tmp_path / "traj.h5", acqs, xml=header_xml())), acqs)


def test_waveforms_come_with_their_channels(tmp_path: Path, small_scan: Scan) -> None:
    path, _ = small_scan
    data = np.arange(12, dtype=np.uint32).reshape(2, 6)
    with h5py.File(path, "a") as file:
        kind = ismrmrd.hdf5.waveform_dtype
        rows = np.empty(1, dtype=kind)
        rows[0]["head"]["channels"], rows[0]["head"]["number_of_samples"] = 2, 6
        rows[0]["head"]["waveform_id"], rows[0]["head"]["time_stamp"] = 1, 77
        rows[0]["data"] = data.reshape(-1)
        file["dataset"].create_dataset("waveforms", data=rows, dtype=kind)
    with Hdf5Source(path) as source:
        first = next(iter(source))
    assert isinstance(first, Waveform)
    assert (first.waveform_id, first.time_stamp) == (1, 77)
    np.testing.assert_array_equal(first.data, data)


def test_a_dataset_of_another_name_is_found_and_several_must_be_chosen_from(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = write_h5(tmp_path / "named.h5", [acquisition(rng, line=0)], xml=header_xml(), group="meas_1")
    assert len(readouts(path)) == 1
    write_h5(path, [acquisition(rng, line=0)], xml=header_xml(), group="meas_2")
    with pytest.raises(SourceError, match=r"meas_1.*meas_2"):
        open_source(path)
    with open_source(path, group="meas_2") as source:
        assert len(source.headers) == 1
    with pytest.raises(SourceError, match="no dataset 'meas_3'"):
        open_source(path, group="meas_3")


@pytest.mark.parametrize("content", [b"", b"hello world, this is no raw data", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_raw_data_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.h5"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"odd\.h5"):
        open_source(path)


def test_an_absent_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_source(tmp_path / "nowhere.h5")
    with pytest.raises(SourceError, match="folder"):
        open_source(tmp_path)


def test_empty_hdf5_missing_header_and_missing_acquisitions_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w"):
        pass
    with pytest.raises(SourceError, match="empty"):
        open_source(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_group("dataset").create_dataset("data", (0,), dtype=ismrmrd.hdf5.acquisition_dtype)
    with pytest.raises(SourceError, match="no XML header"):
        open_source(tmp_path / "b.h5")
    path = write_h5(tmp_path / "c.h5", [], xml=header_xml())
    with pytest.raises(SourceError, match="no acquisitions"):
        open_source(path)
    with h5py.File(path, "a") as file:
        file["dataset"].create_dataset("data", (0,), dtype=ismrmrd.hdf5.acquisition_dtype)
    with pytest.raises(SourceError, match="no acquisitions"):
        open_source(path)


def test_a_file_with_images_only_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        image = file.create_group("dataset/image_0")
        image["header"], image["attributes"], image["data"] = [1], [2], [3]
    with pytest.raises(UnsupportedScan, match="images only"):
        open_source(tmp_path / "images.h5")


def test_a_truncated_file_is_told_from_a_damaged_one(tmp_path: Path, small_scan: Scan) -> None:
    path, _ = small_scan
    whole = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(TruncatedStream, match=rf"truncated \({len(whole) * 2 // 3} of {len(whole)} bytes\)"):
        open_source(tmp_path / "cut.h5")


@pytest.mark.parametrize("seed", range(8))
def test_damaged_bytes_give_data_or_a_clear_error_never_a_crash(
    tmp_path: Path, small_scan: Scan, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(small_scan[0].read_bytes())
    for place in rng.integers(2048, len(content), 400):
        content[place] = rng.integers(256)
    path = tmp_path / "damaged.h5"
    path.write_bytes(content)
    try:
        with open_source(path) as source:
            list(source)
    except (SourceError, InconsistentReadouts) as error:
        assert "\n" not in str(error)  # noqa: PT017 (reading may also succeed)


def test_samples_that_contradict_the_header_are_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    path = write_h5(tmp_path / "odd.h5", [acquisition(rng, line=i) for i in range(3)], xml=header_xml())
    with h5py.File(path, "a") as file:
        row = file["dataset/data"][1]
        row["head"]["active_channels"] = 5
        file["dataset/data"][1] = row
    with pytest.raises(InconsistentReadouts, match="acquisition 1 holds 192 numbers"):
        readouts(path)


def test_compressed_acquisitions_are_refused_by_name(tmp_path: Path) -> None:
    acq = acquisition(np.random.default_rng(6), line=0)
    acq.set_flag(53)
    with pytest.raises(UnsupportedScan, match="compress"):
        readouts(write_h5(tmp_path / "zip.h5", [acq], xml=header_xml()))


def test_the_stream_form_gives_the_same_readouts(tmp_path: Path, small_scan: Scan) -> None:
    _, acquisitions = small_scan
    path = tmp_path / "scan.mrd"
    with ismrmrd.ProtocolSerializer(str(path)) as out:
        out.serialize(ismrmrd.xsd.CreateFromDocument(header_xml()))
        for acq in acquisitions:
            out.serialize(acq)
    with open_source(path) as source:
        assert isinstance(source, MrdFileSource)
        assert source.headers[0].encoded_matrix == (32, 16, 1)
        assert_same([block for block in source if isinstance(block, Readouts)], acquisitions)


def test_a_cut_stream_is_a_truncated_stream(tmp_path: Path, small_scan: Scan) -> None:
    path = tmp_path / "scan.mrd"
    with ismrmrd.ProtocolSerializer(str(path)) as out:
        out.serialize(ismrmrd.xsd.CreateFromDocument(header_xml()))
        for acq in small_scan[1]:
            out.serialize(acq)
    os.truncate(path, path.stat().st_size - 100)
    with open_source(path) as source, pytest.raises(TruncatedStream):
        list(source)


def test_a_stream_without_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.mrd"
    path.write_bytes(b"\x01\x00" + b"default".ljust(1024, b"\0") + b"\x04\x00")
    with pytest.raises(SourceError, match="without a header"):
        open_source(path)


def test_a_stream_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        MrdFileSource(tmp_path / "nowhere.mrd")
    (tmp_path / "empty.mrd").write_bytes(b"")
    with pytest.raises(SourceError, match="cannot be read"):
        MrdFileSource(tmp_path / "empty.mrd")


def test_a_stream_closes_while_an_abandoned_iterator_still_looks_at_it(
    tmp_path: Path, small_scan: Scan
) -> None:
    path = tmp_path / "scan.mrd"
    with ismrmrd.ProtocolSerializer(str(path)) as out:
        out.serialize(ismrmrd.xsd.CreateFromDocument(header_xml()))
        for acq in small_scan[1]:
            out.serialize(acq)
    source = open_source(path)
    iterator = iter(source)
    block = next(iterator)
    source.close()
    assert isinstance(block, Readouts)
    assert np.isfinite(block.samples).all()


def test_a_locked_file_opens_all_the_same(small_scan: Scan) -> None:
    path, acquisitions = small_scan
    with h5py.File(path, "r"):
        assert_same(readouts(path), acquisitions)


def test_tables_that_are_no_acquisitions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["dataset/xml"] = [header_xml().encode()]
        file["dataset/data"] = np.arange(5)
    with pytest.raises(SourceError, match="no table of ISMRMRD acquisitions"):
        open_source(path)
    with h5py.File(path, "w") as file:
        file["dataset/xml"] = np.zeros(0, dtype="S4")
        file["dataset/data"] = np.arange(5)
    with pytest.raises(SourceError, match="empty XML header"):
        open_source(path)
