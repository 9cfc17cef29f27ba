"""Time stamps of any unit, across midnight, with zones, and against the study's time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_scans import Lines, Replayed, axial, header, kspace_of, phantom, replay, write

Capture = pytest.CaptureFixture[str]
STUDY = "<studyInformation><studyDate>{}</studyDate><studyTime>{}</studyTime></studyInformation>"
TR = "<sequenceParameters><TR>{}</TR></sequenceParameters>"


def cine(
    path: Path, start_s: float, unit_ms: float, *, physiology_ms: float | None = None, **values: Any
) -> Path:
    """Four phases 50 ms apart, 3.2 ms from line to line, that begin `start_s` after midnight."""
    lines = Lines()
    for phase in range(4):
        since = 50.0 * phase + 0.8 * np.arange(24)
        clock = (1000 * start_s + since) % 86.4e6 / unit_ms
        physiology = np.zeros((24, 3), np.uint32)
        physiology[:, 0] = np.rint(since / (physiology_ms or unit_ms))
        lines.add(
            kspace_of(phantom(24, 24)),
            phase=phase,
            acquisition_time_stamp=np.rint(clock).astype(np.uint32),
            physiology_time_stamp=physiology,
            **axial(),
        )
    return write(path, header(24, 24, limits={"phase": 3}, **values), lines)


def times(found: Replayed) -> list[tuple[str, str]]:
    return [(str(ds.AcquisitionDate), str(ds.AcquisitionTime)[:8]) for ds in found.instances]


@pytest.mark.parametrize("unit", [2.5, 1.0, 0.1, 10.0])
def test_the_unit_of_time_stamps_is_found_from_the_study_time(
    unit: float, tmp_path: Path, capsys: Capture
) -> None:
    raw = cine(tmp_path / "a.h5", 50400, unit, study=STUDY.format("2024-03-01", "14:00:00"))
    found = replay(raw, tmp_path / "out", capsys)
    assert times(found) == [("20240301", t) for t in ("140000.0", "140000.0", "140000.1", "140000.1")]
    shown = [float(ds.TriggerTime) for ds in found.instances]
    np.testing.assert_allclose(shown, [9.6, 59.6, 109.6, 159.6], atol=unit + 1)
    assert any("time stamps count" in note for note in found.notes) == (unit != 2.5)


def test_a_scan_over_midnight_goes_on_on_the_next_day(tmp_path: Path, capsys: Capture) -> None:
    raw = cine(tmp_path / "a.h5", 86399.92, 2.5, study=STUDY.format("2024-02-28", "23:50:00"))
    found = replay(raw, tmp_path / "out", capsys)
    assert [date for date, _ in times(found)] == ["20240228", "20240228", "20240229", "20240229"]
    assert [float(ds.TriggerTime) for ds in found.instances][3] == pytest.approx(159, abs=3)


def test_a_series_after_midnight_of_a_study_before_it_has_the_next_date(
    tmp_path: Path, capsys: Capture
) -> None:
    raw = cine(tmp_path / "a.h5", 600, 2.5, study=STUDY.format("2023-12-31", "23:40:00"))
    assert {date for date, _ in times(replay(raw, tmp_path / "out", capsys))} == {"20240101"}


@pytest.mark.parametrize("start", [3.0, 20 * 3600.0])
def test_times_that_contradict_the_study_are_left_out_and_told(
    start: float, tmp_path: Path, capsys: Capture
) -> None:
    raw = cine(tmp_path / "a.h5", start, 2.5, study=STUDY.format("2024-03-01", "09:00:00"))
    found = replay(raw, tmp_path / "out", capsys)
    assert all(not ds.AcquisitionTime for ds in found.instances)
    assert any("contradict the time of the study" in note for note in found.notes)
    assert float(found.instances[1].TriggerTime) == pytest.approx(59, abs=3)


@pytest.mark.parametrize("zoned", ["14:00:00+02:00", "2024-03-01T14:00:00+02:00", "14:00:00.000000"])
def test_dates_and_times_with_a_zone_are_read(zoned: str, tmp_path: Path, capsys: Capture) -> None:
    raw = cine(tmp_path / "a.h5", 50400, 2.5, study=STUDY.format("2024-03-01+02:00", zoned))
    found = replay(raw, tmp_path / "out", capsys)
    assert found.instances[0].StudyDate == "20240301"
    assert str(found.instances[0].StudyTime).startswith("140000")
    assert times(found)[0] == ("20240301", "140000.0")


def test_stamps_in_universal_time_are_shown_in_the_study_s_own(tmp_path: Path, capsys: Capture) -> None:
    raw = cine(tmp_path / "a.h5", 50400 - 7 * 3600, 2.5, study=STUDY.format("2024-03-01", "14:00:00+07:00"))
    found = replay(raw, tmp_path / "out", capsys)
    assert times(found)[0] == ("20240301", "140000.0")
    assert any("time zone" in note for note in found.notes)


def test_without_a_study_time_the_repetition_time_tells_the_unit(tmp_path: Path, capsys: Capture) -> None:
    lines = Lines()
    stamps = 30_000_000 + 5 * np.arange(40)
    lines.add(kspace_of(phantom()), acquisition_time_stamp=stamps, **axial())
    found = replay(write(tmp_path / "a.h5", header(sequence=TR.format(5.0)), lines), tmp_path / "out", capsys)
    assert str(found.instances[0].AcquisitionTime).startswith("082000")
    assert any("by the repetition time" in note for note in found.notes)


def test_stamps_beyond_a_day_that_are_no_milliseconds_give_no_times(tmp_path: Path, capsys: Capture) -> None:
    lines = Lines().add(kspace_of(phantom()), acquisition_time_stamp=4_000_000_000, **axial())
    found = replay(write(tmp_path / "a.h5", header(), lines), tmp_path / "out", capsys)
    assert not found.instances[0].AcquisitionTime
    assert any("longer than a day" in note for note in found.notes)


def test_physiology_stamps_in_milliseconds_beside_ticks_are_seen(tmp_path: Path, capsys: Capture) -> None:
    raw = cine(tmp_path / "a.h5", 50400, 2.5, physiology_ms=1.0, study=STUDY.format("2024-03-01", "14:00:00"))
    found = replay(raw, tmp_path / "out", capsys)
    np.testing.assert_allclose(
        [float(ds.TriggerTime) for ds in found.instances], [9.6, 59.6, 109.6, 159.6], atol=1.5
    )
