import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from recon_node.core.fft import centred_fft
from recon_node.solvers.device import on_device
from recon_node.solvers.kt import KtConfig, kt_images


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("2", 2)])
def test_importing_the_package_means_one_thread_unless_more_are_asked_for(
    asked: str | None, threads: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    if asked is not None:
        environment["OMP_NUM_THREADS"] = asked
    code = "import recon_node, torch, os; print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, timeout=100
    )
    assert found.stdout.split() == [str(threads), "passive"]


@pytest.mark.parametrize("moving", [False, True], ids=["same lines", "lines that move"])
@pytest.mark.usefixtures("two_threads")
def test_a_series_is_the_same_to_the_bit_whatever_the_number_of_threads(*, moving: bool) -> None:
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((1, 6, 128, 96, 2)).astype(np.float32).view(np.complex64)[..., 0]
    maps /= np.linalg.norm(maps, axis=1, keepdims=True)
    images = np.cumsum(rng.standard_normal((8, 128, 96)), axis=1)
    mask = rng.random((8 if moving else 1, 128, 1)) < 0.5
    mask = np.broadcast_to(mask, images.shape).copy()
    data = (centred_fft(maps * images[:, None]) * mask[:, None]).astype(np.complex64)
    several = kt_images(
        data, mask, maps, KtConfig(iterations=10, unfolding_iterations=10, refinements=5), torch.device("cpu")
    )
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    one = kt_images(
        data, mask, maps, KtConfig(iterations=10, unfolding_iterations=10, refinements=5), torch.device("cpu")
    )
    assert several.tobytes() == one.tobytes()


@pytest.mark.usefixtures("two_threads")
def test_work_on_a_device_uses_one_thread_and_leaves_the_others_as_they_were() -> None:
    assert on_device("cpu", lambda _: torch.get_num_threads()) == 1
    assert torch.get_num_threads() == 2


_ALLOCATE = """
import resource, torch
from recon_node.solvers.device import on_device
def allocate(_):
    for _ in range(20):
        kept = [torch.ones(1 << 21) for _ in range(3)]
on_device("cpu", allocate)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
on_device("cpu", allocate)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize("of_dask", [{"MALLOC_TRIM_THRESHOLD_": "65536"}, {}], ids=["dask", "alone"])
def test_arrays_that_come_and_go_cause_no_page_faults(of_dask: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= of_dask
    found = subprocess.run(
        [sys.executable, "-c", _ALLOCATE],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    each = (1 << 23) // 4096
    assert int(found.stdout) < 5 * each
