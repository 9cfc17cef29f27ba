"""The same data give the same bytes, however many threads a process has and whatever it loaded first."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import threadpoolctl

from recon_node.core.threads import one_blas_thread
from recon_node.simulate import simulate_scan

IMAGES = """
{before}
import hashlib, sys
from recon_node import Pipeline, Settings, open_scan
(kspace,) = open_scan(sys.argv[1])
for method in ("sense", "kt", "cardiomm"):
    recon = dict(method=method, device="cpu", threads={threads}, check_trust=False)
    made = Pipeline(Settings().replace("recon", **recon)).run(kspace)
    print(hashlib.sha256(made.images.data.tobytes()).hexdigest())
"""
NUMPY_FIRST = "import numpy, scipy.linalg"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("threads") / "scan.h5"
    simulate_scan(path, acceleration=4, coils=16, slices=1, phases=3, matrix=96, seed=1)
    return path


def hashes(scan: Path, before: str, threads: int, environment: dict[str, str]) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", IMAGES.format(before=before, threads=threads), scan],
        env=kept | environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    ).stdout


def test_images_do_not_depend_on_threads_or_on_what_was_imported_first(scan: Path) -> None:
    usual = hashes(scan, "", 1, {})
    assert len(set(usual.split())) == 3
    assert hashes(scan, NUMPY_FIRST, 1, {}) == usual
    assert hashes(scan, NUMPY_FIRST, 2, {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}) == usual


def blas_threads() -> set[int]:
    return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}


def test_the_limit_holds_until_the_last_one_leaves_and_is_lifted_then() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_blas_thread():
            inside.set()
            leave.wait(60)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        thread = threading.Thread(target=other)
        with one_blas_thread():
            thread.start()
            assert inside.wait(60)
        assert blas_threads() == {1}
        leave.set()
        thread.join(60)
        assert blas_threads() == {2}
