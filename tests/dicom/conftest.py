"""Small series to write."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
from dicom_samples import HEADER, MADE_BY, blob, geometry

from recon_node.core.scan import SliceIndex
from recon_node.core.types import ImageSeries, Prompt, Prompts, Sampling, Verdict
from recon_node.dicom import Provenance
from recon_node.images import scale_series


@pytest.fixture
def make_images() -> Callable[..., ImageSeries]:
    """Images of any shape, with header fields replaced at will."""

    def make(
        shape=(5, 40, 48), *, where="axial", header=None, patient=None, study=None, **fields
    ) -> ImageSeries:
        changed = dict(header or {})
        if patient is not None:
            changed["patient"] = patient
        if study is not None:
            changed["study"] = study
        phases = shape[0]
        defaults = {
            "data": blob(shape),
            "geometry": geometry(where),
            "header": replace(HEADER, **changed),
            "index": SliceIndex(slice=2),
            "made_by": MADE_BY,
            "trigger_times_ms": tuple(40.0 * n + 0.125 for n in range(phases)),
            "acquisition_times_s": tuple(37230.5 + 0.04 * n for n in range(phases)),
            "rr_interval_ms": 857.1,
        }
        return ImageSeries(**{**defaults, **fields})

    return make


@pytest.fixture
def provenance() -> Provenance:
    """A full one."""
    return Provenance(
        made_by=MADE_BY,
        prompts=Prompts(
            metadata=Prompt("A cine image in short-axis view from a SIEMENS 3.0T scanner"),
            undersampling=Prompt("random undersampling, acceleration 8"),
        ),
        sampling=Sampling(pattern="random", acceleration=8.0, effective_acceleration=5.5, acs=20),
        verdict=Verdict(verdict="warn", score=0.61, reasons=("held-out lines fit badly",)),
        lines_found=500,
        lines_expected=512,
    )


@pytest.fixture
def write(make_images, provenance, tmp_path):
    """Write a series with everything at its default but what is given."""
    from recon_node.dicom import write_series

    def run(images=None, *, folder=None, **options):
        images = images if images is not None else make_images()
        options = {"provenance": provenance, **options}
        if images.made_by != options["provenance"].made_by:
            options["provenance"] = replace(options["provenance"], made_by=images.made_by)
        options.setdefault("pixels", scale_series(images))
        return write_series(images, folder or tmp_path / "out", **options)

    return run


@pytest.fixture
def tool():
    """Path of an installed program; absent it fails in CI and skips elsewhere."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            reason = f"{name} is not installed"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        return path

    return find
