"""How fast a series becomes files: build and dcmwrite each, write the template, write the bytes raw.

Run: python -m benchmarks.dicom [--phases N] [--repeats N] [--folder DIR]
All times are CPU seconds of this process (user and system), taken side by side in one run; the best
of the repeats counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom

from recon_node.core.scan import PatientInfo, ScanHeader, SliceGeometry, SliceIndex, StudyInfo
from recon_node.core.types import ImageSeries, MadeBy, Prompt, Prompts, Sampling, Verdict
from recon_node.dicom import Provenance, build_series, write_series
from recon_node.images import StoredPixels, scale_series

SIZE = 192


def series(phases: int) -> tuple[ImageSeries, Provenance]:
    """A cine with a full header and provenance."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((phases, SIZE, SIZE, 2), np.float32).view(np.complex64)[..., 0]
    made_by = MadeBy(method="cardiomm", version="0.1.0", weights="bench", weights_sha256="0" * 64)
    images = ImageSeries(
        data=data,
        geometry=SliceGeometry(
            position_mm=(1.0, 2.0, 3.0),
            read_dir=(1.0, 0.0, 0.0),
            phase_dir=(0.0, 1.0, 0.0),
            slice_dir=(0.0, 0.0, 1.0),
            fov_mm=(300.0, 300.0, 8.0),
        ),
        header=ScanHeader(
            encoded_matrix=(384, 192, 1),
            encoded_fov_mm=(600.0, 300.0, 8.0),
            recon_matrix=(192, 192, 1),
            recon_fov_mm=(300.0, 300.0, 8.0),
            vendor="Vendor",
            protocol="cine_sax",
            sequence="tfi2d1",
            te_ms=(1.5,),
            tr_ms=(3.0,),
            flip_deg=(50.0,),
            patient=PatientInfo(name="Bench^Mark", patient_id="B-1"),
            study=StudyInfo(measurement_id="1", study_date="2026-01-01"),
        ),
        index=SliceIndex(),
        made_by=made_by,
        trigger_times_ms=tuple(30.0 * n for n in range(phases)),
        acquisition_times_s=tuple(36000 + 0.03 * n for n in range(phases)),
        rr_interval_ms=900.0,
    )
    prompts = Prompts(metadata=Prompt("A cardiac cine MRI"), undersampling=Prompt("Random undersampling"))
    provenance = Provenance(
        made_by=made_by,
        prompts=prompts,
        sampling=Sampling(pattern="random", acceleration=8, effective_acceleration=6, acs=20),
        verdict=Verdict(verdict="pass", score=0.9),
    )
    return images, provenance


def build_each(images: ImageSeries, pixels: StoredPixels, provenance: Provenance, folder: Path) -> None:
    """What a writer without a template does: a data set from the header for each image, then dcmwrite."""
    for phase in range(images.data.shape[0]):
        one = replace(
            images,
            data=images.data[phase : phase + 1],
            trigger_times_ms=(0.0,),
            acquisition_times_s=(0.0,),
        )
        stored = replace(pixels, data=pixels.data[phase : phase + 1])
        ds = build_series(one, pixels=stored, provenance=provenance).dataset(0)
        pydicom.dcmwrite(folder / f"{phase}.dcm", ds, enforce_file_format=True)


def dcmwrite_each(datasets: list[pydicom.Dataset], folder: Path) -> None:
    """The writing alone, of data sets that are there."""
    for phase, ds in enumerate(datasets):
        pydicom.dcmwrite(folder / f"{phase}.dcm", ds, enforce_file_format=True)


def raw_each(files: list[bytes], folder: Path) -> None:
    """The same bytes without any thought."""
    for phase, content in enumerate(files):
        handle = os.open(f"{folder}/{phase}.dcm", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(handle, content)
        os.close(handle)


def cpu_seconds(action: Callable[[Path], object], root: Path, repeats: int) -> float:
    """Best CPU time of `action` on a fresh folder."""
    best = float("inf")
    for _ in range(repeats):
        folder = Path(tempfile.mkdtemp(dir=root))
        start = time.process_time()
        action(folder)
        best = min(best, time.process_time() - start)
        shutil.rmtree(folder)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--phases", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write (default: a temporary folder)"
    )
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=arguments.folder))
    images, provenance = series(arguments.phases)
    pixels = scale_series(images)
    template = build_series(images, pixels=pixels, provenance=provenance)
    datasets = [template.dataset(phase) for phase in range(arguments.phases)]
    written = write_series(images, root / "once", pixels=pixels, provenance=provenance)
    files = [instance.path.read_bytes() for instance in written]
    actions: dict[str, Callable[[Path], object]] = {
        "build + dcmwrite": lambda folder: build_each(images, pixels, provenance, folder),
        "dcmwrite": lambda folder: dcmwrite_each(datasets, folder),
        "write_series": lambda folder: write_series(images, folder, pixels=pixels, provenance=provenance),
        "raw write": lambda folder: raw_each(files, folder),
    }
    try:
        rates = {
            name: arguments.phases / cpu_seconds(action, root, arguments.repeats)
            for name, action in actions.items()
        }
    finally:
        shutil.rmtree(root)
    print(f"{arguments.phases} instances of {SIZE}x{SIZE}, {len(files[0])} bytes each")
    for name, rate in rates.items():
        print(f"{name:20s} {rate:10.0f} instances per CPU second")
    ours = rates["write_series"]
    print(f"write_series / (build + dcmwrite) {ours / rates['build + dcmwrite']:8.1f}   goal 40")
    print(f"write_series / dcmwrite           {ours / rates['dcmwrite']:8.1f}")
    print(f"write_series / raw write          {ours / rates['raw write']:8.2f}   goal 0.70")
    bound = rates["raw write"] / rates["build + dcmwrite"]
    print(f"raw write / (build + dcmwrite)    {bound:8.1f}   what this file system leaves to be gained")


if __name__ == "__main__":
    main()
