"""Where lines belong, from the counters of their acquisition headers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import InconsistentReadouts
from recon_node.core.scan import ScanHeader, SliceIndex
from recon_node.prep.expectation import line_limits, partition_limits


def rows_of(head: NDArray[Any], header: ScanHeader) -> NDArray[np.intp]:
    """Row ``kz * ny + ky`` of each line.

    Raises
    ------
    InconsistentReadouts
        A counter outside the encoded matrix.
    """
    _, ny, nz = header.encoded_matrix
    ky = _placed(head["idx"]["kspace_encode_step_1"], line_limits(header).center, ny, "ky")
    if nz == 1:
        kz = np.unique(head["idx"]["kspace_encode_step_2"])
        if len(kz) > 1:
            raise InconsistentReadouts(
                f"lines count partitions {kz[0]} to {kz[-1]} (kspace_encode_step_2), the header has one"
            )
        return ky
    kz = _placed(head["idx"]["kspace_encode_step_2"], partition_limits(header).center, nz, "kz")
    return kz * ny + ky


def _placed(counters: NDArray[Any], centre: int, size: int, name: str) -> NDArray[np.intp]:
    places = counters.astype(np.intp) - centre + size // 2
    wrong = np.flatnonzero((places < 0) | (places >= size))
    if len(wrong):
        raise InconsistentReadouts(
            f"line {name} {int(counters[wrong[0]])} lies outside the encoded matrix of {size} lines "
            f"(centre {centre})"
        )
    return places


def along_time(idx: NDArray[Any], header: ScanHeader, dynamic: str) -> NDArray[np.intp]:
    """Place on the phase axis of each line, by the counter `dynamic`, from the first that the header has."""
    counters: NDArray[np.intp] = idx[dynamic].astype(np.intp)
    limit = header.limits.get(dynamic)
    return (
        counters - limit.minimum
        if limit is not None and bool((counters >= limit.minimum).all())
        else counters
    )


def slice_indices(
    idx: NDArray[Any], encoding: int, dynamic: str
) -> tuple[list[SliceIndex], NDArray[np.intp], SliceIndex]:
    """Slices in the order they appear, which of them each line belongs to, and the last line's."""
    names = ("slice", "contrast", "set", "repetition")
    columns = [np.zeros(len(idx), np.uint16) if name == dynamic else idx[name] for name in names]
    key = np.zeros(len(idx), dtype=np.uint64)
    for column in columns:
        key = key << np.uint64(16) | column.astype(np.uint64)
    values, first, groups = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(values), dtype=np.intp)
    rank[order] = np.arange(len(values))
    found = [
        SliceIndex(encoding=encoding, **{n: int(c[i]) for n, c in zip(names, columns, strict=True)})
        for i in first[order].tolist()
    ]
    ranks = rank[groups.reshape(-1)]
    return found, ranks, found[int(ranks[-1])]


def name_of(index: SliceIndex) -> str:
    """In words, for messages."""
    parts = {
        "slice": index.slice,
        "contrast": index.contrast,
        "set": index.set,
        "repetition": index.repetition,
    }
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value or name == "slice")
