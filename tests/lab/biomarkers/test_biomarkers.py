"""The heart's numbers: what is computed from areas, what measures, and the command."""

from __future__ import annotations

import base64
import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from recon_node.cli.evaluate import command
from recon_node.core.errors import ConfigError, DataError
from recon_node.lab.biomarkers import (
    BiomarkerStudy,
    Segmentation,
    SliceImages,
    drawn_stacks,
    find_segmenter,
    real_stacks,
    run,
    segmenter_names,
)
from recon_node.lab.biomarkers.acdc import FIELD_MM, VARIABLE, AcdcNetwork
from recon_node.lab.biomarkers.agreement import agreements, pairs
from recon_node.lab.biomarkers.continuity import continuous
from recon_node.lab.biomarkers.contours import expert_areas
from recon_node.lab.biomarkers.measures import against_experts, of_slice, of_stack
from recon_node.lab.biomarkers.report import write_reports
from recon_node.lab.cines import read_cines
from recon_node.lab.evaluation.biomarkers import intraclass_correlation
from recon_node.settings import ReconSettings

NETWORK = base64.b64decode(  # one convolution: bright is cavity, grey is wall, dark is background; 32 x 32
    "CAg6uAEKMgoFaW5wdXQKAXcKAWISBm91dHB1dCIEQ29udioVCgxrZXJuZWxfc2hhcGVAAUABoAEHEgFnKh8IBAgBCAEIARABQgF3ShAA"
    "AAAAAAAAAAAAgD8AAEBAKhkIBBABQgFiShAAAAAAAAAgwZqZmb6amdm/WiAKBWlucHV0EhcKFQgBEhEKAxIBbgoCCAEKAgggCgIIIGIh"
    "CgZvdXRwdXQSFwoVCAESEQoDEgFuCgIIBAoCCCAKAgggQgQKABAN"
)
SIDE = 96


def ring(cavity_mm: float, wall_mm: float) -> np.ndarray:
    """`(y, x)` of pixels of 2.5 mm: a bright disc in a grey ring, on black."""
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE // 2) * 2.5
    r = np.hypot(y, x)
    return np.select([r < cavity_mm, r < cavity_mm + wall_mm], [1.0, 0.5], 0.0).astype(np.float32)


def beating(name: str, folder: Path, **more: object) -> None:
    """A clip of a ring that beats between 25 and 15 mm, in 6 frames."""
    radii = 20 + 5 * np.cos(2 * np.pi * np.arange(6) / 6)
    noise = np.random.default_rng(1).normal(0, 3, (6, SIDE, SIDE))
    cine = np.abs(900 * np.stack([ring(r, 10) for r in radii]) + 40 + noise).astype(np.uint16)
    np.savez(folder / f"{name}.npz", cine=cine, pixel_mm=(2.5, 2.5), field_t=1.5, **more)


def test_the_correlation_within_classes_is_that_of_shrout_and_fleiss() -> None:
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    assert intraclass_correlation(table) == pytest.approx(0.29, abs=0.005)  # their table 4
    assert intraclass_correlation(np.array([[1, 1], [2, 2], [5, 5]])) == pytest.approx(1)
    with pytest.raises(DataError, match="at least 2 cases"):
        intraclass_correlation(np.ones((1, 2)))
    with pytest.raises(DataError, match="all scores are the same"):
        intraclass_correlation(np.ones((3, 2)))


def test_volumes_are_sums_of_slices() -> None:
    cavity = np.array([[20.0, 15.0, 10.0], [10.0, 8.0, 5.0]])  # cm2
    wall = np.array([[12.0, 12.0, 12.0], [8.0, 8.0, 8.0]])
    found = of_stack(cavity, wall, pitch_mm=10.0)
    assert found["edv"] == pytest.approx(30)
    assert found["esv"] == pytest.approx(15)
    assert (found["sv"], found["ef"]) == pytest.approx((15, 50))
    assert found["mass"] == pytest.approx(21)
    radii = [(np.sqrt((c + w) / np.pi) - np.sqrt(c / np.pi)) * 10 for c, w in ((20, 12), (10, 8))]
    assert found["thickness"] == pytest.approx(np.mean(radii))
    one = of_slice(cavity[0], wall[0])
    assert (one["eda"], one["esa"], one["fac"], one["wall"]) == pytest.approx((20, 10, 50, 12))
    assert of_slice(0 * cavity[0], wall[0]) == {"eda": 0, "esa": 0, "wall": 0}
    assert of_stack(0 * cavity, wall, 10) == {}


def test_experts_are_compared_in_their_own_slices_and_frames() -> None:
    cavity = np.array([[5.0, 9.0, 7.0], [4.0, 30.0, 20.0], [1.0, 12.0, 6.0]])
    experts = [{}, {2: 22.0, 1: 28.0}, {1: 10.0, 2: 8.0}]
    ours, theirs = against_experts(cavity, 10.0, experts) or ({}, {})
    assert (ours["edv"], ours["esv"]) == pytest.approx((42, 26))
    assert (theirs["edv"], theirs["esv"]) == pytest.approx((38, 30))
    assert theirs["ef"] == pytest.approx(100 * 8 / 38)
    assert against_experts(cavity, 10.0, [{}, {1: 4.0}, {}]) is None


def test_clips_make_a_stack_where_their_places_are_even(tmp_path: Path) -> None:
    square = np.array([[10, 10], [30, 10], [30, 20], [10, 20]])
    for place in (0, 1, 2):
        drawn = {"endocardium_0": square, "endocardium_3": square[:3]} if place == 1 else {}
        beating(f"case_slp{8 * place:03d}.5", tmp_path, slice_mm=8.0 * place, **drawn)
    for place in (0, 8, 30):
        beating(f"gap_sl{place}", tmp_path, slice_mm=float(place))
    beating("lone", tmp_path)
    told: list[str] = []
    found = real_stacks(read_cines(tmp_path), tmp_path, tell=told.append)
    assert [(one.name, one.pitch_mm, len(one.slices)) for one in found] == [
        ("case", 8.0, 3),
        ("gap_sl0", None, 1),
        ("gap_sl8", None, 1),
        ("gap_sl30", None, 1),
        ("lone", None, 1),
    ]
    assert told == ["gap: 3 clips are no stack (places not known or not even): areas, no volumes"]
    areas = [one.expert_cm2 for one in found[0].slices]
    assert areas == [{}, {0: pytest.approx(200 * 6.25 / 100), 3: pytest.approx(100 * 6.25 / 100)}, {}]
    beating("bad", tmp_path, endocardium_9=square)
    with pytest.raises(DataError, match="endocardium_9"):
        real_stacks(read_cines(tmp_path, only=["bad"]), tmp_path)


class Thresholds:
    """A segmenter of another package: bright, grey, black."""

    name = "its own name"
    calls = 0

    def segment(self, images: SliceImages) -> Segmentation:
        type(self).calls += 1
        level = images.images / np.quantile(images.images, 0.999)
        cavity, inside = level > 0.75, level > 0.3
        return Segmentation(
            cavity=cavity.astype(np.float32),
            wall=(inside & ~cavity).astype(np.float32),
            pixel_mm=images.pixel_mm,
        )


class Broken:
    name = "broken"

    def segment(self, images: SliceImages) -> Segmentation:
        raise ZeroDivisionError("no luck")


class Odd(Broken):
    def segment(self, images: SliceImages) -> np.ndarray:  # type: ignore[override]
        return images.images


def nothing(images: object) -> None:
    """No segmenter."""


def test_a_segmenter_has_a_name_or_an_address_and_is_held_to_its_word() -> None:
    assert segmenter_names()[:2] == ("exact", "acdc")
    seen = SliceImages(images=ring(25, 10)[None], pixel_mm=(2.5, 2.5), centre=(48, 48))
    cavity, wall = find_segmenter(f"{__name__}:Thresholds").segment(seen).areas_cm2()
    assert cavity == pytest.approx(np.pi * 2.5**2, rel=0.05)
    assert wall == pytest.approx(np.pi * (3.5**2 - 2.5**2), rel=0.05)
    for name, wrong in (("Broken", "ZeroDivisionError: no luck"), ("Odd", "returned ndarray")):
        with pytest.raises(DataError, match=wrong):
            find_segmenter(f"{__name__}:{name}").segment(seen)
    with pytest.raises(ConfigError, match="expected one of exact, acdc"):
        find_segmenter("nnunet")
    with pytest.raises(ConfigError, match="cannot be made"):
        find_segmenter(f"{__name__}:nothing")
    with pytest.raises(DataError, match="drawn hearts only"):
        find_segmenter("exact").segment(seen)


def check_network(network: AcdcNetwork) -> None:
    images = SliceImages(images=np.stack([ring(60, 30), ring(40, 30)]), pixel_mm=(2.5, 2.5), centre=(48, 48))
    found = network.segment(images)
    assert found.pixel_mm == (FIELD_MM / 32, FIELD_MM / 32)
    cavity, wall = found.areas_cm2()
    assert cavity == pytest.approx(np.pi * np.array([6.0, 4.0]) ** 2, rel=0.15)
    assert wall == pytest.approx(np.pi * np.array([9.0**2 - 6.0**2, 7.0**2 - 4.0**2]), rel=0.2)


def test_a_network_is_shown_the_heart_and_its_classes_become_areas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    file.write_bytes(NETWORK)
    monkeypatch.setenv(VARIABLE, str(file))
    check_network(AcdcNetwork())
    file.write_bytes(b"no network")
    with pytest.raises(ConfigError, match="no network that ONNX Runtime reads"):
        AcdcNetwork()


class Session:
    """Stands for ONNX Runtime's: the same convolution."""

    def __init__(self, path: str, **_: object) -> None:
        assert Path(path).read_bytes() == NETWORK

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="input", shape=["n", 1, 32, 32])]

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        x = given["input"]
        return [np.concatenate([0 * x, 0 * x - 10, x - 0.3, 3 * x - 1.7], axis=1)]


class Blinded(Session):
    """Sees nothing where there is something bright in the upper part of an image."""

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        (scores,) = super().run(None, given)
        if given["input"][0, 0, :8].max() > 0.5:
            scores[:, 1:] -= 2
        return [scores]


def test_a_ventricle_lost_in_one_frame_is_looked_for_from_all_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Blinded)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "net.onnx").write_bytes(NETWORK)
    frames = np.stack([ring(50, 20)] * 5)
    frames[3, 8:18, 44:54] = 1  # above the heart
    images = SliceImages(images=frames, pixel_mm=(2.5, 2.5), centre=(48, 48))
    cavity, _ = AcdcNetwork(tmp_path / "net.onnx").segment(images).areas_cm2()
    assert cavity[3] == pytest.approx(cavity[0], rel=0.1)
    assert cavity[0] == pytest.approx(np.pi * 5.0**2, rel=0.15)


class Blind(Session):
    """Sees nothing in images with something bright in a corner, whichever way they are turned."""

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        (scores,) = super().run(None, given)
        rims = given["input"][0, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
        if rims.max() > 0.5:
            scores[:, 1:] -= 10
        return [scores]


@pytest.mark.parametrize("lost", [(9, 10, 11), (19, 0)], ids=["end-systole", "across-the-end-of-the-cycle"])
def test_a_ventricle_that_stays_lost_is_taken_from_the_frames_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...]
) -> None:
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Blind)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "net.onnx").write_bytes(NETWORK)
    radii = 50 + 10 * np.cos(2 * np.pi * np.arange(20) / 20)
    frames = np.stack([ring(r, 20) for r in radii])
    images = SliceImages(images=frames, pixel_mm=(2.5, 2.5), centre=(48, 48))
    network = AcdcNetwork(tmp_path / "net.onnx")
    whole, whole_wall = network.segment(images).areas_cm2()
    marked = np.pad(frames, ((0, 0), (40, 40), (40, 40)))
    far = round(FIELD_MM / 2 / 2.5)
    for place in lost:
        for row, column in (
            (88 - far, 88 - far),
            (88 - far, 88 + far),
            (88 + far, 88 - far),
            (88 + far, 88 + far),
        ):
            marked[place, row - 4 : row + 5, column - 4 : column + 5] = 1
    images = SliceImages(images=marked, pixel_mm=(2.5, 2.5), centre=(88, 88))
    cavity, wall = network.segment(images).areas_cm2()
    assert cavity == pytest.approx(whole, rel=0.15)
    assert wall == pytest.approx(whole_wall, rel=0.25)  # of the network's pixels, 10 mm wide


def test_a_cavity_that_closes_slowly_grows_no_larger_than_around() -> None:
    y, x = np.mgrid[:48, :48] - 24
    away = np.hypot(y, x)
    radii = np.array([9, 8, 7, 5, 4, 3, 2, 0, 0, 0, 2, 3, 5, 6, 8, 9, 10, 10, 10, 10])
    cavity = away < radii[:, None, None]
    wall = (away < 14) & ~cavity
    same, same_wall = continuous(cavity, wall, least=0.5)
    assert same[7:10].sum(axis=(1, 2)).max() <= cavity[6].sum()
    assert np.array_equal(same[10:], cavity[10:])
    assert np.array_equal(same | same_wall, cavity | wall)
    none = np.zeros_like(cavity)
    assert continuous(none, none, least=0.5)[0].sum() == 0


def test_the_network_runs_the_same_without_the_real_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "net.onnx").write_bytes(NETWORK)
    check_network(AcdcNetwork(tmp_path / "net.onnx"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.onnx"))
    with pytest.raises(ConfigError, match=f"{VARIABLE} names no file: pip install"):
        AcdcNetwork()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("recon_node.lab.biomarkers.acdc.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="found no package myopari"):
        AcdcNetwork()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="needs ONNX Runtime"):
        AcdcNetwork(tmp_path / "net.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn hearts by zero filling, from almost all lines and from few."""
    out = tmp_path_factory.mktemp("biomarkers")
    words = "biomarkers --scans 2 --slices 3 --phases 4 --matrix 64 --coils 4 --methods zero-filled"
    arguments = [*words.split(), "--acceleration", "1.2,16", "--out", str(out), "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "biomarkers.json").read_text())
    return out


def test_more_undersampling_costs_more_of_the_numbers(folder: Path) -> None:
    report = json.loads((folder / "biomarkers.json").read_text())
    wrong = {"random 1.2x": [], "random 16x": []}
    for pair in report["pairs"]:
        if pair["reference"] == "full" and pair["biomarker"] in ("eda", "esa"):
            wrong[pair["condition"]].append(abs(pair["measured"] - pair["expected"]))
    assert len(wrong["random 16x"]) == 12  # both areas of three slices of two hearts
    assert np.mean(wrong["random 1.2x"]) < 0.5 * np.mean(wrong["random 16x"])
    shape = [p for p in report["pairs"] if p["reference"] == "shape" and p["condition"] == "fully sampled"]
    for pair in shape:
        if pair["biomarker"] == "edv":
            assert pair["measured"] == pytest.approx(pair["expected"], rel=0.25)
    (row,) = [
        row
        for row in report["agreement"]
        if (row["condition"], row["reference"], row["biomarker"]) == ("random 16x", "full", "ef")
    ]
    assert row["count"] == 2
    assert row["low"] < row["bias"] < row["high"]


def test_the_page_has_charts_and_the_table_every_number(folder: Path) -> None:
    page = (folder / "biomarkers.html").read_text()
    assert "Left ventricular numbers" in page
    assert page.count("<svg") >= 2
    assert "limits of agreement" in (folder / "biomarkers.md").read_text()
    lines = (folder / "biomarkers.csv").read_text().splitlines()
    assert lines[0].startswith("source,unit,condition,method,reference,biomarker")
    assert len(lines) == 1 + len(json.loads((folder / "biomarkers.json").read_text())["pairs"])


def test_clips_without_a_stack_have_areas_and_a_second_run_measures_nothing(tmp_path: Path) -> None:
    hearts = tmp_path / "hearts"
    hearts.mkdir()
    beating("lone", hearts)
    stacks = tuple(real_stacks(read_cines(hearts), hearts, size=64, coils=4))
    study = BiomarkerStudy(stacks=stacks, methods=("zero-filled",), accelerations=(2,))
    segmenter = find_segmenter(f"{__name__}:Thresholds")
    recon = ReconSettings(device="cpu")
    assert run(study, segmenter, recon, tmp_path / "out", minutes=0) == []
    before = Thresholds.calls
    records = run(study, segmenter, recon, tmp_path / "out")
    assert run(study, segmenter, recon, tmp_path / "out") == records
    assert Thresholds.calls == before + study.total == before + 2
    names = {row.biomarker for row in agreements(pairs(records))}
    assert names == {"eda", "esa", "fac", "wall", "slice_thickness"}
    write_reports(records, tmp_path / "out", segmenter=segmenter.name)
    told = (tmp_path / "out" / "biomarkers.md").read_text()
    assert "no volumes and no ejection fraction" in told.replace("\n", " ")
    with pytest.raises(DataError, match="nothing to compare"):
        write_reports([], tmp_path / "out", segmenter="x")


def test_scans_of_one_heart_differ_and_are_not_taken_for_patients(tmp_path: Path) -> None:
    hearts = tmp_path / "hearts"
    hearts.mkdir()
    for place in (0, 1, 2):
        beating(f"case_sl{place}", hearts, slice_mm=8.0 * place)
    cines = read_cines(hearts)
    stacks = tuple(real_stacks(cines, hearts, size=64, coils=4, repeats=3))
    assert [one.name for one in stacks] == ["case", "case #1", "case #2"]
    first, second = (one.slices[0].make() for one in stacks[:2])
    assert not np.allclose(first.maps, second.maps)
    once = real_stacks(cines, hearts, size=64, coils=4)[0].slices[0].make()
    assert np.array_equal(first.kspace, once.kspace)  # more scans leave the first as it was
    study = BiomarkerStudy(stacks=stacks, methods=("zero-filled",), accelerations=(4,))
    records = run(study, find_segmenter(f"{__name__}:Thresholds"), ReconSettings(device="cpu"), tmp_path)
    report = write_reports(records, tmp_path, segmenter="x")
    (ef,) = [row for row in report["agreement"] if row["biomarker"] == "ef"]
    assert (ef["count"], ef["method"]) == (3, "zero-filled")
    told = (tmp_path / "biomarkers.md").read_text().replace("\n", " ")
    assert "1 real stack:" in told
    assert "3 scans of 1 real heart:" in told
    assert "not of patients" in told


def stacks_measured(hearts: int, scans: int = 1) -> list[dict]:
    """Fully sampled hearts of EF 50, and scans of them that are 1, 2, 3, ... points off."""
    found = []
    for heart in range(hearts):
        for scan in range(scans):
            stack = f"heart {heart}" + (f" #{scan}" if scan else "")
            for condition, smallest in (("fully sampled", 5.0), ("random 16x", 5.0 - 0.1 * (heart + 1))):
                found.append(
                    {
                        "source": "real",
                        "stack": stack,
                        "slice": f"{stack} slice",
                        "place": 0,
                        "pitch_mm": 10.0,
                        "condition": condition,
                        "method": "m" if condition == "random 16x" else condition,
                        "cavity_cm2": [10.0, smallest],
                        "wall_cm2": [8.0, 8.0],
                        "expert_cm2": {},
                        "true_ml": None,
                    }
                )
    return found


def bound_of_ef(records: list[dict]) -> float | None:
    (row,) = [one for one in agreements(pairs(records)) if one.biomarker == "ef"]
    return row.bound


def test_nine_hearts_bound_the_error_of_the_next_in_nine_of_ten_cases(tmp_path: Path) -> None:
    assert bound_of_ef(stacks_measured(8)) is None
    assert bound_of_ef(stacks_measured(9)) == pytest.approx(9)
    assert bound_of_ef(stacks_measured(19)) == pytest.approx(18)
    assert bound_of_ef(stacks_measured(3, scans=5)) is None  # scans of a heart are no hearts
    write_reports(stacks_measured(9), tmp_path, segmenter="x")
    assert "90% within" in (tmp_path / "biomarkers.md").read_text()


def test_slices_of_a_drawn_stack_are_of_one_heart_with_noise_of_their_own() -> None:
    (stack,) = drawn_stacks(1, slices=2, phases=3, matrix=48, coils=3)
    first, second = (one.make() for one in stack.slices)
    again = stack.slices[0].make()
    assert np.array_equal(first.kspace, again.kspace)
    assert first.metadata == second.metadata
    noise = [scan.kspace - np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(
        scan.maps[None] * scan.images[:, None], axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
        for scan in (first, second)]  # fmt: skip
    assert np.mean(np.abs(noise[0]) ** 2) == pytest.approx(1, abs=0.1)
    assert abs(np.vdot(noise[0], noise[1])) < 0.1 * np.linalg.norm(noise[0]) * np.linalg.norm(noise[1])


def test_contours_that_claim_more_than_a_cine_may_hold_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "clip.npz"
    clip = {"cine": np.ones((2, 32, 32), np.float32), "pixel_mm": np.array([2.0, 2.0])}
    square = np.array([[0, 0], [5, 0], [5, 4], [0, 4]])
    np.savez(path, **clip, endocardium_1=square)
    (cine,) = read_cines(tmp_path)
    assert expert_areas(tmp_path, cine) == {1: pytest.approx(0.8)}
    with zipfile.ZipFile(path, "a") as file, file.open("endocardium_0.npy", "w") as member:
        head = {"descr": "<f8", "fortran_order": False, "shape": (10**10, 2)}
        np.lib.format.write_array_header_1_0(member, head)
    with pytest.raises(DataError, match="clip"):
        expert_areas(tmp_path, cine)
