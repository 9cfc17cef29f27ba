"""The benchmark of devices runs on the CPU, and calls equal what is equal."""

from __future__ import annotations

import pytest

from benchmarks import gpu
from recon_node.model import CardioMMConfig, UNetConfig


def test_every_work_is_measured_and_a_device_agrees_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    unet = UNetConfig(stem=8, levels=(8, 8, 8), prompts=(4, 4, 4), bank_sizes=(8, 4, 2))
    kspace = gpu.drawn(coils=4, phases=2, matrix=48)
    found = gpu.measure(kspace, ["cpu"], CardioMMConfig(cascades=1, unet=unet, text_features=384), repeats=1)
    assert len(found) == 5
    assert all(row["cpu"][0] > 0 and row["cpu"][1] == 0 for row in found.values())
    gpu.report(found, ["cpu"])
    table = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == list(found)
