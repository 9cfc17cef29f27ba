"""An object larger than the field of view: two sets of coil maps, through methods and trust check."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
import pytest

from recon_node.coils import root_sum_of_squares
from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, KSpace
from recon_node.lab.evaluation.heldout import kspace_of
from recon_node.methods.registry import make_methods
from recon_node.pipeline.stages import calibrate, judge, prompt
from recon_node.settings import CoilSettings, PromptSettings, ReconSettings
from recon_node.simulate import draw_example, draw_mask

METHODS = ("sense", "kt", "l1-wavelet", "cardiomm")


@lru_cache
def folded() -> tuple[KSpace, np.ndarray]:
    """Every second line of a thorax is a scan of half the field of view; and what all lines would show."""
    wide = draw_example(
        np.random.default_rng(0), matrix=(192, 96), phases=3, coils=12, modality="cine", view="short-axis"
    )
    kspace = np.ascontiguousarray(wide.kspace[:, :, ::2])
    narrow = dataclasses.replace(wide, kspace=kspace)
    mask = draw_mask("uniform", 3, shape=(3, 96, 96), acs=20, rng=np.random.default_rng(1))
    return kspace_of(narrow, mask, acs=20), root_sum_of_squares(centred_ifft(kspace))


def error(images: np.ndarray, shown: np.ndarray) -> float:
    return float(np.linalg.norm(np.abs(images) - shown) / np.linalg.norm(shown))


def reconstructed(method: str, maps: CoilMaps):
    kspace, shown = folded()
    methods = make_methods(ReconSettings(method=method, device="cpu"))
    prompts, text = prompt(kspace, PromptSettings(), methods)
    images = methods.chosen.reconstruct(kspace, maps, text)
    settings = ReconSettings(method=method, on_distrust="warn")
    verdict = judge(kspace, maps, prompts, text, images, methods, settings).verdict
    return error(images.data, shown), images, verdict


def test_a_second_set_is_found_where_it_is_needed_and_only_there() -> None:
    kspace, _ = folded()
    assert len(calibrate(kspace).data) == 2
    assert len(calibrate(kspace, CoilSettings(maps=1)).data) == 1
    plain = draw_example(np.random.default_rng(2), matrix=(96, 96), phases=2, coils=8, modality="cine")
    mask = draw_mask("uniform", 3, shape=(2, 96, 96), acs=20, rng=np.random.default_rng(1))
    assert len(calibrate(kspace_of(plain, mask, acs=20)).data) == 1


@pytest.mark.parametrize("method", METHODS)
def test_two_sets_unfold_what_one_folds_into_the_heart(method: str) -> None:
    kspace, _ = folded()
    one, _, doubted = reconstructed(method, calibrate(kspace, CoilSettings(maps=1)))
    two, images, verdict = reconstructed(method, calibrate(kspace))
    assert two < 0.6 * one
    assert images.parts is not None
    assert images.parts.shape == (3, 2, 96, 96)
    assert any("folds into" in reason for reason in doubted.reasons)
    assert not any("folds into" in reason for reason in verdict.reasons)
    assert verdict.score > doubted.score
