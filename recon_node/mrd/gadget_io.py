"""Gadgetron's sorted messages (BUCKET, RECON_DATA) back to readouts: one preparation serves all chains.

The headers of the readouts travel inside these messages, so nothing is lost by taking the sorting
apart; what Gadgetron did to the samples before (whitening, oversampling removal) stays done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import ProtocolError, UnsupportedScan
from recon_node.core.scan import Readouts, Waveform
from recon_node.mrd.frames import Frame
from recon_node.mrd.gadget_frames import BUCKET_META, Walk, walk_buffer
from recon_node.mrd.messages import WAVEFORM_HEADER, MessageId

_ALSO_IMAGING = int(AcquisitionFlag.IS_PARALLEL_CALIBRATION_AND_IMAGING)
_CALIBRATION = int(AcquisitionFlag.IS_PARALLEL_CALIBRATION)
_SHAPE = ["number_of_samples", "active_channels"]


def bucket_items(frame: Frame) -> Iterator[Readouts | Waveform]:
    """Everything in a BUCKET: waveforms, then reference lines, then imaging lines, in runs of one shape.

    Lines that serve imaging and calibration are in both lists of a bucket; they are given once.

    Raises
    ------
    ProtocolError
        The sizes in the bucket contradict each other.
    """
    walk = Walk(lambda size: frame.raw[:size], len(frame.raw))
    meta = np.frombuffer(walk.take(BUCKET_META.itemsize), BUCKET_META)[0]
    data = _acquisitions(walk, meta["data"])
    walk.skip(int(meta["data_stats"]["bytes"]))
    reference = _acquisitions(walk, meta["reference"])
    walk.skip(int(meta["reference_stats"]["bytes"]))
    yield from _waveforms(walk, meta["waveforms"])
    for run in reference:
        only = (run.head["flags"] & np.uint64(_ALSO_IMAGING)) == 0
        if only.any():
            yield run.select(only)
    yield from data


def recon_data_items(frame: Frame) -> Iterator[Readouts]:
    """The lines of a RECON_DATA, reference first; what was filled with zeros is left out.

    A buffer holds `(E0, E1, E2, CHA, N, S, LOC)` and a header for each of its lines that was measured
    (the others are all zero). Sample counts and the centre in the headers are set to those of the buffer.

    Raises
    ------
    ProtocolError
        Header and data sizes of a buffer differ.
    UnsupportedScan
        A buffer with a trajectory (not Cartesian).
    """
    walk = Walk(lambda size: frame.raw[:size], len(frame.raw))
    for _ in range(walk.count()):
        data = _buffer(frame, walk)
        reference = _buffer(frame, walk) if walk.present() else None
        if reference is not None:
            only = (reference.head["flags"] & np.uint64(_ALSO_IMAGING)) == 0
            if only.any():
                yield _calibration(reference.select(only))
        if data is not None:
            yield data


def _acquisitions(walk: Walk, sizes: NDArray[Any]) -> list[Readouts]:
    count = int(sizes["count"])
    if int(sizes["header_bytes"]) != count * ACQUISITION_HEADER.itemsize:
        raise ProtocolError(f"BUCKET has {sizes['header_bytes']} bytes of headers for {count} acquisitions")
    heads = np.frombuffer(walk.take(count * ACQUISITION_HEADER.itemsize), ACQUISITION_HEADER).copy()
    walk.skip(int(sizes["trajectory_bytes"]))
    items = heads["number_of_samples"].astype(np.int64) * heads["active_channels"]
    if int(sizes["data_bytes"]) != 8 * int(items.sum()):
        raise ProtocolError(
            f"BUCKET has {sizes['data_bytes']} bytes of samples, its headers say {8 * items.sum()}"
        )
    samples = np.frombuffer(walk.take(int(sizes["data_bytes"])), "<c8")
    heads["trajectory_dimensions"] = 0
    runs, at = [], 0
    shapes = np.stack([heads[name] for name in _SHAPE], axis=1)
    cuts = np.flatnonzero((np.diff(shapes.astype(np.int64), axis=0) != 0).any(axis=1)) + 1
    for first, last in zip([0, *cuts], [*cuts, count], strict=True):
        if first == last:
            continue
        end = at + int(items[first:last].sum())
        width, coils = (int(n) for n in shapes[first])
        block = samples[at:end].astype(np.complex64).reshape(last - first, coils, width)
        runs.append(Readouts(head=heads[first:last], samples=block))
        at = end
    return runs


def _waveforms(walk: Walk, sizes: NDArray[Any]) -> Iterator[Waveform]:
    count = int(sizes["count"])
    if int(sizes["header_bytes"]) != count * WAVEFORM_HEADER.itemsize:
        raise ProtocolError(f"BUCKET has {sizes['header_bytes']} bytes of headers for {count} waveforms")
    heads = np.frombuffer(walk.take(count * WAVEFORM_HEADER.itemsize), WAVEFORM_HEADER).copy()
    for head in heads:
        channels, samples = int(head["channels"]), int(head["number_of_samples"])
        data = np.frombuffer(walk.take(4 * channels * samples), "<u4").astype(np.uint32)
        yield Waveform(
            waveform_id=int(head["waveform_id"]),
            time_stamp=int(head["time_stamp"]),
            sample_time_us=float(head["sample_time_us"]),
            data=data.reshape(channels, samples),
        )


def _buffer(frame: Frame, walk: Walk) -> Readouts | None:
    """The measured lines of one buffer; None if it has none."""
    parts = walk_buffer(walk)
    if parts["trajectory"] is not None:
        raise UnsupportedScan("RECON_DATA holds a trajectory: only Cartesian scans are reconstructed")
    data = _array(frame, parts["data"], np.dtype("<c8"))
    heads = _array(frame, parts["headers"], ACQUISITION_HEADER)
    if data.ndim != 7 or heads.shape != data.shape[1:3] + data.shape[4:]:
        raise ProtocolError(
            f"RECON_DATA has data {data.shape} and headers {heads.shape}, "
            "expected (E0, E1, E2, CHA, N, S, LOC) and (E1, E2, N, S, LOC)"
        )
    measured = heads["number_of_samples"] > 0
    if not measured.any():
        return None
    lines = np.moveaxis(data, (3, 0), (-2, -1))[measured]
    head = heads[measured].copy()
    head["number_of_samples"] = data.shape[0]
    head["center_sample"] = data.shape[0] // 2
    head["active_channels"] = data.shape[3]
    for name in ("discard_pre", "discard_post", "trajectory_dimensions"):
        head[name] = 0
    head["flags"] &= ~np.uint64(AcquisitionFlag.IS_REVERSE)
    order = np.argsort(head["scan_counter"], kind="stable")
    return Readouts(head=head[order], samples=np.ascontiguousarray(lines[order], np.complex64))


def _array(frame: Frame, part: tuple[int, tuple[int, ...]] | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    assert part is not None  # noqa: S101 - for the type checker: data and headers are never optional
    at, shape = part
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(frame.raw[at : at + size], dtype).reshape(shape, order="F")


def _calibration(lines: Readouts) -> Readouts:
    head = lines.head.copy()
    head["flags"] |= np.uint64(_CALIBRATION)
    return Readouts(head=head, samples=lines.samples)


ITEMS = {MessageId.BUCKET: bucket_items, MessageId.RECON_DATA: recon_data_items}
"""How each of Gadgetron's sorted messages is taken apart."""
