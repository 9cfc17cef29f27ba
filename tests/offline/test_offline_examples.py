"""The example files for clusters say what Slurm and Kubernetes have to be told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

FOLDER = Path(__file__).parents[2] / "examples" / "cluster"


def test_slurm_gets_a_job_script_with_one_thread_a_tag_and_memory_that_is_kept() -> None:
    command = [sys.executable, str(FOLDER / "slurm.py"), "--gpu", "--partition", "fast", "--show"]
    script = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    for line in ("#SBATCH -p fast", "#SBATCH --gres=gpu:1", "export MALLOC_TRIM_THRESHOLD_=268435456"):
        assert line in script
    assert "--nthreads 1 " in script
    assert "--resources GPU=1" in script


@pytest.mark.parametrize(("part", "program"), [("scheduler", dask_scheduler), ("worker", dask_worker)])
def test_kubernetes_starts_programs_with_options_that_they_have(part: str, program: Any) -> None:
    cluster = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    assert (cluster["apiVersion"], cluster["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    (container,) = cluster["spec"][part]["spec"]["containers"]
    assert container["command"] == ["python", "-m", program.__name__]
    program.main.make_context(part, [*container["args"], *(["tcp://x:1"] if part == "worker" else [])])


def test_the_replay_of_kubernetes_finds_its_scheduler() -> None:
    from recon_node.cli.replay import command

    cluster = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    job = yaml.safe_load((FOLDER / "kubernetes-replay.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    name, *arguments = container["args"]
    given = command.make_context(name, arguments).params
    port = cluster["spec"]["scheduler"]["service"]["ports"][0]["port"]
    assert given["scheduler"] == f"tcp://{cluster['metadata']['name']}-scheduler:{port}"
    assert given["resume"]
