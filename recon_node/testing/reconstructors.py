"""What every method keeps to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError, ReconNodeError
from recon_node.core.protocols import Reconstructor
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.foreign import hosted
from recon_node.testing.scenes import Scene


class ReconstructorTests:
    """Subclass, give `make`, and pytest runs these on your method as the node would call it."""

    tolerance: float = 1e-3
    """Relative L2 distance that images may have where they should be equal."""
    fidelity: float | None = 0.25
    """Largest relative error of a fully sampled slice at a signal-to-noise ratio of 40; None where the method
    cannot promise one (a network that was not trained)."""
    smallest: int = 20
    """Fewest lines and samples of an image that it takes."""

    def make(self) -> Reconstructor:
        """A new instance of the method under test."""
        raise NotImplementedError(f"{type(self).__name__}.make: return the method to test")

    def text(self) -> TextEmbedding | None:
        """The prompts it is given; None by default."""
        return None

    def run(self, kspace: KSpace, maps: CoilMaps, method: Reconstructor | None = None) -> ImageSeries:
        """One call, as the node makes it."""
        return hosted(self.make() if method is None else method).reconstruct(kspace, maps, self.text())

    def test_images_lie_on_the_grid_of_the_k_space(self) -> None:
        """Shape, dtype, geometry, times and place in the scan are the k-space's; all pixels finite."""
        scene = Scene()
        kspace = scene.kspace(scene.lines(2))
        made = self.run(kspace, scene.maps)
        assert made.data.shape == (scene.phases, scene.ny, scene.nx), made.data.shape
        assert made.data.dtype == np.complex64
        assert np.isfinite(made.data).all()
        assert (made.geometry, made.index) == (kspace.geometry, kspace.index)
        assert made.trigger_times_ms == kspace.trigger_times_ms

    def test_the_images_say_what_made_them(self) -> None:
        """`made_by` names the method and has plain settings."""
        method, scene = hosted(self.make()), Scene()
        made = self.run(scene.kspace(), scene.maps, method)
        assert made.made_by.method == method.name != ""
        assert made.made_by.version
        assert all(isinstance(name, str) for name in made.made_by.settings)

    def test_any_size_will_do(self) -> None:
        """One frame, one coil, odd sizes, more lines than samples and the other way round."""
        from hypothesis import given, settings
        from hypothesis import strategies as st

        method, sizes = hosted(self.make()), st.integers(self.smallest, self.smallest + 17)

        @settings(deadline=None, max_examples=8, derandomize=True, database=None)
        @given(phases=st.integers(1, 4), coils=st.integers(1, 5), ny=sizes, nx=sizes)
        def check(phases: int, coils: int, ny: int, nx: int) -> None:
            scene = Scene(phases=phases, coils=coils, ny=ny, nx=nx)
            made = self.run(scene.kspace(scene.lines(1.5)), scene.maps, method)
            assert made.data.shape == (phases, ny, nx), made.data.shape
            assert np.isfinite(made.data).all()

        check()

    def test_twice_the_k_space_gives_twice_the_image(self) -> None:
        """Images are in the units of the k-space, whatever the receiver's gain was."""
        scene = Scene()
        mask = scene.lines(2)
        once, more = (self.run(scene.kspace(mask, factor=f), scene.maps).data for f in (1.0, 16.0))
        assert _distance(more / 16, once) < max(self.tolerance, 1e-3)

    def test_the_same_slice_gives_the_same_images(self) -> None:
        """Again, after another slice, and from another instance."""
        scene, other = Scene(), Scene(seed=1, phases=3)
        kspace = scene.kspace(scene.lines(2))
        method = hosted(self.make())
        first = self.run(kspace, scene.maps, method).data
        self.run(other.kspace(other.lines(2)), other.maps, method)
        assert _distance(self.run(kspace, scene.maps, method).data, first) <= self.tolerance
        assert _distance(self.run(kspace, scene.maps).data, first) <= self.tolerance

    def test_what_it_is_given_stays_as_it_was(self) -> None:
        """K-space, mask and maps are not written to."""
        scene = Scene()
        kspace = scene.kspace(scene.lines(2))
        given = (kspace.data, kspace.mask, scene.maps.data, scene.maps.support)
        before = [array.copy() for array in given]
        self.run(kspace, scene.maps)
        for array, copy in zip(given, before, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_each_frame_has_a_mask_of_its_own(self) -> None:
        """A frame with more lines than the others is about as near to the truth as with theirs, or nearer.

        Not always nearer: a method that looks along time may weigh otherwise where masks differ.
        """
        scene = Scene()
        few = np.broadcast_to(scene.lines(3)[:1], (scene.phases, scene.ny, scene.nx)).copy()
        more = few.copy()
        more[1] = True
        errors = []
        for mask in (few, more):
            images = self.run(scene.kspace(mask), scene.maps).data
            inside = scene.maps.support
            errors.append(float(np.linalg.norm((images - scene.truth)[1][inside])))
        assert errors[1] <= 1.3 * errors[0], errors

    def test_a_slice_with_nothing_left_out_comes_back(self) -> None:
        """A full acquisition gives the object, in its own units."""
        if self.fidelity is None:
            return
        scene = Scene()
        error = scene.error(self.run(scene.kspace(), scene.maps).data)
        assert error < self.fidelity, f"relative error {error:.3f} of a fully sampled slice"

    def test_what_no_method_can_use_is_refused(self) -> None:
        """NaN, infinities, nothing but zeros, an empty mask and maps of another slice are a `DataError`."""
        scene = Scene()
        good = scene.kspace(scene.lines(2))
        nothing = np.zeros_like(good.mask)
        wrong: dict[str, tuple[KSpace, CoilMaps]] = {
            "NaN": (replace(good, data=_spoiled(good.data, np.nan)), scene.maps),
            "infinite": (replace(good, data=_spoiled(good.data, np.inf)), scene.maps),
            "zero": (replace(good, data=np.zeros_like(good.data)), scene.maps),
            "empty mask": (replace(good, data=np.zeros_like(good.data), mask=nothing), scene.maps),
            "maps of other coils": (good, Scene(coils=scene.coils + 1).maps),
            "maps of other pixels": (good, Scene(nx=scene.nx + 2).maps),
            "NaN maps": (good, replace(scene.maps, data=_spoiled(scene.maps.data, np.nan))),
        }
        for what, (kspace, maps) in wrong.items():
            error = _error_of(lambda kspace=kspace, maps=maps: self.run(kspace, maps))  # type: ignore[misc]
            assert isinstance(error, DataError), f"{what}: {error!r}, expected a DataError"
            assert "\n" not in str(error), what
            assert 0 < len(str(error)) <= 300, what


def _distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def _spoiled(data: NDArray[np.complex64], value: float) -> NDArray[np.complex64]:
    copy = data.copy()
    copy[np.unravel_index(np.argmax(np.abs(copy)), copy.shape)] = value
    return copy


def _error_of(work: Callable[[], object]) -> ReconNodeError | None:
    try:
        work()
    except ReconNodeError as error:
        return error
    return None
