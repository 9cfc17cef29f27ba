"""The centre of a grid: index ``n // 2``, in k-space and in images alike."""

from __future__ import annotations


def central(full: int, part: int) -> slice:
    """The central `part` indices of an axis of `full`, so that index ``n // 2`` of both is the same.

    Parameters
    ----------
    full : int
        Size of the axis.
    part : int
        Size of the part, at most `full`.
    """
    first = full // 2 - part // 2
    return slice(first, first + part)
