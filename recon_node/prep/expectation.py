"""How many lines a header announces, and when a slice has them all."""

from __future__ import annotations

import dataclasses
import math

from recon_node.core.scan import Limit, ScanHeader
from recon_node.prep.slices import SliceBuffer

FEWEST_LINES = 8
NEARLY = 16
"""A centre may be off by the matrix over this: partial Fourier leaves out more."""
LEAST_BANDWIDTH, MOST_BANDWIDTH = 0.1, 2.0
MANY = 8
"""Repetitions that make a film rather than a few measurements."""


def line_limits(header: ScanHeader) -> Limit:
    """Range and centre of ky; the encoded matrix around its middle where the header has no limits.

    A centre with which the range just does not fit the matrix is moved to the nearest with which it does; one
    far off may be right, with a range that is too large (partial Fourier).
    """
    ny = header.encoded_matrix[1]
    limit = header.limits.get("kspace_encoding_step_1") or Limit(minimum=0, maximum=ny - 1, center=ny // 2)
    if centre_unset(header):
        return dataclasses.replace(limit, center=ny // 2)
    lowest, highest = limit.maximum - (ny - 1 - ny // 2), limit.minimum + ny // 2
    nearest = min(max(limit.center, lowest), highest)
    close = lowest <= highest and abs(nearest - limit.center) <= ny // NEARLY
    return dataclasses.replace(limit, center=nearest) if close else limit


def centre_unset(header: ScanHeader) -> bool:
    """Whether the limits put the centre at the first line of a range that reaches far beyond half of ky."""
    limit, ny = header.limits.get("kspace_encoding_step_1"), header.encoded_matrix[1]
    return limit is not None and limit.center == limit.minimum == 0 and ny // 2 + 1 < limit.size <= ny


def bandwidth_ratio(header: ScanHeader) -> float | None:
    """Relative noise bandwidth of the receiver; None where the header has none that could be."""
    ratio = header.noise_bandwidth_ratio
    return ratio if ratio is not None and LEAST_BANDWIDTH <= ratio <= MOST_BANDWIDTH else None


def embeds_calibration(header: ScanHeader) -> bool:
    """Whether calibration lines belong to the imaging scan itself, so that images profit from them.

    With ISMRMRD's calibration mode ``embedded`` the lines flagged for calibration alone only lie off the
    undersampling's grid; in every other mode they may come from another contrast or time.
    """
    return header.calibration_mode == "embedded"


def noteworthy(header: ScanHeader, *, film: bool) -> list[str]:
    """What is odd about a header, in sentences; `film` looks for time that runs along the repetitions."""
    notes = []
    if centre_unset(header):
        ny = header.encoded_matrix[1]
        notes.append(
            f"the header puts the centre of k-space at ky 0 of {ny}: taken for the middle, {ny // 2}"
        )
    given, used = header.limits.get("kspace_encoding_step_1"), line_limits(header)
    if given is not None and given.center != used.center and not centre_unset(header):
        notes.append(
            f"the header's centre of k-space, ky {given.center}, does not fit lines {given.minimum} to "
            f"{given.maximum} of {header.encoded_matrix[1]}: {used.center} was taken"
        )
    if header.noise_bandwidth_ratio is not None and bandwidth_ratio(header) is None:
        notes.append(
            f"relative noise bandwidth is {header.noise_bandwidth_ratio:g}, expected about 0.8: left out"
        )
    phases, repetitions = header.limits.get("phase"), header.limits.get("repetition")
    if film and (phases is None or phases.size == 1) and repetitions is not None and repetitions.size >= MANY:
        notes.append(
            f"one phase and {repetitions.size} repetitions: dynamic = 'repetition' makes them one series"
        )
    return notes


def partition_limits(header: ScanHeader) -> Limit:
    """The same along kz; a single one for 2D."""
    nz = header.encoded_matrix[2]
    if nz == 1:
        return Limit(minimum=0, maximum=0, center=0)
    return header.limits.get("kspace_encoding_step_2") or Limit(minimum=0, maximum=nz - 1, center=nz // 2)


def expected_lines(header: ScanHeader, acs: int = 0) -> int:
    """Lines of one phase: those of the limits, thinned by the acceleration, with the calibration lines.

    Parameters
    ----------
    header : ScanHeader
    acs : int
        Calibration lines among the imaging lines, where the header does not give their number
        (``EmbeddedRefLinesE1``).
    """
    size = min(line_limits(header).size, header.encoded_matrix[1])
    partitions = partition_limits(header).size
    first, second = header.acceleration or (1.0, 1.0)
    given = header.user.get("EmbeddedRefLinesE1")
    block = min(size, int(given) if isinstance(given, int) and given > 0 else acs)
    lines = math.ceil(size / first) if first > 1 else size
    if first > 1:
        lines += block - block // math.ceil(first)
    return min(lines, size) * math.ceil(partitions / second)


def counters_complete(buffer: SliceBuffer, header: ScanHeader, dynamic: str) -> bool:
    """Whether every phase and segment of the limits was seen, and every line in as many averages."""
    wanted = header.limits.get(dynamic)
    if wanted is not None and int(buffer.phases_seen.sum()) < wanted.size:
        return False
    averages, segments = header.limits.get("average"), header.limits.get("segment")
    if averages is not None and buffer.fewest_repeats < averages.size:
        return False
    return segments is None or len(buffer.segments) >= segments.size


def could_complete(buffer: SliceBuffer, header: ScanHeader, dynamic: str, lines: int) -> bool:
    """Whether `lines` more could complete a slice by their number."""
    phases = header.limits[dynamic].size if dynamic in header.limits else 1
    return buffer.lines + lines >= expected_lines(header) * phases


def is_complete(buffer: SliceBuffer, header: ScanHeader, dynamic: str, *, revisits: bool) -> bool:
    """Whether a slice may leave before the scan ends.

    That is when all phases came, none of them far behind the others, and the latest line is flagged as the
    slice's last; or as many lines as the header announces came and the scan went on to another slice, unless
    this scan is known to come back to slices. Their number alone proves nothing: scans were seen with more
    phases than announced.
    """
    if not counters_complete(buffer, header, dynamic):
        return False
    lines = buffer.lines_by_phase
    fewest = int(lines.min())
    everything = min(line_limits(header).size, header.encoded_matrix[1]) * partition_limits(header).size
    if dynamic in header.limits and buffer.ends_here and 2 * fewest >= int(lines.max()):
        return fewest >= min(FEWEST_LINES, everything)
    return buffer.overtaken and not revisits and fewest >= expected_lines(header)
