"""Memory that really runs out: a process whose address space is limited."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, re, resource
import numpy as np
import torch
from benchmarks.runner import slice_of, text_of
from recon_node.methods.cardiomm import CardioMMReconstructor
from recon_node.model import load_weights

torch.set_num_threads(1)
weights = load_weights("default")
kspace, maps = slice_of(96, 16)
text = text_of(weights)
wanted = CardioMMReconstructor(weights, device="cpu", chunk=1).reconstruct(kspace, maps, text).data
used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (70 << 20),) * 2)
runner = CardioMMReconstructor(weights, device="cpu", chunk=16)
found = runner.reconstruct(kspace, maps, text).data
error = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
print(json.dumps({"chunk": runner.chunk, "error": error}), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_a_slice_that_does_not_fit_whole_is_reconstructed_in_parts() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["chunk"] < 16
    assert found["error"] < 1e-5
