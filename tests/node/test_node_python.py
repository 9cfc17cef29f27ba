from __future__ import annotations

from pathlib import Path

import pytest

import recon_node


def test_a_file_is_reconstructed_in_two_lines_of_python(heart: tuple[Path, Path]) -> None:
    kspace = next(recon_node.open_scan(heart[0]))
    images = recon_node.reconstruct(kspace, method="sense").images
    assert images.data.shape == (8, 96, 96)
    assert images.made_by.method == "sense"


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = recon_node.nothing
