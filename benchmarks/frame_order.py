"""A simulated scan as a real-time sequence acquires it: one frame after the other, at the pace of its TR."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.simulate.mrd import AcquisitionFile


def in_frame_order(raw: Path, out: Path, *, tr_ms: float) -> None:
    """Write the lines of `raw` slice by slice and frame by frame, time stamps and last flags with them.

    Parameters
    ----------
    raw, out : Path
        ISMRMRD files.
    tr_ms : float
        From line to line.
    """
    with open_source(raw) as source:
        xml = source.headers[0].xml.decode()
        blocks = [block for block in source if isinstance(block, Readouts)]
    with AcquisitionFile(out, xml) as file:
        imaging: list[Readouts] = []
        for block in blocks:
            noise = (block.head["flags"] & np.uint64(Flag.IS_NOISE_MEASUREMENT)) != 0
            if noise.any():
                file.append(block.head[noise], block.samples[noise])
            if not noise.all():
                imaging.append(block.select(~noise))
        head = np.concatenate([block.head for block in imaging])
        samples = np.concatenate([block.samples for block in imaging])
        order = np.lexsort((np.arange(len(head)), head["idx"]["phase"], head["idx"]["slice"]))
        head, samples = head[order], samples[order]
        first = int(head["acquisition_time_stamp"].min())
        head["acquisition_time_stamp"] = first + np.rint(np.arange(len(head)) * tr_ms / TIME_STAMP_UNIT_MS)
        last = Flag.LAST_IN_PHASE | Flag.LAST_IN_SLICE | Flag.LAST_IN_REPETITION | Flag.LAST_IN_MEASUREMENT
        head["flags"] &= ~np.uint64(last)
        slices, phases = head["idx"]["slice"].astype(int), head["idx"]["phase"].astype(int)
        ends = np.r_[np.diff(slices) != 0, True]
        head["flags"][ends] |= np.uint64(Flag.LAST_IN_SLICE)
        head["flags"][ends | np.r_[np.diff(phases) != 0, True]] |= np.uint64(Flag.LAST_IN_PHASE)
        head["flags"][-1] |= np.uint64(Flag.LAST_IN_MEASUREMENT)
        file.append(head, samples)
