from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from recon_node.cli.evaluate import command
from recon_node.core.errors import ConfigError, DataError
from recon_node.lab.readers import Shown, export_pairs, read_scores, reader_statistics
from recon_node.lab.readers.statistics import read_key, weighted_kappa


def shown(hearts=6, methods=("fine", "poor")):
    for heart in range(hearts):
        rng = np.random.default_rng(heart)
        images = rng.random((3, 40, 32)) + 1j * rng.random((3, 40, 32))
        for place, method in enumerate(methods):
            yield Shown(
                heart=f"patient {heart}", condition="random 8x", method=method, images=images * (1 + place)
            )


def fill(folder, key, name, prefer, *, reader=""):
    """A reader who gives `prefer` 5 and everything else 2."""
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        sides = {side: key[row["pair"]][side] for side in ("left", "right")}
        row |= {side: "5" if method == prefer else "2" for side, method in sides.items()}
        row["preferred"] = next(side for side, method in sides.items() if method == prefer)
        row["reader"] = reader
    path = folder.parent / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_nothing_in_the_readers_folder_tells_which_side_is_which(tmp_path):
    key = export_pairs(shown(), tmp_path, repeats=0.5, seed=2)
    assert len(key) == 9
    assert {entry["left"] for entry in key} == {"fine", "poor"}
    folder = tmp_path / "pairs"
    for path in folder.iterdir():
        assert not any(word in path.name for word in ("fine", "poor", "patient"))
        assert not any(word in path.read_bytes() for word in (b"fine", b"poor", b"patient"))
    assert not (folder / "key.json").exists()
    assert read_key(tmp_path / "key.json")["001"] == key[0]
    assert export_pairs(shown(), tmp_path / "again", repeats=0.5, seed=2) == key


def test_both_sides_share_a_window_and_move(tmp_path):
    key = export_pairs(shown(hearts=1), tmp_path)
    brightness = {}
    for side in ("left", "right"):
        with Image.open(tmp_path / "pairs" / f"001-{side}-cine.png") as cine:
            assert cine.n_frames == 3
        with Image.open(tmp_path / "pairs" / f"001-{side}.png") as still:
            assert max(still.size) >= 512
            brightness[key[0][side]] = np.asarray(still, float).mean()
    assert brightness["poor"] == pytest.approx(2 * brightness["fine"], rel=0.05)


def test_a_clear_preference_is_found_and_readers_agree(tmp_path):
    export_pairs(shown(hearts=12), tmp_path, repeats=0.25, seed=5)
    key = read_key(tmp_path / "key.json")
    folder = tmp_path / "pairs"
    tables = [
        fill(folder, key, "anna.csv", "fine"),
        fill(folder, key, "b.csv", "fine", reader="bert"),
    ]
    found = reader_statistics(read_scores(tables), key)
    assert found["readers"] == ["anna", "bert"]
    assert [(one["method"], one["mean"], one["scores"]) for one in found["methods"]] == [
        ("fine", 5.0, 24),
        ("poor", 2.0, 24),
    ]
    (versus,) = found["comparisons"]
    assert (versus["mean_difference"], versus["pairs"], versus["preferred"]) == (3.0, 12, 24)
    assert versus["p"] < 0.001
    assert versus["p_preference"] < 0.001
    assert [one["kappa"] for one in found["agreement"]["between"]] == [1.0]
    assert [(one["images"], one["kappa"]) for one in found["agreement"]["within"]] == [(6, 1.0), (6, 1.0)]


def test_kappa_is_zero_by_chance_and_below_for_contradiction():
    rng = np.random.default_rng(0)
    one, other = rng.integers(1, 6, (2, 4000)).tolist()
    assert weighted_kappa(one, other) == pytest.approx(0, abs=0.05)
    assert weighted_kappa([1, 5, 1, 5], [5, 1, 5, 1]) == pytest.approx(-1)
    assert weighted_kappa([3, 3], [3, 3]) is None
    assert weighted_kappa([], []) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("r,001,6,2,left,", "line 2: found '6', '2' and 'left'"),
        ("r,001,3,2,up,", "'up', expected two scores"),
        ("r,001,,,,", "found no scores in the tables"),
    ],
)
def test_a_wrong_score_is_one_clear_error(tmp_path, row, said):
    path = tmp_path / "s.csv"
    path.write_text(f"reader,pair,left,right,preferred,remark\n{row}\n")
    with pytest.raises(DataError, match=said):
        read_scores([path])


def test_what_cannot_be_a_study_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="images of two methods"):
        export_pairs(shown(methods=("alone",)), tmp_path)
    with pytest.raises(ConfigError, match="expected a share from 0 to 1"):
        export_pairs(shown(), tmp_path, repeats=2)
    with pytest.raises(DataError, match="no key of a reader study"):
        read_key(tmp_path / "none.json")
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="found no reader, pair, left, right, preferred"):
        read_scores([path])


def test_the_command_writes_pairs_and_reads_scores(tmp_path):
    options = "--methods sense,zero-filled --accelerations 4 --scans 2 --phases 4 --matrix 48 --coils 4"
    run = CliRunner()
    made = run.invoke(
        command,
        ["readers", *options.split(), "--truth", "--out", str(tmp_path), "--json"],
        catch_exceptions=False,
    )
    assert json.loads(made.stdout)["pairs"] == 7  # three pairs of each heart, one again
    path = fill_any(tmp_path)
    said = run.invoke(
        command, ["readers", "--scores", str(path), "--out", str(tmp_path)], catch_exceptions=False
    )
    assert "truth: mean 5.00" in said.output
    assert "truth over zero-filled: +3.00" in said.output


def fill_any(out):
    key = read_key(out / "key.json")
    rows = ["reader,pair,left,right,preferred,remark"]
    for pair, entry in key.items():
        sides = [5 if entry[side] == "truth" else 2 for side in ("left", "right")]
        preferred = "left" if sides[0] > sides[1] else "right" if sides[1] > sides[0] else "same"
        rows.append(f"r,{pair},{sides[0]},{sides[1]},{preferred},")
    path = out / "filled.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
