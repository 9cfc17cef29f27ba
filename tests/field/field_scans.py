"""Small scans as the field sends them: an asymmetric phantom, and headers that are odd in one way each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom

from recon_node.cli import run
from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.fft import centred_fft
from recon_node.simulate.mrd import AcquisitionFile

Array = np.ndarray[Any, np.dtype[Any]]

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">{subject}{study}{measurement}<acquisitionSystemInformation>
<systemVendor>{vendor}</systemVendor><systemModel>Aera</systemModel>
<systemFieldStrength_T>{field}</systemFieldStrength_T></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>{frequency}</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>{nx}</x><y>{ny}</y><z>{nz}</z></matrixSize>
<fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>{fz}</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{rx}</x><y>{ry}</y><z>{rz}</z></matrixSize>
<fieldOfView_mm><x>{rfx}</x><y>{rfy}</y><z>{rfz}</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
</kspace_encoding_step_1>{limits}</encodingLimits><trajectory>{trajectory}</trajectory>{parallel}</encoding>
{sequence}{user}</ismrmrdHeader>"""


def header(ny: int = 40, nx: int = 40, **values: Any) -> str:
    """A header of `ny` lines of `nx` samples over 320 mm; `limits` by the last value of a counter."""
    limits = "".join(
        f"<{name}><minimum>0</minimum><maximum>{last}</maximum><center>0</center></{name}>"
        for name, last in values.pop("limits", {}).items()
    )
    plain: dict[str, Any] = dict.fromkeys(
        ("subject", "study", "measurement", "parallel", "sequence", "user"), ""
    )
    plain |= {"vendor": "SIEMENS", "field": 1.494, "frequency": 63642459, "nx": nx, "ny": ny, "nz": 1}
    plain |= {"fx": 320, "fy": 320, "fz": 8, "rfx": 320, "rfy": 320, "rfz": 8, "rx": nx, "ry": ny, "rz": 1}
    plain |= {"last": ny - 1, "centre": ny // 2, "trajectory": "cartesian", "limits": limits}
    return HEADER.format(**(plain | values))


def phantom(ny: int = 40, nx: int = 40, shift: float = 0.0) -> Array:
    """`(y, x)`: a bright off-centre disc and a bar in a body, like no mirror image of itself."""
    y, x = np.mgrid[:ny, :nx]
    y, x = 2 * (y + 0.5) / ny - 1, 2 * (x + 0.5) / nx - 1
    image = 0.3 * (np.hypot(x / 0.75, y / 0.85) < 1)
    image = image + 1.0 * (np.hypot(x - 0.3 - shift, y + 0.3) < 0.2)
    return np.asarray(image + 0.6 * ((np.abs(x + 0.35) < 0.12) & (np.abs(y - 0.2) < 0.4)))


def kspace_of(image: Array, coils: int = 3, noise: float = 0.01, seed: int = 0) -> Array:
    """`(coil, ky, kx)` complex64 of an image, with noise, as Siemens writes it (conjugated) where asked."""
    ny, nx = image.shape
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:ny, :nx]
    corners = [(0, 0), (0, nx), (ny, nx), (ny, 0)][:coils]
    maps = np.stack(
        [np.exp(-(((y - v) / ny) ** 2) - ((x - u) / nx) ** 2 + 1j * n) for n, (v, u) in enumerate(corners)]
    )
    samples = centred_fft(maps * image)
    parts = rng.standard_normal((*samples.shape, 2))
    return np.asarray(samples + noise * (parts[..., 0] + 1j * parts[..., 1]), np.complex64)


@dataclass
class Lines:
    """Readouts to be written, in order."""

    heads: list[Array] = field(default_factory=list)
    samples: list[Array] = field(default_factory=list)

    def add(self, kspace: Array, rows: Iterable[int] | None = None, **values: Any) -> Lines:
        """Lines `rows` of `(coil, ky, kx)`; values of counters, flags and other fields of their headers."""
        wanted = list(range(kspace.shape[1]) if rows is None else rows)
        heads = np.zeros(len(wanted), ACQUISITION_HEADER)
        heads["version"], heads["sample_time_us"] = 1, 5.0
        heads["idx"]["kspace_encode_step_1"] = values.pop("counters", wanted)
        for name, value in values.items():
            target = heads["idx"] if name in heads["idx"].dtype.names else heads
            target[name] = value
        self.heads.append(heads)
        self.samples.append(np.moveaxis(kspace[:, wanted], 0, 1))
        return self


def axial(position: float = 0.0) -> dict[str, Any]:
    """Directions and place of an axial slice."""
    return {
        "position": (0, 0, position),
        "read_dir": (1, 0, 0),
        "phase_dir": (0, 1, 0),
        "slice_dir": (0, 0, 1),
    }


def write(path: Path, xml: str | bytes, lines: Lines) -> Path:
    """An ISMRMRD file."""
    with AcquisitionFile(path, "-") as file:
        for heads, samples in zip(lines.heads, lines.samples, strict=True):
            file.append(heads, samples)
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
        received = xml.encode() if isinstance(xml, str) else xml
        kind = f"S{len(received)}" if b"\0" in received else h5py.string_dtype()
        file["dataset"].create_dataset("xml", data=[received], dtype=kind)
    return path


def one_slice(path: Path, xml: str | bytes | None = None, **values: Any) -> Path:
    """A file of one slice, fully sampled."""
    return write(path, header() if xml is None else xml, Lines().add(kspace_of(phantom()), **values))


@dataclass
class Replayed:
    """What became of a file."""

    code: int
    errors: str
    series: list[dict[str, Any]]
    instances: list[pydicom.Dataset]

    @property
    def verdicts(self) -> list[str]:
        return [entry["trust"]["verdict"] for entry in self.series]

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(note for entry in self.series for note in entry["notes"]))

    def image(self, number: int = 0) -> Array:
        ds = self.instances[number]
        return np.asarray(ds.pixel_array * float(ds.RescaleSlope))


def replay(path: Path, out: Path, capsys: Any, *options: str, method: str = "sense") -> Replayed:
    """The command, its errors and what it wrote."""
    capsys.readouterr()
    code = run(["replay", str(path), "--out", str(out), "--method", method, *options])
    errors = capsys.readouterr().err
    assert all(len(line) <= 300 + len(str(path)) for line in errors.splitlines())
    summary = out / "summary.json"
    series = json.loads(summary.read_text())["series"] if summary.exists() else []
    assert all(len(note) <= 300 and "\n" not in note for entry in series for note in entry["notes"])
    read: Callable[[Path], pydicom.Dataset] = pydicom.dcmread
    found = [read(p) for p in sorted(out.rglob("*.dcm"))]
    found.sort(key=lambda ds: (int(ds.SeriesNumber), int(ds.InstanceNumber)))
    return Replayed(code, errors, series, found)


def alike(image: Array, truth: Array) -> float:
    """Correlation of two pictures."""
    return float(np.corrcoef(np.abs(image).reshape(-1), np.abs(truth).reshape(-1))[0, 1])


def without(xml: str, tag: str) -> str:
    """The header without an element."""
    return re.sub(rf"<{tag}>.*?</{tag}>", "", xml, flags=re.DOTALL)
