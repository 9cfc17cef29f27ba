"""Where to compute, and what to do when that place fails.

A device that is full or gone is a `DeviceError`. Where the device was left to the node (``auto``) the CPU
takes over, so that a GPU that vanishes in the middle of a scan costs time and no image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from recon_node.core.allocator import keep_freed_memory
from recon_node.core.errors import ConfigError, DeviceError

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHORT = ("can't allocate memory", "out of memory", "could not create a primitive", "std::bad_alloc")
"""What allocators say, and what oneDNN says without memory for its scratch."""
CPU = torch.device("cpu")


def pick_device(device: str) -> torch.device:
    """``auto`` takes CUDA where there is one; else ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    DeviceError
        If CUDA is asked for and absent.
    ConfigError
        If it is no name of a device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device is {device!r}, expected auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {device} was asked for, but no CUDA device is available: use cpu or auto")
    return chosen


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one CPU thread of torch, whatever the process has: sums then do not depend on how many.

    And in the precision that the numbers have, also within the training of a network in half precision.
    """
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        if before > 1:
            torch.set_num_threads(before)


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory is short, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in _SHORT)


def failure_of(error: Exception, device: torch.device) -> DeviceError | None:
    """What an error says about the device; None where the device is not to blame."""
    if out_of_memory(error):
        return DeviceError(
            f"{device} ran out of memory: free it, reconstruct fewer phases at a time, or use another device"
        )
    if device.type == "cpu":
        return None
    return DeviceError(f"{device} failed: {str(error).splitlines()[0] if str(error) else error!r}")


def on_device(device: str, work: Callable[[torch.device], T]) -> T:
    """Do `work` on a device, by one CPU thread; with ``auto`` on the CPU where the GPU fails.

    Parameters
    ----------
    device : str
        As `pick_device` takes it.
    work : callable
        Takes the device; does everything anew when called again.

    Raises
    ------
    DeviceError
        If the device fails or is full and no other may take over.
    """
    chosen = pick_device(device)
    keep_freed_memory()
    try:
        with one_thread():
            return work(chosen)
    except (RuntimeError, MemoryError) as error:
        failure = failure_of(error, chosen)
        if failure is None:
            raise
        if device != "auto" or chosen.type == "cpu":
            raise failure from error
        log.warning("%s; going on with the CPU", failure)
    return on_device("cpu", work)
