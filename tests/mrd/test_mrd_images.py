"""Images over the MRD wire: complete headers and attributes, and the same images at the other end."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import InconsistentReadouts, SourceError
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import ImageSeries, MadeBy, Verdict
from recon_node.files.image_store import ImageStore, load_images
from recon_node.mrd.images import image_messages, image_series
from recon_node.mrd.messages import ImageMessage, image_bytes
from recon_node.mrd.meta import meta_xml, parse_meta
from recon_node.mrd.wire import read_messages

HEADER = ScanHeader(
    encoded_matrix=(12, 6, 1),
    encoded_fov_mm=(600.0, 240.0, 8.0),
    recon_matrix=(6, 6, 1),
    recon_fov_mm=(300.0, 240.0, 8.0),
    protocol="cine_sax",
)
VERDICT = Verdict(verdict="warn", score=0.5, reasons=("field of view cut", "a <strange> pattern"))


def some_series(phases: int = 3, slice_: int = 2) -> ImageSeries:
    rng = np.random.default_rng(7)
    data = (rng.normal(size=(phases, 6, 5)) + 1j * rng.normal(size=(phases, 6, 5))).astype(np.complex64)
    return ImageSeries(
        data=data,
        geometry=SliceGeometry(
            position_mm=(1.0, -2.0, 3.5),
            read_dir=(0.0, 1.0, 0.0),
            phase_dir=(0.0, 0.0, 1.0),
            slice_dir=(1.0, 0.0, 0.0),
            fov_mm=(300.0, 240.0, 8.0),
        ),
        header=HEADER,
        index=SliceIndex(slice=slice_, set=1),
        made_by=MadeBy(method="sense", version="0.1.0", weights="default", weights_sha256="ab" * 32),
        trigger_times_ms=tuple(50.0 * p for p in range(1, phases + 1)),
        acquisition_times_s=tuple(36000.0 + p for p in range(phases)),
    )


def test_each_phase_becomes_one_image_with_geometry_counters_and_times() -> None:
    images = some_series()
    messages = image_messages(images, series_index=4)
    assert len(messages) == 3
    for phase, message in enumerate(messages):
        head = message.head[0]
        np.testing.assert_array_equal(message.data[0, 0], np.abs(images.data[phase]))
        assert (head["slice"], head["phase"], head["set"], head["image_series_index"]) == (2, phase, 1, 4)
        assert head["image_index"] == 2 * 3 + phase + 1
        assert head["physiology_time_stamp"][0] * 2.5 == 50.0 * (phase + 1)
        assert head["acquisition_time_stamp"] * 2.5e-3 == 36000.0 + phase
        np.testing.assert_array_equal(head["field_of_view"], (300, 240, 8))
        np.testing.assert_array_equal(head["read_dir"], (0, 1, 0))


def test_the_ismrmrd_package_reads_header_attributes_and_pixels() -> None:
    images = some_series()
    (message, *_) = image_messages(images, verdict=VERDICT)
    image = ismrmrd.Image.deserialize_from(io.BytesIO(bytes(image_bytes(message))[2:]).read)
    np.testing.assert_array_equal(image.data[0, 0], np.abs(images.data[0]))
    assert image.matrix_size == (5, 6, 1)
    assert image.image_type == ismrmrd.IMTYPE_MAGNITUDE
    assert image.meta["GADGETRON_DataRole"] == "Image"
    assert image.meta["SeriesDescription"] == "cine_sax sense"
    assert "not for clinical use" in image.meta["ImageComment"]
    assert image.meta["TrustVerdict"] == "warn"
    assert image.meta["TrustReasons"] == list(VERDICT.reasons)
    assert image.meta["Keep_image_geometry"] == "1"
    assert image.meta["ImageRowDir"] == ["0.0", "1.0", "0.0"]
    assert image.meta["ReconWeightsSha256"] == "ab" * 32


def test_scaled_pixels_give_the_magnitude_back_through_their_slope() -> None:
    images = some_series()
    messages = image_messages(images, pixels="uint16")
    assert messages[0].data.dtype == np.uint16
    (back,) = image_series(messages, HEADER)
    step = np.abs(images.data).max() / 4095
    np.testing.assert_allclose(back.data.real, np.abs(images.data), atol=0.51 * step)


@pytest.mark.parametrize("pixels", ["float32", "complex64"])
def test_images_sent_and_read_back_are_the_same_series(pixels: str) -> None:
    images = some_series()
    stream = b"".join(image_bytes(m) for m in reversed(image_messages(images, pixels=pixels)))
    (back,) = image_series(read_messages(memoryview(stream), close_optional=True), HEADER)
    np.testing.assert_array_equal(back.data, images.data if pixels == "complex64" else np.abs(images.data))
    assert back.geometry == images.geometry
    assert back.index == images.index
    assert back.trigger_times_ms == images.trigger_times_ms
    assert back.acquisition_times_s == images.acquisition_times_s
    assert back.made_by == images.made_by


@pytest.mark.parametrize("peak", [0.0, 3.0, 250.0, 1e6])
def test_windows_are_whole_numbers_or_left_to_the_viewer(peak: float) -> None:
    images = some_series()
    data = images.data / np.abs(images.data).max() * peak
    shown = dataclasses.replace(images, data=data.astype(np.complex64))
    meta = parse_meta(image_messages(shown)[0].attributes)
    if peak < 10:
        assert "WindowWidth" not in meta
        return
    for name in ("", "GADGETRON_"):
        (centre,), (width,) = meta[f"{name}WindowCenter"], meta[f"{name}WindowWidth"]
        assert int(width) == pytest.approx(np.percentile(np.abs(data), 99.5), abs=1)
        assert int(centre) == pytest.approx(int(width) / 2, abs=1)


def test_an_image_without_geometry_takes_the_headers_field_of_view_and_says_so() -> None:
    picture = ismrmrd.Image.from_array(np.ones((6, 5), np.float32))
    (message,) = read_messages(memoryview(b"\xfe\x03" + picture.to_bytes()), close_optional=True)
    assert isinstance(message, ImageMessage)
    (back,) = image_series([message], HEADER)
    assert back.geometry.fov_mm == HEADER.recon_fov_mm
    assert not back.geometry.known


def test_two_images_of_the_same_phase_are_refused() -> None:
    (message, *_) = image_messages(some_series())
    with pytest.raises(InconsistentReadouts, match="each phase once"):
        image_series([message, message], HEADER)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1, max_size=3), max_size=4))
def test_any_text_makes_readable_meta_attributes(attributes: dict[str, list[str]]) -> None:
    parsed = parse_meta(meta_xml(attributes))
    assert all(isinstance(value, str) for values in parsed.values() for value in values)


def test_printable_meta_attributes_come_back_exactly() -> None:
    wanted = {"a": ("1 < 2 & 3",), "b": ("x", "ü", "")}
    assert parse_meta(meta_xml(wanted)) == wanted


def test_attributes_that_are_no_xml_are_one_clear_error() -> None:
    with pytest.raises(SourceError, match="meta attributes"):
        parse_meta("<ismrmrdMeta><meta>")


@pytest.mark.parametrize("pixels", ["float32", "complex64", "uint16"])
def test_stored_images_are_read_by_the_ismrmrd_package_and_by_the_node(tmp_path: Path, pixels: str) -> None:
    path = tmp_path / "images.h5"
    messages = image_messages(some_series(), pixels=pixels) + image_messages(some_series(), series_index=10)
    with ImageStore(path, group="scan") as store:
        for message in messages:
            store.append(message)
    back = load_images(path, group="scan")
    assert [image_bytes(m) for m in back] == [image_bytes(m) for m in messages]
    with ismrmrd.Dataset(str(path), "scan", create_if_needed=False) as dataset:
        assert dataset.number_of_images("image_1") == 3
        image = dataset.read_image("image_10", 1)
    np.testing.assert_array_equal(image.data, messages[4].data)
    assert image.meta["DataRole"] == "Image"


def test_an_image_that_does_not_fit_its_series_is_refused(tmp_path: Path) -> None:
    with ImageStore(tmp_path / "images.h5") as store:
        store.append(image_messages(some_series())[0])
        with pytest.raises(SourceError, match="does not fit"):
            store.append(image_messages(some_series(), pixels="uint16")[0])


def test_a_file_without_images_is_one_clear_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(SourceError, match="no images in group"):
        load_images(tmp_path / "other.h5")
    with pytest.raises(SourceError, match="cannot store"):
        ImageStore(tmp_path).append(image_messages(some_series())[0])
