"""Replay on a Slurm cluster: workers are batch jobs, one thread each, and end with the replay.

    pip install dask-jobqueue
    python examples/cluster/slurm.py --jobs 8 --memory 8GB -- raw/*.h5 --out images --report
    python examples/cluster/slurm.py --jobs 2 --gpu --partition gpu -- raw/*.h5 --out images
    python examples/cluster/slurm.py --gpu --show       # the job script, nothing is submitted

Run it where jobs can reach it (a login or head node), from the environment in which recon-node is installed.
Raw data, output and `--shared` are folders that all nodes see. What the workers and the scheduler say to each
other is encrypted; the key lies in `--shared` while this runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import dask
from dask_jobqueue import SLURMCluster

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_TRIM_THRESHOLD_": "268435456",  # freed memory is kept for the next step of a slice
}


def cluster(options: argparse.Namespace) -> SLURMCluster:
    """The scheduler, in this process; no worker yet."""
    return SLURMCluster(
        cores=1,
        processes=1,
        memory=options.memory,
        queue=options.partition,
        account=options.account,
        walltime=options.walltime,
        interface=options.interface,
        job_extra_directives=["--gres=gpu:1"] if options.gpu else [],
        worker_extra_args=["--resources", "GPU=1"] if options.gpu else [],
        job_script_prologue=[f"export {name}={value}" for name, value in ENVIRONMENT.items()],
        local_directory="${TMPDIR:-/tmp}",
        security=None if options.show else True,
        shared_temp_directory=str(options.shared),
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    )


def replay(running: SLURMCluster, arguments: list[str]) -> int:
    """Run the command with the cluster's keys."""
    keys = running.security
    settings = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": keys.tls_ca_file,
        "distributed.comm.tls.client.key": keys.tls_client_key,
        "distributed.comm.tls.client.cert": keys.tls_client_cert,
    }
    from recon_node.cli import run

    with dask.config.set(settings):
        return run(["replay", *arguments, "--scheduler", running.scheduler_address])


def main() -> int:
    """Parse the command line, start the jobs, replay, end the jobs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4, help="workers")
    parser.add_argument("--memory", default="8GB", help="of a worker")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--walltime", default="12:00:00")
    parser.add_argument("--interface", help="network interface that the nodes reach, such as ib0")
    parser.add_argument("--gpu", action="store_true", help="workers have a graphics card each")
    parser.add_argument("--shared", type=Path, default=Path.home(), help="for keys while this runs")
    parser.add_argument("--show", action="store_true", help="only print the job script")
    parser.add_argument("arguments", nargs="*", help="of `recon-node replay`, after --")
    options = parser.parse_args()
    with cluster(options) as running:
        if options.show:
            print(running.job_script())  # noqa: T201
            return 0
        running.scale(jobs=options.jobs)
        return replay(running, options.arguments)


if __name__ == "__main__":
    sys.exit(main())
