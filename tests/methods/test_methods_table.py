from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_node.cli import run
from recon_node.core.errors import ConfigError, DataError, ModelError
from recon_node.methods.registry import find_method, make_methods, stand_in, title_of
from recon_node.methods.table import BUILT_IN, CLASSICAL, LEARNED, check_method, is_address, method_names
from recon_node.pipeline.row import Pipeline
from recon_node.settings import ReconSettings, Settings
from recon_node.testing import Scene
from recon_node.trust import Limits, TrainedOn

CODE = '''
import sys
import dataclasses
import numpy as np
from recon_node.core.fft import centred_ifft
from recon_node.methods.record import LoadedMethod, MethodRecord
from recon_node.methods.sense import Sense
from recon_node.trust import Limits, TrainedOn

class Plain:
    """Coils combined, no more.

    The rest of this is not for a list.
    """
    def reconstruct(self, kspace, maps, text):
        return np.einsum("cyx,pcyx->pyx", maps.data[0].conj(), centred_ifft(kspace.data))

class Told(Plain):
    name, version, learned, validated = "told", "7", False, True
    limits, trained_on = Limits(), TrainedOn(max_acceleration=4)
    weights, weights_sha256 = "of mine", "ab" * 32
    def __init__(self, device, threads, weights="none chosen"):
        self.given = (device, threads, weights)

class Garbage(Plain):
    def reconstruct(self, kspace, maps, text):
        return np.random.default_rng(0).standard_normal(kspace.mask.shape) * 1e3 + 0j

class Smoothed(Plain):
    validated, weights_sha256 = True, "cd" * 32
    def __init__(self):
        self.sense = Sense(device="cpu")
    def reconstruct(self, kspace, maps, text):
        made = self.sense.reconstruct(kspace, maps)
        return dataclasses.replace(made, data=made.data * np.float32(0.5))

class Failing(Plain):
    def reconstruct(self, kspace, maps, text):
        raise KeyError("layer 3\\nand more")

class OfAnotherShape(Plain):
    def reconstruct(self, kspace, maps, text):
        return super().reconstruct(kspace, maps, text)[0]

class Integers(Plain):
    def reconstruct(self, kspace, maps, text):
        return np.ones(kspace.mask.shape, int)

class Nothing(Plain):
    def reconstruct(self, kspace, maps, text):
        return None

class Unmakeable(Plain):
    def __init__(self):
        raise FileNotFoundError("weights.bin")

class Posing(Plain):
    name = "sense"

class Declaring(Plain):
    limits = {"heldout_ratio": 1}

class Leaving(Plain):
    def __init__(self):
        sys.exit(3)

class Exiting(Plain):
    def reconstruct(self, kspace, maps, text):
        sys.exit(3)

class Unreadable(Plain):
    @property
    def encoder(self):
        raise LookupError("no encoder")

class NoMethod:
    pass

RECORD = MethodRecord(
    name="by record", summary="", learned=False, built_in=True,
    load=lambda options: LoadedMethod(reconstructor=Plain()),
)
'''


@pytest.fixture
def mine(install: Callable[..., None]) -> None:
    """An installed package with methods of all kinds; ``plain`` and ``sense`` are entry points."""
    install("mine", CODE, version="3.1", recon_node__methods="plain = mine:Plain\nsense = mine:Garbage")


def chosen(name: str, **recon: object) -> Settings:
    return Settings().replace("recon", method=name, device="cpu", **recon)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(phases=5, coils=6, ny=48, nx=40)


NEW_FILE = """
from recon_node.methods.record import classical
from recon_node.methods.zero_filled import ZeroFilled

class Newest(ZeroFilled):
    name = "newest"

METHOD = classical("newest", "Made up for a test.", lambda device: Newest(), label="Newest")
"""
NEW_LINE = """
import sys
from recon_node.methods import table
table.CLASSICAL["newest"] = table.BUILT_IN["newest"] = "newest:METHOD"  # the line in the table
"""
EVERYWHERE = """
import json
from recon_node.cli import run
from recon_node.cli.reference import commands_page, settings_page
from recon_node.settings import with_properties
from recon_node.methods.registry import find_method, make_methods, title_of
from recon_node.settings import Settings

assert "newest" in commands_page() and "newest" in settings_page()
settings = with_properties(Settings(), {"method": "newest", "fallback": "newest"})
assert make_methods(settings.recon).chosen.name == "newest"
assert title_of("newest") == "Newest"
assert run(["openrecon", "label"]) == 0
assert run(["evaluate", "--help"]) == 0
"""


def test_a_new_built_in_method_is_one_file_and_one_line_of_the_table(tmp_path: Path) -> None:
    """With these two, commands, pages, settings, chains and the scanner's card have it."""
    (tmp_path / "newest.py").write_text(NEW_FILE)
    code = NEW_LINE + EVERYWHERE
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    label, _, help_text = done.stdout.rpartition("Usage:")
    choices = {p["id"]: [v["id"] for v in p.get("values", ())] for p in json.loads(label)["parameters"]}
    assert "newest" in choices["method"]
    assert "newest" in choices["fallback"]
    assert "newest" in help_text


def test_no_other_file_has_a_list_of_the_methods(pytestconfig: pytest.Config) -> None:
    package = pytestconfig.rootpath / "recon_node"
    for file in package.rglob("*.py"):
        if file.parent != package / "methods":
            named = {name for name in BUILT_IN if re.search(rf"[\"']{name}[\"']", file.read_text())}
            assert len(named) <= len(BUILT_IN) // 2, f"{file} names {named}"


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_line_of_the_table_leads_to_a_record_of_that_name(name: str) -> None:
    record = find_method(name)
    assert record.name == name
    assert record.built_in
    assert record.learned == (name in LEARNED)
    assert 10 < len(record.summary) <= 100
    assert title_of(name) == record.label != ""


def test_classical_methods_are_ready_without_any_weights() -> None:
    for name in CLASSICAL:
        methods = make_methods(ReconSettings(method=name, device="cpu", weights="none such"))
        assert methods.chosen.name == name
        assert (methods.learned, methods.calibrated) == (False, True)


def test_the_network_is_learned_and_calibrated_as_shipped() -> None:
    methods = make_methods(ReconSettings(device="cpu"))
    assert (methods.learned, methods.calibrated, methods.validated) == (True, True, False)
    assert methods.encoder is not None
    assert methods.trained_on is not None


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "shown"), [("plain", "plain"), ("mine:Plain", "Plain"), ("mine:Told", "told")]
)
def test_a_method_comes_by_entry_point_or_by_address(name: str, shown: str, scene: Scene) -> None:
    result = Pipeline(chosen(name)).run(scene.kspace(scene.lines(1.0)))
    made = result.images.made_by
    assert made.method == shown
    assert made.package == "mine"
    assert made.version == ("7" if shown == "told" else "3.1")
    assert result.images.trigger_times_ms == result.kspace.trigger_times_ms


@pytest.mark.usefixtures("mine")
def test_a_built_in_name_stays_the_built_in_methods() -> None:
    assert make_methods(ReconSettings(method="sense")).record.built_in
    assert method_names() == (*BUILT_IN, "plain")


@pytest.mark.usefixtures("mine")
def test_what_a_class_does_not_say_is_assumed_so_that_it_does_no_harm() -> None:
    methods = make_methods(ReconSettings(method="mine:Plain"))
    assert (methods.learned, methods.calibrated, methods.validated) == (True, False, False)
    assert (methods.limits, methods.trained_on, methods.encoder) == (None, None, None)
    assert methods.record.summary == "Coils combined, no more."


@pytest.mark.usefixtures("mine")
def test_what_a_class_says_of_itself_counts() -> None:
    methods = make_methods(ReconSettings(method="mine:Told", weights="w", threads=2, device="cpu"))
    assert (methods.learned, methods.calibrated, methods.validated) == (False, True, True)
    assert isinstance(methods.limits, Limits)
    assert methods.trained_on == TrainedOn(max_acceleration=4)
    assert methods.chosen.inner.given == ("cpu", 2, "w")
    default = make_methods(ReconSettings(method="mine:Told", device="cpu"))
    assert default.chosen.inner.given == ("cpu", 1, "none chosen")


@pytest.mark.usefixtures("mine")
def test_a_record_of_another_package_cannot_pass_for_a_built_in_one() -> None:
    methods = make_methods(ReconSettings(method="mine:RECORD"))
    assert methods.record.name == "by record"
    assert not methods.record.built_in
    assert not methods.calibrated


@pytest.mark.usefixtures("mine")
def test_without_limits_of_its_own_a_method_is_never_passed(scene: Scene) -> None:
    kspace = scene.kspace(scene.lines(1.2))
    assert Pipeline(chosen("sense")).run(kspace).verdict.verdict == "pass"
    for name in ("mine:Plain", "mine:RECORD"):
        verdict = Pipeline(chosen(name)).run(kspace).verdict
        assert verdict.verdict != "pass"
        assert any("no trust limits of its own" in reason for reason in verdict.reasons)


@pytest.mark.usefixtures("mine")
def test_weights_without_limits_are_never_passed_either(scene: Scene) -> None:
    pipeline = Pipeline(chosen("cardiomm"))
    pipeline.methods = replace(pipeline.methods, limits=None)
    verdict = pipeline.run(scene.kspace(scene.lines(2))).verdict
    assert verdict.verdict != "pass"
    assert any("no trust limits of its own" in reason for reason in verdict.reasons)


@pytest.mark.usefixtures("mine")
def test_a_foreign_methods_images_are_withheld_where_they_fail(scene: Scene) -> None:
    kspace = scene.kspace(scene.lines(2))
    withheld = Pipeline(chosen("mine:Garbage")).run(kspace)
    assert withheld.verdict.verdict == "fallback"
    assert withheld.images.made_by.method == "sense"
    kept = Pipeline(chosen("mine:Garbage", on_distrust="warn")).run(kspace)
    assert kept.verdict.verdict == "warn"
    assert kept.images.made_by.method == "Garbage"


@pytest.mark.usefixtures("mine")
def test_a_series_that_another_method_made_carries_the_name_and_version_of_who_changed_it(
    scene: Scene,
) -> None:
    made = make_methods(ReconSettings(method="mine:Smoothed")).chosen.reconstruct(
        scene.kspace(), scene.maps, None
    )
    assert (made.made_by.method, made.made_by.package, made.made_by.version) == ("Smoothed", "mine", "3.1")
    assert made.made_by.weights_sha256 == "cd" * 32
    assert made.made_by.settings["iterations"]


@pytest.mark.usefixtures("mine")
def test_what_stands_in_for_a_validated_method_is_not_validated_by_that(scene: Scene) -> None:
    kspace = scene.kspace(scene.lines(2))
    kept = Pipeline(chosen("mine:Smoothed", on_distrust="warn")).run(kspace)
    assert (kept.images.made_by.method, kept.validated) == ("Smoothed", True)
    withheld = Pipeline(chosen("mine:Smoothed")).run(kspace)
    assert (withheld.images.made_by.method, withheld.validated) == ("sense", False)


@pytest.mark.usefixtures("mine")
def test_one_that_learned_nothing_may_stand_in_and_others_may_not() -> None:
    assert stand_in("mine:Told", ReconSettings(device="cpu")).name == "told"
    with pytest.raises(ConfigError, match=r"recon.fallback: found mine:Plain.*learned = False"):
        make_methods(ReconSettings(method="sense", fallback="mine:Plain"))


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("mine:Missing", "cannot be imported"),
        ("no_such_module:Plain", "cannot be imported"),
        ("mine:Unmakeable", "cannot be made: FileNotFoundError: weights.bin"),
        ("mine:Leaving", "cannot be made: SystemExit: 3"),
        ("mine:Unreadable", "its encoder cannot be read: LookupError"),
        ("mine:NoMethod", "has no method reconstruct"),
        ("mine:Posing", "calls itself 'sense'"),
        ("mine:Declaring", "declares limits as dict, expected Limits"),
        ("magic", "expected one of cardiomm"),
        ("mine:", "expected one of cardiomm"),
        ("a b:C", "expected one of cardiomm"),
    ],
)
def test_a_method_that_cannot_be_had_is_one_line_and_exit_status_2(
    name: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "scan.h5"
    scan.touch()
    assert run(["replay", str(scan), "--out", str(tmp_path), "--method", name]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert word in told
    assert len(told) <= 320


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Failing", "method Failing failed: KeyError: 'layer 3"),
        ("Exiting", "method Exiting failed: SystemExit: 3"),
        ("OfAnotherShape", r"returned \(48, 40\) complex64, expected"),
        ("Integers", "returned .* int64, expected"),
        ("Nothing", "returned NoneType, expected"),
    ],
)
def test_what_goes_wrong_in_a_foreign_method_is_a_model_error_of_one_line(
    name: str, word: str, scene: Scene
) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        Pipeline(chosen(f"mine:{name}")).run(scene.kspace())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


@pytest.mark.usefixtures("mine")
def test_a_foreign_method_never_sees_what_no_method_can_use(scene: Scene) -> None:
    kspace = scene.kspace()
    with pytest.raises(DataError, match="NaN"):
        make_methods(ReconSettings(method="mine:Failing")).chosen.reconstruct(
            replace(kspace, data=np.full_like(kspace.data, np.nan)), scene.maps, None
        )


@given(st.text(max_size=40))
def test_any_text_is_a_method_or_one_clear_error(name: str) -> None:
    if name in BUILT_IN or is_address(name):
        assert check_method(name) == name
        return
    with pytest.raises(ConfigError) as caught:
        check_method(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300
