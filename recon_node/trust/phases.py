"""The middle phases of a series, which trust looks at where it does not look at all of them."""

from __future__ import annotations

from dataclasses import replace

from recon_node.core.types import KSpace


def middle(phases: int, count: int) -> slice:
    """The middle `count` of so many phases, or all of them; at least one."""
    kept = min(max(1, count), phases)
    first = (phases - kept) // 2
    return slice(first, first + kept)


def middle_phases(kspace: KSpace, count: int) -> KSpace:
    """K-space of the middle `count` phases, with their time stamps."""
    part = middle(len(kspace.data), count)
    times, acquired = kspace.trigger_times_ms, kspace.acquisition_times_s
    return replace(
        kspace,
        data=kspace.data[part],
        mask=kspace.mask[part],
        trigger_times_ms=None if times is None else times[part],
        acquisition_times_s=None if acquired is None else acquired[part],
    )


def is_still(kspace: KSpace) -> bool:
    """Whether all phases sample the same."""
    return bool((kspace.mask == kspace.mask[:1]).all())
