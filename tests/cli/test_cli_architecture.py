"""The picture in the README is the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import recon_node.pipeline.row as module

ROOT = Path(__file__).parents[2]
STAGES = {
    "prepare": "prepare",
    "calibrate": "calibrate",
    "prompt": "prompt",
    "methods.chosen.reconstruct": "reconstruct",
    "judge": "judge",
    "finished": "finish",
    "writer.write": "write",
    "queue": "queue",
}
"""What the generator calls, and how the picture names it."""


def stages(function: str, tree: ast.Module) -> list[str]:
    """Stages that a function calls, itself or through the stopwatch, in the order of the source."""
    (body,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    found: list[tuple[int, str]] = []
    for node in ast.walk(body):
        if isinstance(node, ast.Call):
            for part in (node.func, *node.args):
                name = ast.unparse(part)
                if name in STAGES or name == "_reconstructed":
                    found.append((node.lineno, name))
    return [name for _, name in sorted(found)]


def test_the_picture_in_the_readme_is_the_row() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    way: list[str] = []
    for name in stages("row", tree):
        way += stages("_reconstructed", tree) if name == "_reconstructed" else [name]
    drawn = re.search(r"^    (prepare ->.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert drawn is not None
    assert drawn[1].split(" -> ") == [STAGES[name] for name in way]


def test_nothing_else_joins_the_stages() -> None:
    joins = []
    for path in (ROOT / "recon_node").rglob("*.py"):
        text = path.read_text()
        if re.search(r"\bprepare\(", text) and re.search(r"\b(judge|judge_reconstruction)\b", text):
            joins.append(path.name)
    assert joins == ["row.py"]


def test_every_room_of_the_readme_is_there() -> None:
    table = (ROOT / "README.md").read_text().partition("| room of")[2].partition("\n\n")[0]
    rooms = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    missing = {room for room in rooms if not (ROOT / "recon_node" / room).is_dir()}
    there = {p.name for p in (ROOT / "recon_node").iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert not missing
    assert there - rooms <= {"cli", "core", "schema", "report"}
