"""What the DICOM settings make of a reconstruction."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from recon_node.core.errors import ConfigError
from recon_node.core.types import Verdict
from recon_node.dicom import WrittenInstance
from recon_node.files.open import open_source
from recon_node.pipeline.result import Reconstruction
from recon_node.pipeline.row import Pipeline
from recon_node.pipeline.scan import prepare
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import Settings

TI_MS = (100.0, 180.0, 260.0, 1000.0, 1080.0, 1900.0, 2800.0, 4000.0)
Write = Callable[..., list[WrittenInstance]]


@pytest.fixture(scope="module")
def slice_(heart: tuple[Path, Path]) -> Reconstruction:
    settings = Settings().replace("recon", method="sense")
    with open_source(heart[0]) as source:
        return Pipeline(settings).run(next(prepare(source, settings.prep)).kspace)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(*results: Reconstruction, dynamic: str = "auto", **values: Any) -> list[WrittenInstance]:
        settings = Settings().replace("dicom", **values).replace("prep", dynamic=dynamic)
        writer = SeriesWriter.from_settings(settings, tmp_path / "out")
        return [
            instance for result in results for instance in writer.write(replace(result, source_id="source"))
        ]

    return run


def changed(result: Reconstruction, **fields: Any) -> Reconstruction:
    return replace(result, images=replace(result.images, **fields))


def with_header(result: Reconstruction, **fields: Any) -> Reconstruction:
    return changed(result, header=replace(result.images.header, **fields))


def passes(path: Path) -> bool:
    try:
        told = subprocess.run(
            ["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        pytest.skip("dciodvfy is not installed")
    return "Error" not in told.stdout + told.stderr


def test_phase_images_are_a_series_of_their_own(slice_: Reconstruction, write: Write) -> None:
    written = write(slice_, images=("magnitude", "phase"))
    assert len(written) == 16
    assert len({i.series_instance_uid for i in written}) == 2
    phase = dcmread(written[8].path)
    assert "phase" in phase.SeriesDescription
    radian = phase.pixel_array * float(phase.RescaleSlope) + float(phase.RescaleIntercept)
    assert radian == pytest.approx(np.angle(slice_.images.data[0]), abs=1e-4)
    assert phase.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "rad"
    assert passes(written[8].path)


def test_velocity_is_written_from_the_second_set_on_in_cm_per_second(
    slice_: Reconstruction, write: Write
) -> None:
    index = slice_.images.index
    turned = np.complex64(np.exp(1j * np.pi * 30 / 150))
    encoded = changed(slice_, index=replace(index, set=1), data=slice_.images.data * turned)
    written = write(slice_, encoded, images=("magnitude", "velocity"), venc_cm_s=150.0)
    assert [dcmread(i.path).ImageType[2] for i in written[::8]] == ["M", "M", "VELOCITY MAP"]
    flow = dcmread(written[16].path)
    velocity = flow.pixel_array * float(flow.RescaleSlope) + float(flow.RescaleIntercept)
    there = slice_.images.data[0] != 0
    assert velocity[there] == pytest.approx(np.full(there.sum(), 30.0), abs=0.01)
    assert flow.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "cm/s"
    assert flow.ImageType[0] == "DERIVED"
    assert passes(written[16].path)


def test_sets_of_two_methods_make_no_velocity(
    slice_: Reconstruction, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    other = replace(slice_.images.made_by, method="cg-sense-of-another-kind")
    encoded = changed(slice_, index=replace(slice_.images.index, set=1), made_by=other)
    assert len(write(slice_, encoded, images=("magnitude", "velocity"), venc_cm_s=150.0)) == 16
    assert "no velocity" in caplog.text


def test_a_series_of_contrasts_carries_its_times_and_a_map(slice_: Reconstruction, write: Write) -> None:
    recovery = 1 - 2 * np.exp(-np.array(TI_MS, np.float32)[:, None, None] / 1000)
    images = (np.abs(slice_.images.data[:1]) * recovery).astype(np.complex64)
    result = with_header(changed(slice_, data=images, trigger_times_ms=None), ti_ms=TI_MS)
    written = write(result, dynamic="contrast", images=("magnitude", "t1", "t2"))
    assert len(written) == 9
    assert [float(dcmread(i.path).InversionTime) for i in written[:8]] == list(TI_MS)
    t1 = dcmread(written[8].path)
    assert t1.ImageType[2] == "T1 MAP"
    found = t1.pixel_array * float(t1.RescaleSlope)
    bright = np.abs(images[-1]) > 0.3 * np.abs(images[-1]).max()
    assert found[bright] == pytest.approx(np.full(bright.sum(), 1000.0), rel=0.02)
    assert passes(written[0].path)
    assert passes(written[8].path)


def test_a_brighter_slice_is_not_cut_off_by_the_scaling_of_the_first(
    slice_: Reconstruction, write: Write
) -> None:
    index = replace(slice_.images.index, slice=1)
    brighter = changed(slice_, index=index, data=slice_.images.data * np.complex64(3))
    first, second = (dcmread(i.path) for i in write(slice_, brighter)[::8])
    shown = second.pixel_array * float(second.RescaleSlope)
    assert shown.max() == pytest.approx(np.abs(brighter.images.data[0]).max(), rel=1e-3)
    assert (first.WindowCenter, first.WindowWidth) == (second.WindowCenter, second.WindowWidth)


def test_a_radiologist_sees_the_patients_left_on_the_right(slice_: Reconstruction, write: Write) -> None:
    ordinary = dcmread(write(slice_)[0].path)
    assert ordinary.InPlanePhaseEncodingDirection == "COL"
    turned = dcmread(write(slice_, turn="radiological")[0].path)
    row, column = np.reshape(turned.ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.argmax(np.abs(np.cross(row, column)))
    assert (row[1] if normal == 0 else row[0]) > 0
    assert (column[1] if normal == 2 else -column[2]) > 0
    assert sorted(turned.pixel_array.ravel()) == sorted(ordinary.pixel_array.ravel())


@pytest.mark.parametrize("form", ["enhanced-mr", "legacy-enhanced-mr"])
def test_a_series_may_be_one_instance(slice_: Reconstruction, write: Write, form: str) -> None:
    [whole, phase] = write(slice_, format=form, images=("magnitude", "phase"))
    assert dcmread(whole.path).NumberOfFrames == 8
    assert passes(whole.path)
    assert passes(phase.path)


def test_compression_mark_and_site_reach_the_instances(slice_: Reconstruction, write: Write) -> None:
    doubtful = replace(slice_, verdict=Verdict(verdict="warn", score=0.4))
    values = {"department": "Radiology", "study_description": "Heart", "institution": "Elsewhere"}
    [first, *_] = write(doubtful, compression="rle", mark="burn", **values)
    ds = dcmread(first.path)
    assert ds.file_meta.TransferSyntaxUID == RLELossless
    assert ds.BurnedInAnnotation == "YES"
    assert ds.InstitutionalDepartmentName == "Radiology"
    assert passes(first.path)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"images": ("magnitude", "colour")}, "found 'colour'"),
        ({"images": ("",)}, "allowed some of"),
        ({"images": ("velocity",)}, "venc_cm_s"),
        ({"format": "enhanced-mr", "mark": "burn"}, "allowed none in format enhanced-mr"),
    ],
)
def test_settings_that_make_no_images_are_no_settings(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Settings().replace("dicom", **values)


def test_maps_of_noise_and_expected_error_are_series_of_their_own(
    slice_: Reconstruction, write: Write
) -> None:
    wanted = ("magnitude", "g-factor", "snr", "expected-error")
    written = [dcmread(i.path) for i in write(slice_, images=wanted, turn="radiological")]
    kinds = [ds.ImageType[2] for ds in written]
    assert kinds == ["M"] * 8 + ["G FACTOR MAP", "SNR MAP", "ERROR MAP"]
    assert len({ds.SeriesInstanceUID for ds in written}) == 4
    assert {(ds.Rows, ds.Columns) for ds in written} == {(written[0].Rows, written[0].Columns)}
    g, ratio, error = (ds.pixel_array * float(ds.RescaleSlope) for ds in written[8:])
    assert 0.8 < np.median(g[g > 0]) < 5
    assert ratio.max() > 5
    verdict = slice_.verdict.error_map
    assert verdict is not None
    assert error.max() == pytest.approx(verdict.max(), rel=0.3)
    assert all(passes(i.path) for i in write(slice_, images=wanted)[8:])


def test_a_map_that_cannot_be_made_is_left_out_and_told_of(
    slice_: Reconstruction, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    untested = replace(slice_, verdict=Verdict(verdict="warn", score=0.0))
    assert len(write(untested, images=("magnitude", "expected-error"))) == 8
    assert "has no expected-error map: nothing was held out of it" in caplog.text


@pytest.mark.parametrize(
    ("first", "offset", "expected"),
    [(2_000_000, 1000, 200_001_001), (2_000_000, 1_999_999_999, 2_000_000_000)],
)
def test_a_series_number_stays_within_what_dicom_holds(
    slice_: Reconstruction, write: Write, first: int, offset: int, expected: int
) -> None:
    header = slice_.kspace.header
    study = replace(header.study, initial_series_number=first)
    result = replace(slice_, kspace=replace(slice_.kspace, header=replace(header, study=study)))
    found = int(dcmread(write(result, series_number_offset=offset)[0].path).SeriesNumber)
    assert found == expected
