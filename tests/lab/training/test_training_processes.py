"""Training in processes of its own: kill -9 and resume, and two processes under torchrun with gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from test_training_run import _config

from recon_node.lab.training.config import train_config_from_dict
from recon_node.lab.training.loop import Run
from recon_node.model import CardioMM, load_weights

SCRIPT = """
import json, sys
from pathlib import Path
from recon_node.lab.training.config import train_config_from_dict
from recon_node.lab.training.loop import Run

if __name__ == "__main__":
    Run(train_config_from_dict(json.loads(Path(sys.argv[1]).read_text()))).train()
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def _prepared(
    folder: Path, data: Mapping[str, Any] | None = None, **optim: Any
) -> tuple[list[str], dict[str, Any]]:
    """Arguments that train in `folder`, and the settings."""
    tree = json.loads(json.dumps(_config(folder / "run").as_dict()))
    tree["optim"] |= optim
    tree["data"] |= data or {}
    tree["text"]["dropout"] = 0.0
    (folder / "train.py").write_text(SCRIPT)
    (folder / "settings.json").write_text(json.dumps(tree))
    return [str(folder / "train.py"), str(folder / "settings.json")], tree


def _steps(folder: Path) -> int:
    log = folder / "run" / "log.csv"
    return len(log.read_text().splitlines()) - 1 if log.exists() else 0


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return load_weights(path).net.state_dict()


def test_a_run_under_kill_9_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    arguments, tree = _prepared(tmp_path, steps=9)
    with subprocess.Popen([sys.executable, *arguments], env=ENVIRONMENT) as process:
        while _steps(tmp_path) < 4 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    subprocess.run([sys.executable, *arguments], env=ENVIRONMENT, check=True)
    tree["run"]["out"] = str(tmp_path / "whole")
    whole = _weights(Run(train_config_from_dict(tree)).train())
    resumed = _weights(tmp_path / "run" / "tiny.safetensors")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_two_processes_take_the_steps_of_one_that_accumulates_two_examples(tmp_path: Path) -> None:
    arguments, tree = _prepared(tmp_path, {"windows": 1}, steps=3, accumulate=1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, *arguments], env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    assert _steps(tmp_path) == 3
    tree["run"]["out"], tree["optim"]["accumulate"] = str(tmp_path / "one"), 2
    config = train_config_from_dict(tree)
    torch.manual_seed(config.run.seed)
    start = CardioMM(config.model).state_dict()
    one = _weights(Run(config).train())
    two = _weights(tmp_path / "run" / "tiny.safetensors")
    moved = sum(float((one[name] - start[name]).square().sum()) for name in one if "head." not in name)
    apart = sum(float((one[name] - two[name]).square().sum()) for name in one)
    assert apart < 1e-3 * moved
