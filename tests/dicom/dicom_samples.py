"""A header, geometries and an object to write, shared by the tests of this folder."""

import numpy as np

from recon_node.core.scan import PatientInfo, ScanHeader, SliceGeometry, StudyInfo
from recon_node.core.types import MadeBy

MADE_BY = MadeBy(
    method="cardiomm",
    version="0.1.0",
    weights="cine-small",
    weights_sha256="ab" * 32,
    settings={"cascades": 4},
)

HEADER = ScanHeader(
    encoded_matrix=(96, 40, 1),
    encoded_fov_mm=(480.0, 250.0, 8.0),
    recon_matrix=(48, 40, 1),
    recon_fov_mm=(240.0, 250.0, 8.0),
    vendor="SIEMENS",
    model="MAGNETOM Vida",
    institution="General Hospital",
    field_strength_t=2.89362,
    resonance_frequency_hz=123250000,
    protocol="cine_sax",
    sequence="CV_tfi2d1",
    te_ms=(1.51,),
    tr_ms=(3.11,),
    flip_deg=(50.0,),
    patient_position="HFS",
    patient=PatientInfo(
        name="Muster^Erika", patient_id="P-1", birth_date="1970-01-31", sex="F", weight_kg=61.5, height_m=1.7
    ),
    study=StudyInfo(
        study_instance_uid="1.2.826.0.1.3680043.8.498.12.34",
        measurement_id="45387_30797374_30797378_493",
        study_date="2026-05-01",
        study_time="10:11:12",
        series_date="2026-05-01",
        series_time="10:20:30",
        accession_number="A123",
    ),
)

GEOMETRIES = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "double-oblique": ((0.7378, 0.6750, 0.0), (-0.2986, 0.3264, -0.8968)),
    "flipped": ((-1, 0, 0), (0, 1, 0)),
}


def geometry(name: str = "axial", *, position=(12.5, -31.0, 47.25), fov=(240.0, 250.0, 8.0)) -> SliceGeometry:
    read = np.array(GEOMETRIES[name][0], float)
    phase = np.array(GEOMETRIES[name][1], float)
    read /= np.linalg.norm(read)
    phase -= read * (read @ phase)
    phase /= np.linalg.norm(phase)
    return SliceGeometry(
        position_mm=position,
        read_dir=tuple(read),
        phase_dir=tuple(phase),
        slice_dir=tuple(np.cross(read, phase)),
        fov_mm=fov,
    )


def blob(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """An asymmetric object, brighter in later phases, with noise."""
    phases, rows, columns = shape
    y, x = np.mgrid[:rows, :columns]
    image = 100.0 * np.exp(-(((x - columns / 3) / 5) ** 2) - ((y - rows / 4) / 3) ** 2)
    image += 40.0 * ((x > columns / 2) & (y > rows / 2))
    rng = np.random.default_rng(seed)
    data = image * (1 + np.arange(phases)[:, None, None] / 10) + rng.standard_normal(shape)
    return (data * np.exp(1j * x / 9)).astype(np.complex64)
