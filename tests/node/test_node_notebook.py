"""The notebook of a first scan, cell by cell."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from recon_node.simulate import simulate_scan

NOTEBOOK = "docs/first_scan.ipynb"


def cells(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / NOTEBOOK).read_text())["cells"]
    return found


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """What a notebook shows below the cell: the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK, "eval"), names)


def test_the_notebook_of_a_first_scan_runs_from_top_to_bottom(
    pytestconfig: pytest.Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    simulate_scan(
        tmp_path / "heart.h5",
        acceleration=4,
        pattern="uniform",
        coils=4,
        slices=1,
        phases=4,
        matrix=64,
        seed=5,
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = [
        run_cell("".join(cell["source"]), names)
        for cell in cells(pytestconfig.rootpath)
        if cell["cell_type"] == "code"
    ]
    pictures = [one for one in shown if isinstance(one, Image.Image)]
    assert [picture.size for picture in pictures] == [(3 * 128, 3 * 64), (3 * 64, 3 * 64)]
    assert all(np.asarray(picture).std() > 20 for picture in pictures)
    said = capsys.readouterr().out
    assert "uniform, 4.0x" in said
    assert re.search(r"verdict: (pass|warn|fallback)", said)
    for folder, count in (("images", 4), ("images-from-numpy", 4)):
        files = [*(tmp_path / folder).rglob("*.dcm")]
        assert len(files) == count
        assert pydicom.dcmread(files[0]).Rows == 64


def test_the_notebook_is_one_that_jupyter_opens_without_old_outputs(pytestconfig: pytest.Config) -> None:
    found = cells(pytestconfig.rootpath)
    assert len({cell["id"] for cell in found}) == len(found)
    for cell in found:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_the_code_of_the_python_page_runs(
    pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate_scan(
        tmp_path / "heart.h5",
        acceleration=4,
        pattern="random",
        coils=4,
        slices=2,
        phases=4,
        matrix=64,
        seed=6,
    )
    monkeypatch.chdir(tmp_path)
    text = (pytestconfig.rootpath / "docs" / "python.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["again"].images.data.shape == names["result"].images.data.shape
    assert names["again"].images.made_by.method == "kt"
    assert len(names["files"]) == 8
    assert 'id="viewer"' in (tmp_path / "report.html").read_text()
    said = re.findall(r"^\| `([a-z_]+)", text.partition("of a result")[2], re.MULTILINE)
    assert said
    for name in said:
        assert hasattr(names["result"], name)
