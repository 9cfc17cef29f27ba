"""Acquisitions, waveforms and images of an MRD 2 stream, to and from the node's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER, TIME_STAMP_UNIT_MS, AcquisitionFlag
from recon_node.core.errors import InconsistentReadouts, ProtocolError, UnsupportedScan
from recon_node.core.scan import Readouts, Waveform
from recon_node.mrd.messages import ImageMessage
from recon_node.mrd.meta import parse_meta
from recon_node.mrd.v2.schema import Record, Schema, Type, Union

NS_PER_STAMP = TIME_STAMP_UNIT_MS * 1e6
HEAD = {
    "flags": "flags",
    "measurementUid": "measurement_uid",
    "scanCounter": "scan_counter",
    "discardPre": "discard_pre",
    "discardPost": "discard_post",
    "encodingSpaceRef": "encoding_space_ref",
    "position": "position",
    "readDir": "read_dir",
    "phaseDir": "phase_dir",
    "sliceDir": "slice_dir",
    "patientTablePosition": "patient_table_position",
}
LISTS = {
    "userInt": ("user_int", 8),
    "userFloat": ("user_float", 8),
    "physiologyTimeStamp": ("physiology_time_stamp", 3),
}
COUNTERS = {
    "kspaceEncodeStep1": "kspace_encode_step_1",
    "kspaceEncodeStep2": "kspace_encode_step_2",
    **{name: name for name in ("average", "slice", "contrast", "phase", "repetition", "set", "segment")},
}
_PIXELS = {
    "u2": "imageuint16",
    "i2": "imageint16",
    "u4": "imageuint32",
    "i4": "imageint32",
    "f4": "imagefloat",
    "f8": "imagedouble",
    "c8": "imagecomplexfloat",
    "c16": "imagecomplexdouble",
}
"""Kinds of images, lower case, by their pixels."""
_LINES = (
    AcquisitionFlag.IS_NOISE_MEASUREMENT
    | AcquisitionFlag.IS_NAVIGATION_DATA
    | AcquisitionFlag.IS_DUMMYSCAN_DATA
)
"""What needs no place in k-space."""


class AcquisitionReader:
    """Records of the schema's acquisition type to runs of readouts.

    Parameters
    ----------
    kind : Record
        Head and data apart, or (MRD 2.0) all in one.
    """

    def __init__(self, kind: Record) -> None:
        self._kind = kind
        self._nested = "head" in kind.index
        head = dict(kind.fields)["head"] if self._nested else kind
        if not isinstance(head, Record) or "data" not in kind.index:
            raise ProtocolError("MRD 2 stream: its acquisitions have no head or no data")
        self._head = head
        counters = dict(head.fields).get("idx")
        self._counters = counters if isinstance(counters, Record) else Record("none", ())

    def fits(self, run: Sequence[tuple[Any, ...]], record: tuple[Any, ...], most_bytes: int) -> bool:
        """Whether an acquisition continues a run, which stays below so many bytes."""
        shape = self.shape(record)
        return shape == self.shape(run[0]) and (len(run) + 1) * 8 * shape[0] * shape[1] <= most_bytes

    def shape(self, record: tuple[Any, ...]) -> tuple[int, ...]:
        """(coil, sample) of an acquisition, and the dimensions of its trajectory."""
        trajectory = self._part(record, "trajectory")
        return (*self._part(record, "data").shape, 0 if trajectory is None else trajectory.shape[0])

    def run(self, records: Sequence[tuple[Any, ...]]) -> Readouts:
        """Acquisitions of one shape as one run.

        Raises
        ------
        UnsupportedScan
            They carry phase offsets, which nothing here applies.
        InconsistentReadouts
            An imaging line does not say which line it is.
        ProtocolError
            A number that ISMRMRD's header cannot hold.
        """
        if any(part is not None and part.any() for part in (self._part(r, "phase") for r in records)):
            raise UnsupportedScan(
                "MRD 2 acquisitions carry phase offsets, which this node does not apply: demodulate first"
            )
        heads = [record[0] if self._nested else record for record in records]
        out = np.zeros(len(records), ACQUISITION_HEADER)
        try:
            self._fill(out, heads)
        except (OverflowError, ValueError) as error:
            raise ProtocolError(f"MRD 2 stream: an acquisition's number is out of range ({error})") from error
        samples = np.stack([self._part(record, "data") for record in records])
        centre = self._head.index.get("centerSample")
        if centre is not None:
            middle = samples.shape[2] // 2
            out["center_sample"] = [middle if head[centre] is None else head[centre] for head in heads]
        out["version"] = 1
        out["active_channels"] = out["available_channels"] = samples.shape[1]
        out["number_of_samples"] = samples.shape[2]
        out["trajectory_dimensions"] = self.shape(records[0])[-1]
        return Readouts(head=out, samples=samples)

    def _part(self, record: tuple[Any, ...], name: str) -> Any:
        at = self._kind.index.get(name)
        return None if at is None else record[at]

    def _fill(self, out: NDArray[Any], heads: Sequence[tuple[Any, ...]]) -> None:
        columns = dict(zip(self._head.index, zip(*heads, strict=True), strict=True))
        for name, column in columns.items():
            if name in HEAD:
                out[HEAD[name]] = [0 if value is None else value for value in column]
            elif (stem := name.removesuffix("Ns")) in LISTS:
                field, most = LISTS[stem]
                scale = NS_PER_STAMP if name.endswith("Ns") else None
                out[field] = [_padded(values, most, scale) for values in column]
        _fill_times(out, columns)
        self._fill_counters(out, columns.get("idx", ()))

    def _fill_counters(self, out: NDArray[Any], counters: Sequence[tuple[Any, ...]]) -> None:
        columns = dict(zip(self._counters.index, zip(*counters, strict=True), strict=True))
        for name, field in COUNTERS.items():
            if name in columns:
                out["idx"][field] = [0 if value is None else value for value in columns[name]]
        if "user" in columns:
            out["idx"]["user"] = [_padded(values, 8, None) for values in columns["user"]]
        lines = columns.get("kspaceEncodeStep1", ())
        imaging = (out["flags"] & np.uint64(int(_LINES))) == 0
        if any(value is None for value, wanted in zip(lines, imaging, strict=False) if wanted):
            raise InconsistentReadouts(
                "MRD 2 stream: an imaging acquisition has no kspaceEncodeStep1: expected its line's number"
            )


def _fill_times(out: NDArray[Any], columns: dict[str, tuple[Any, ...]]) -> None:
    for name, field, scale in (
        ("acquisitionTimeStamp", "acquisition_time_stamp", 1.0),
        ("acquisitionTimeStampNs", "acquisition_time_stamp", 1 / NS_PER_STAMP),
        ("sampleTimeUs", "sample_time_us", None),
        ("sampleTimeNs", "sample_time_us", None),
    ):
        if name not in columns:
            continue
        values = [0 if value is None else value for value in columns[name]]
        if scale is None:
            out[field] = np.asarray(values, np.float64) / (1000 if name.endswith("Ns") else 1)
        else:
            out[field] = [round(value * scale) for value in values]


def _padded(values: Sequence[float], most: int, scale: float | None) -> list[float]:
    kept = list(values[:most])
    if scale is not None:
        kept = [round(value / scale) for value in kept]
    return kept + [0] * (most - len(kept))


def waveform(kind: Record, record: tuple[Any, ...]) -> Waveform:
    """A waveform of the schema's type."""
    values = dict(zip(kind.index, record, strict=True))
    stamp = values.get("timeStamp")
    if stamp is None:
        stamp = round(values.get("timeStampNs", 0) / NS_PER_STAMP)
    step = values.get("sampleTimeUs")
    if step is None:
        step = values.get("sampleTimeNs", 0) / 1000
    data = np.asarray(values["data"], np.uint32)
    return Waveform(
        waveform_id=int(values["waveformId"]), time_stamp=int(stamp), sample_time_us=float(step), data=data
    )


def image_item(schema: Schema, message: ImageMessage) -> tuple[str, dict[str, Any]]:
    """An image as an item of the schema's stream: its tag, and its record for `encode`.

    Raises
    ------
    ProtocolError
        The schema has no images of these pixels.
    """
    wanted = _PIXELS[message.data.dtype.str[1:]]
    for tag, kind in schema.item.cases:
        if tag.lower() == wanted and isinstance(kind, Record):
            return tag, _image_record(kind, message)
    raise ProtocolError(f"the stream's MRD version has no images of {message.data.dtype} pixels")


def _image_record(kind: Record, message: ImageMessage) -> dict[str, Any]:
    head = message.head[0]
    flat: dict[str, Any] = {
        "measurementUid": int(head["measurement_uid"]),
        "fieldOfView": head["field_of_view"],
        "position": head["position"],
        "colDir": head["read_dir"],
        "lineDir": head["phase_dir"],
        "sliceDir": head["slice_dir"],
        "patientTablePosition": head["patient_table_position"],
        **{name: int(head[name]) for name in ("average", "slice", "contrast", "phase", "repetition", "set")},
        "flags": int(head["flags"]),
        "acquisitionTimeStamp": int(head["acquisition_time_stamp"]),
        "acquisitionTimeStampNs": round(int(head["acquisition_time_stamp"]) * NS_PER_STAMP),
        "physiologyTimeStamp": head["physiology_time_stamp"].tolist(),
        "physiologyTimeStampNs": [round(v * NS_PER_STAMP) for v in head["physiology_time_stamp"].tolist()],
        "imageType": int(head["image_type"]),
        "imageIndex": int(head["image_index"]),
        "imageSeriesIndex": int(head["image_series_index"]),
        "userInt": head["user_int"].tolist(),
        "userFloat": head["user_float"].tolist(),
    }
    parts = dict(kind.fields)
    texts = parse_meta(message.attributes)
    meta = {name: [_meta_value(parts["meta"], text) for text in several] for name, several in texts.items()}
    nested = {"head": flat} if "head" in parts else flat
    return {**nested, "data": message.data, "meta": meta}


def _meta_value(kind: Type, text: str) -> Any:
    """A meta attribute's value as the schema wants it: text alone, or tagged as what it is."""
    values = getattr(getattr(kind, "values", None), "items", None)
    if not isinstance(values, Union):
        return text
    for tag, read in (("int64", int), ("float64", float)):
        try:
            return (tag, read(text))
        except ValueError:
            continue
    return ("string", text)
