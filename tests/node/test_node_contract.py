"""What others rely on: commands, options, exit codes, summary fields and Python names stay as they are."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import recon_node
from recon_node import coils, model, prep, prompts, simulate
from recon_node.cli import cli, run
from recon_node.cli.reference import commands
from recon_node.core import errors
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.settings import Settings

OPTIONS = {
    "demo": {"--out", "--seed", "--json"},
    "simulate": {
        *("--acceleration", "--pattern", "--coils", "--slices", "--phases", "--matrix"),
        *("--field", "--vendor", "--modality", "--seed", "--truth"),
    },
    "inspect": {"--json"},
    "replay": {
        *("--out", "--method", "--weights", "--device", "--workers", "--scheduler", "--resume", "--to"),
        "--json",
    },
    "serve": {"--host", "--port", "--config"},
    "send": {"--host", "--port", "--config", "--out", "--json"},
    "export": {"--to", "--json"},
    "spool list": {"--json"},
    "spool retry": set(),
    "spool purge": set(),
    "echo": set(),
    "train": {"--config"},
    "evaluate": {"--json"},
    "weights list": {"--json"},
    "weights verify": {"--json"},
    "weights import": set(),
    "doctor": {"--json"},
}


@pytest.mark.parametrize("words", OPTIONS)
def test_every_command_has_its_options(words: str) -> None:
    command = dict(commands())[words]
    found = {option for parameter in command.params for option in parameter.opts}
    assert found >= OPTIONS[words]


def test_the_words_of_options_stay() -> None:
    def choices(command: str, option: str) -> set[str]:
        parameter = next(p for p in dict(commands())[command].params if option in p.opts)
        assert isinstance(parameter.type, click.Choice)
        return set(parameter.type.choices)

    assert choices("replay", "--device") == {"auto", "cpu", "cuda"}
    assert choices("simulate", "--pattern") == {"uniform", "random", "radial"}
    for name in ("cardiomm", "kt", "sense", "zero-filled"):
        assert Settings().replace("recon", method=name).recon.method == name


def test_the_server_listens_on_loopback_port_9002_unless_told_otherwise() -> None:
    assert (Settings().server.host, Settings().server.port) == ("127.0.0.1", 9002)
    assert next(p for p in dict(commands())["send"].params if "--port" in p.opts).default == 9002


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["replay"], 2),
        (["replay", "no-such-file.h5", "--out", "x"], 1),
        (["doctor", "--config", "no-such-file.toml"], 2),
    ],
)
def test_exit_codes_of_the_module(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recon_node", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "invoke", interrupted)
    assert run(["doctor"]) == 130


def test_errors_have_their_tree_and_exit_codes() -> None:
    tree = {
        "SourceError": {"TruncatedStream", "ProtocolError", "UnsupportedScan"},
        "DataError": {"InconsistentReadouts", "CalibrationError"},
        "ModelError": {"WeightsError", "DeviceError"},
        "DeliveryError": {"SpoolCorrupt", "PacsUnreachable", "PacsMisconfigured", "PacsRejected"},
    }
    for base, children in tree.items():
        for name in children:
            assert issubclass(getattr(errors, name), getattr(errors, base))
        assert issubclass(getattr(errors, base), errors.ReconNodeError)
    assert (errors.ReconNodeError.exit_code, errors.ConfigError.exit_code) == (1, 2)
    assert errors.DeviceError.retryable
    assert errors.PacsUnreachable.retryable
    assert not errors.ReconNodeError.retryable


def test_summary_json_has_the_fields_that_programs_read(heart: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(["replay", str(heart[0]), "--out", str(tmp_path), "--method", "sense"]) == 0
    series = json.loads((tmp_path / "summary.json").read_text())["series"]
    assert len(series) == 2
    for entry in series:
        assert entry["input"] == str(heart[0])
        assert entry["method"] == "sense"
        assert entry["weights"].keys() == {"name", "sha256"}
        assert entry["prompts"].keys() == {"metadata", "undersampling"}
        assert entry["sampling"].keys() >= {"pattern", "acceleration", "acs_lines"}
        assert entry["lines"].keys() == {"found", "expected"}
        assert entry["trust"].keys() >= {"verdict", "score", "reasons"}
        assert entry["trust"]["verdict"] in ("pass", "warn", "fallback")
        assert all(isinstance(uid, str) for uid in entry["instances"])
        assert all(value >= 0 for value in entry["seconds"].values())
    written = list(tmp_path.glob("*/*/*.dcm"))
    assert len(written) == sum(len(entry["instances"]) for entry in series)


def test_python_names_take_what_they_took() -> None:
    def takes(function: Any, *names: str) -> None:
        assert set(names) <= set(inspect.signature(function).parameters)

    takes(recon_node.open_scan, "path")
    takes(recon_node.reconstruct, "kspace", "method")
    takes(prompts.metadata_prompt, "header")
    takes(prompts.undersampling_prompt, "sampling")
    takes(model.load_weights, "name_or_path")
    takes(model.import_published, "path")
    takes(
        simulate.simulate_scan,
        "path",
        "acceleration",
        "pattern",
        "coils",
        "slices",
        "phases",
        "seed",
        "truth",
    )
    assert model.CardioMM(model.CardioMMConfig(cascades=1)) is not None


def test_espirit_takes_its_options_in_order(heart: tuple[Path, Path]) -> None:
    kspace = next(recon_node.open_scan(heart[0]))
    assert isinstance(kspace, KSpace)
    assert kspace.data.dtype == np.complex64
    assert kspace.calibration is not None
    maps = coils.espirit(kspace.calibration, (96, 96), 6, 0.02, 1)
    assert isinstance(maps, CoilMaps)
    assert maps.data.shape == (1, 6, 96, 96)
    assert maps.support.shape == (96, 96)
    named = coils.espirit(kspace.calibration, shape=(96, 96), kernel=6, threshold=0.02, maps=1)
    np.testing.assert_array_equal(maps.data, named.data)
    images = recon_node.reconstruct(kspace, method="zero-filled").images
    assert isinstance(images, ImageSeries)
    assert images.data.shape == (8, 96, 96)


@pytest.mark.parametrize("shape", [(64,), (64, 48)])
def test_sampling_is_classified_from_lines_and_from_points(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[::4] = True
    mask[22:42] = True
    found = prep.classify_sampling(mask)
    assert (found.pattern, round(found.acceleration), found.acs) == ("uniform", 4, 20)


@pytest.mark.parametrize("name", ["acquisitions", "buckets", "recon_data"])
def test_the_gadget_module_has_its_functions(name: str) -> None:
    from recon_node import gadget

    assert callable(getattr(gadget, name))
