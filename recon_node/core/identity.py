"""What a scan is, whatever way it came: a hash of what its header says and of its first imaging readouts.

Files, connections and chains of Gadgetron write the same header in other words (3.4 as 3.4000001, other
blanks, another character encoding); the values are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.scan import Readouts, ScanHeader

IDENTIFYING_READOUTS = 8
_HOW_IT_CAME = ("xml", "origin", "remarks")
"""Fields of a header that say how it came, not what was measured."""
_NOT_IMAGING = np.uint64(
    Flag.IS_NOISE_MEASUREMENT
    | Flag.IS_NAVIGATION_DATA
    | Flag.IS_PHASECORR_DATA
    | Flag.IS_HPFEEDBACK_DATA
    | Flag.IS_DUMMYSCAN_DATA
    | Flag.IS_RTFEEDBACK_DATA
    | Flag.IS_SURFACECOILCORRECTIONSCAN_DATA
)
_MEASURED = ("measurement_uid", "scan_counter", "acquisition_time_stamp", "encoding_space_ref", "idx")
_PLACED = ("position", "read_dir", "phase_dir", "slice_dir")


def canonical(value: Any) -> Any:
    """A value as JSON can hold it: numbers at six digits of single precision, mappings in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return canonical({name: v for name, v in fields.items() if name not in _HOW_IT_CAME})
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, float | np.floating):
        return f"{np.float32(np.clip(value, -3e38, 3e38)) + np.float32(0):.6g}"
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [canonical(item) for item in value]
    return value


def canonical_bytes(value: Any) -> bytes:
    """The same as bytes to be hashed."""
    return json.dumps(canonical(value), sort_keys=True, default=str).encode("utf-8", "surrogatepass")


class ScanIdentity:
    """The hash of one scan, complete once its first imaging readouts were seen.

    Parameters
    ----------
    headers : sequence of ScanHeader
        One per encoding.
    """

    def __init__(self, headers: Sequence[ScanHeader]) -> None:
        self._hash = hashlib.sha256(canonical_bytes(list(headers)))
        self._left = IDENTIFYING_READOUTS

    def see(self, block: Readouts) -> None:
        """Take in readouts, in the order of acquisition."""
        if not self._left:
            return
        first = block.select(np.flatnonzero(block.head["flags"] & _NOT_IMAGING == 0)[: self._left])
        self._left -= len(first)
        for head, samples in zip(first.head, first.samples, strict=True):
            for name in _MEASURED:
                self._hash.update(head[name].tobytes())
            for name in _PLACED:
                self._hash.update(canonical_bytes(np.nan_to_num(head[name]).tolist()))
            self._hash.update(np.ascontiguousarray(samples).tobytes())

    @property
    def hex(self) -> str:
        """64 hexadecimal digits; what is seen later changes them no more."""
        self._left = 0
        return self._hash.hexdigest()
