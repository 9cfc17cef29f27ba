"""Every built-in method, and the example package's, keep to what the shipped tests ask."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from recon_node.core.errors import ModelError
from recon_node.core.fft import centred_ifft
from recon_node.core.protocols import Reconstructor
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.registry import Methods, find_method, make_methods
from recon_node.methods.table import BUILT_IN, CLASSICAL
from recon_node.prompts import build_prompts, embed
from recon_node.settings import ReconSettings
from recon_node.testing import ReconstructorTests, Scene


@cache
def methods(name: str) -> Methods:
    return make_methods(ReconSettings(method=name, device="cpu"))


class BuiltIn(ReconstructorTests):
    """One built-in method; a network of this package gets the prompts of the scene."""

    name = ""

    def make(self) -> Reconstructor:
        record = find_method(self.name)
        return (
            record.load(ReconSettings(device="cpu")).reconstructor
            if not record.learned
            else (methods(self.name).chosen)
        )

    def text(self) -> TextEmbedding | None:
        encoder = methods(self.name).encoder
        kspace = Scene().kspace()
        return None if encoder is None else embed(build_prompts(kspace.header, kspace.sampling), encoder)


for _name in BUILT_IN:
    _class = f"Test{_name.title().replace('-', '')}"
    globals()[_class] = type(_class, (BuiltIn,), {"name": _name, "__module__": __name__})


class TestTheExample(ReconstructorTests):
    def make(self) -> Reconstructor:
        file = Path(__file__).parents[2] / "examples" / "recon_node_example" / "recon_node_example.py"
        spec = importlib.util.spec_from_file_location("recon_node_example", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made: Reconstructor = module.SenseDenoised(device="cpu")
        return made


class Base:
    """Plain coil combination: right, and a start for methods that are wrong in one way each."""

    name = "wrong"

    def reconstruct(self, kspace: KSpace, maps: CoilMaps, text: TextEmbedding | None) -> np.ndarray:
        return np.einsum("cyx,pcyx->pyx", maps.data[0].conj(), centred_ifft(kspace.data))


class Turned(Base):
    def reconstruct(self, kspace, maps, text):
        return super().reconstruct(kspace, maps, text).swapaxes(1, 2)


class Normalised(Base):
    def reconstruct(self, kspace, maps, text):
        images = super().reconstruct(kspace, maps, text)
        return images / np.abs(images).max()


class Remembering(Base):
    seen = 0

    def reconstruct(self, kspace, maps, text):
        self.seen += 1
        return super().reconstruct(kspace, maps, text) * self.seen


class Mirrored(Base):
    def reconstruct(self, kspace, maps, text):
        return super().reconstruct(kspace, maps, text)[:, ::-1]


class FirstMaskOnly(Base):
    def reconstruct(self, kspace, maps, text):
        data = kspace.data * kspace.mask[:1, None]
        return super().reconstruct(dataclasses.replace(kspace, data=data), maps, text) / (
            kspace.mask.mean() / kspace.mask[0].mean()
        )


class Writing(Base):
    def reconstruct(self, kspace, maps, text):
        kspace.data[...] = 0
        return super().reconstruct(kspace, maps, text)


class EvenOnly(Base):
    def reconstruct(self, kspace, maps, text):
        if kspace.data.shape[-1] % 2:
            raise ValueError("odd sizes are not supported")
        return super().reconstruct(kspace, maps, text)


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (Turned, "test_images_lie_on_the_grid_of_the_k_space"),
        (Normalised, "test_twice_the_k_space_gives_twice_the_image"),
        (Remembering, "test_the_same_slice_gives_the_same_images"),
        (Mirrored, "test_a_slice_with_nothing_left_out_comes_back"),
        (FirstMaskOnly, "test_each_frame_has_a_mask_of_its_own"),
        (Writing, "test_what_it_is_given_stays_as_it_was"),
        (EvenOnly, "test_any_size_will_do"),
    ],
)
def test_a_method_that_breaks_a_promise_fails_its_test(wrong: type, test: str) -> None:
    class Tests(ReconstructorTests):
        def make(self) -> Reconstructor:
            return wrong()

    with pytest.raises((AssertionError, ModelError)):
        getattr(Tests(), test)()

    class Right(ReconstructorTests):
        def make(self) -> Reconstructor:
            return Base()

    getattr(Right(), test)()


def test_a_third_partys_method_passes_with_a_class_of_five_lines() -> None:
    class TestMine(ReconstructorTests):
        def make(self) -> Reconstructor:
            return Base()

    names = [name for name in dir(TestMine) if name.startswith("test_")]
    assert len(names) == 9
    for name in names:
        getattr(TestMine(), name)()


def test_classical_methods_are_tested_by_their_table() -> None:
    assert set(CLASSICAL) < set(BUILT_IN)
    assert isinstance(TestTheExample().run(Scene().kspace(), Scene().maps), ImageSeries)
