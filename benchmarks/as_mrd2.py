"""A scan as an MRD 2 stream, written by the ``mrd-python`` package: for benchmarks and tests of reading it."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator
from pathlib import Path

import mrd
import numpy as np

from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.files.open import open_source


def as_mrd2(path: Path) -> bytes:
    """The scan of a raw data file, every readout and waveform of it."""
    out = io.BytesIO()
    with open_source(path) as source, mrd.BinaryMrdWriter(out) as writer:
        writer.write_header(_header(source.headers[0]))
        writer.write_data(_items(list(source)))
        writer._stream.flush()  # noqa: SLF001 - the package has no public way to keep the bytes
        return out.getvalue() + b"\0"


def _header(header: ScanHeader) -> mrd.Header:
    study, system = header.study, mrd.AcquisitionSystemInformationType()
    system.system_vendor, system.system_model = header.vendor, header.model
    system.system_field_strength_t = header.field_strength_t
    system.receiver_channels = header.receiver_channels
    system.relative_receiver_noise_bandwidth = header.noise_bandwidth_ratio
    system.institution_name = header.institution
    limits = mrd.EncodingLimitsType()
    for name, limit in header.limits.items():
        own = name.replace("encoding_step", "encoding_step")
        setattr(limits, own, mrd.LimitType(minimum=limit.minimum, maximum=limit.maximum, center=limit.center))
    encoding = mrd.EncodingType(encoding_limits=limits, trajectory=mrd.Trajectory.CARTESIAN)
    for space, matrix, fov in (
        (encoding.encoded_space, header.encoded_matrix, header.encoded_fov_mm),
        (encoding.recon_space, header.recon_matrix, header.recon_fov_mm),
    ):
        space.matrix_size = mrd.MatrixSizeType(x=matrix[0], y=matrix[1], z=matrix[2])
        space.field_of_view_mm = mrd.FieldOfViewMm(x=fov[0], y=fov[1], z=fov[2])
    measurement = mrd.MeasurementInformationType(
        patient_position=mrd.PatientPosition.H_FS,
        protocol_name=header.protocol,
        sequence_name=header.sequence,
    )
    measurement.measurement_id = study.measurement_id
    subject = mrd.SubjectInformationType(
        patient_name=header.patient.name,
        patient_id=header.patient.patient_id,
        patient_weight_kg=header.patient.weight_kg,
        patient_birthdate=dt.date.fromisoformat(header.patient.birth_date or "1970-01-01"),
        patient_gender=mrd.PatientGender.O,
    )
    sequence = mrd.SequenceParametersType(
        t_r=list(header.tr_ms), t_e=list(header.te_ms), flip_angle_deg=list(header.flip_deg)
    )
    return mrd.Header(
        encoding=[encoding],
        acquisition_system_information=system,
        measurement_information=measurement,
        subject_information=subject,
        sequence_parameters=sequence,
        study_information=mrd.StudyInformationType(
            study_instance_uid=study.study_instance_uid,
            study_date=dt.date.fromisoformat(study.study_date or "1970-01-01"),
            study_time=mrd.Time.from_components(10, 30, 0),
        ),
        experimental_conditions=mrd.ExperimentalConditionsType(
            h1resonance_frequency_hz=header.resonance_frequency_hz or 0
        ),
    )


def _items(blocks: list[Readouts | Waveform]) -> Iterator[mrd.StreamItem]:
    for block in blocks:
        if isinstance(block, Waveform):
            yield mrd.StreamItem.WaveformUint32(
                mrd.WaveformUint32(
                    waveform_id=block.waveform_id,
                    time_stamp=block.time_stamp,
                    sample_time_us=np.float32(block.sample_time_us),
                    data=block.data,
                )
            )
            continue
        for head, samples in zip(block.head, block.samples, strict=True):
            yield mrd.StreamItem.Acquisition(_acquisition(head, samples))


def _acquisition(head: np.void, samples: np.ndarray) -> mrd.Acquisition:
    counters = mrd.EncodingCounters(user=[int(v) for v in head["idx"]["user"]])
    for name in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast"):
        setattr(counters, name, int(head["idx"][name]))
    for name in ("phase", "repetition", "set", "segment"):
        setattr(counters, name, int(head["idx"][name]))
    own = mrd.AcquisitionHeader(flags=mrd.AcquisitionFlags(int(head["flags"])), idx=counters)
    for name in ("scan_counter", "acquisition_time_stamp", "discard_pre", "discard_post", "center_sample"):
        setattr(own, name, int(head[name]))
    own.measurement_uid = int(head["measurement_uid"])
    own.encoding_space_ref = int(head["encoding_space_ref"])
    own.sample_time_us = float(head["sample_time_us"])
    own.physiology_time_stamp = [int(v) for v in head["physiology_time_stamp"]]
    own.channel_order = list(range(len(samples)))
    for name in ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position"):
        getattr(own, name)[:] = head[name]
    own.user_int = [int(v) for v in head["user_int"]]
    own.user_float = [float(v) for v in head["user_float"]]
    return mrd.Acquisition(head=own, data=samples)
