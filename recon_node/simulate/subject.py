"""A subject on a scanner: draws body, heart, protocol and machine so that they belong together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError
from recon_node.core.scan import PatientInfo, ScanHeader, StudyInfo
from recon_node.simulate.anatomy import draw_anatomy
from recon_node.simulate.canvas import Plane, Texture
from recon_node.simulate.contrast import (
    BLOOD,
    MODALITIES,
    PHASES,
    TISSUES,
    WITH_AGENT,
    Contrast,
    bssfp,
    contrast,
    relaxation,
)
from recon_node.simulate.detail import draw_detail
from recon_node.simulate.heart import draw_heart
from recon_node.simulate.motion import draw_moments
from recon_node.simulate.scanner import CoilArray, Model, draw_coils, find_models, vendor_in_header, whitened
from recon_node.simulate.scene import Scene

Complex = NDArray[np.complex64]

VIEWS = ("short-axis", "long-axis", "through-plane")
"""Of the prompts' vocabulary, what can be simulated; flow (phase contrast) is through-plane."""
STUDY_DATE = "2026-01-15"
BIRTH_DATES = {"Adult": "1970-03-14", "Pediatric": "2018-03-14"}
LIFESPANS = ("Adult", "Pediatric")
SNR_REFERENCE = 45.0
"""Blood in a 1.5 T cine frame of 2.2 x 2.2 x 8 mm, 128 lines (image units of noise deviations)."""
FIELD_EXPONENT = 0.8
"""Signal-to-noise ratio over field strength at a given flip; below 1 as bandwidths grow with the field."""
MODALITY_ODDS = {"cine": 6.0, "T1 mapping": 2.0, "T2 mapping": 2.0, "late Gadolinium enhancement": 1.5}
"""Relative frequency in drawn examples; the others have 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """Everything drawn for one scan."""

    scene: Scene
    machine: Model
    coils: CoilArray
    modality: str
    view: str
    lifespan: str
    fov_mm: float
    thickness_mm: float
    receiver_gain: float
    """Factor on the signal-to-noise ratio (loading, calibration)."""
    phase_poly: NDArray[np.float64]
    """`(6,)` coefficients of the background phase, radians over the field of view."""
    field_poly: NDArray[np.float64]
    """`(6,)` coefficients of the off-resonance, Hz."""
    flip_poly: NDArray[np.float64]
    """`(6,)` coefficients of the relative transmit field."""
    reference_rss: float
    """Whitened coil sensitivity at the heart."""

    def plane(self, shape: tuple[int, int], *, level: float, columns: int = 1) -> Plane:
        """Grid of the slice at `level` (0 base, 1 apex at end diastole); `columns` times as wide."""
        z = 0.0 if self.view == "long-axis" else self.scene.heart.length_mm * (level - 0.5)
        return self.plane_at((shape[0], shape[1] * columns), (self.fov_mm, self.fov_mm * columns), z)

    def slice_positions(self, slices: int) -> list[float]:
        """Phantom z of each slice, mm: the ventricle shared out evenly from base to apex.

        Long-axis slices lie side by side around the axis, flow slices above the valve plane.
        """
        steps = [(i - (slices - 1) / 2) * self.spacing_mm(slices) for i in range(slices)]
        above = 0.68 * self.scene.heart.length_mm if self.view == "through-plane" else 0.0
        return [step - above for step in steps]

    def spacing_mm(self, slices: int) -> float:
        """Distance between the centres of neighbouring slices."""
        if self.view == "short-axis":
            return self.scene.heart.length_mm / slices
        return self.thickness_mm

    def plane_at(self, shape: tuple[int, int], fov_mm: tuple[float, float], z: float) -> Plane:
        """Grid of the slice at `z` mm."""
        return Plane.make(shape, fov_mm=fov_mm, z=z, thickness_mm=self.thickness_mm)

    def signal_to_noise(self, plane: Plane) -> float:
        """Image units per unit magnetisation at the heart: field, voxel and number of lines."""
        tissue = relaxation(1.5)
        reference = float(bssfp(tissue, flip_deg=65, tr_ms=3.0)[BLOOD])
        polarisation = (self.machine.nominal_t / 1.5) ** FIELD_EXPONENT
        voxel = plane.pixel_mm**2 * plane.thickness_mm / (2.2 * 2.2 * 8)
        lines = np.sqrt(plane.x.shape[0] / 128)
        return float(
            SNR_REFERENCE
            / reference
            * polarisation
            * voxel
            * lines
            * self.receiver_gain
            * self.scene.contrast.efficiency
        )

    def shading(self, plane: Plane) -> Complex:
        """`(y, x)` complex factor: background phase, bSSFP profile over off-resonance, transmit field."""
        terms = self._terms(plane)
        phase = np.tensordot(self.phase_poly, terms, axes=1)
        transmit = 1 + np.tensordot(self.flip_poly, terms, axes=1)
        gain = np.sin(np.clip(transmit, 0.3, 1.6) * np.pi / 2)
        c = self.scene.contrast
        if c.steady_state:
            turn = 2 * np.pi * np.tensordot(self.field_poly, terms, axes=1) * c.tr_ms / 1e3
            gain = gain * np.sqrt(np.cos(turn / 2) ** 2 / (np.cos(turn / 2) ** 2 + 0.02))
        return np.asarray(gain * np.exp(1j * phase), np.complex64)

    def _terms(self, plane: Plane) -> NDArray[np.float64]:
        x, y = plane.x / 180.0, plane.y / 180.0
        return np.stack([np.ones_like(x), x, y, x * y, x * x - 0.2, y * y - 0.2]).astype(float)

    def words(self) -> dict[str, str]:
        """Words of the metadata prompt by slot."""
        return {
            "lifespan": self.lifespan,
            "field": f"{self.machine.nominal_t}T",
            "vendor": self.machine.vendor,
            "scanner": self.machine.name,
            "modality": self.modality,
            "view": self.view,
        }

    def header(self, shape: tuple[int, int]) -> ScanHeader:
        """Scan header of the fully sampled grid `shape` (y, x), readout oversampling removed."""
        c = self.scene.contrast
        matrix, fov = (shape[1], shape[0], 1), (self.fov_mm, self.fov_mm, self.thickness_mm)
        return ScanHeader(
            encoded_matrix=matrix,
            encoded_fov_mm=fov,
            recon_matrix=matrix,
            recon_fov_mm=fov,
            vendor=vendor_in_header(self.machine.vendor),
            model=self.machine.header_name,
            field_strength_t=self.machine.header_t,
            receiver_channels=len(self.coils.gains),
            protocol=protocol_name(self.modality, self.view),
            te_ms=c.te_ms,
            tr_ms=(c.tr_ms,),
            ti_ms=c.ti_ms,
            flip_deg=(c.flip_deg,),
            patient=PatientInfo(birth_date=BIRTH_DATES[self.lifespan]),
            study=StudyInfo(study_date=STUDY_DATE),
        )


def protocol_name(modality: str, view: str) -> str:
    """A protocol name as sites choose them, for example ``cine_sax``."""
    short = {"short-axis": "sax", "long-axis": "lax"}.get(view, view.replace(" ", "_"))
    kind = {
        "late Gadolinium enhancement": "LGE_psir",
        "T1 mapping": "T1map_molli",
        "T1 mapping post": "T1map_molli_post",
    }
    return f"{kind.get(modality, modality.replace(' ', '_'))}_{short}"


def draw_subject(
    rng: np.random.Generator,
    *,
    phases: int | None = None,
    coils: int | None = None,
    vendor: str | None = None,
    model: str | None = None,
    field_t: float | None = None,
    modality: str | None = None,
    view: str | None = None,
    lifespan: str | None = None,
    breathing_mm: float | None = None,
    arrhythmia: float | None = None,
    infarct: bool | None = None,
    texture: float = 1.0,
    heart: str = "plain",
) -> Subject:
    """Draw a subject; arguments as in `draw_example`.

    Raises
    ------
    ConfigError
        For a value outside the vocabulary.
    """
    machine = _pick(rng, find_models(vendor=vendor, field_t=field_t, model=model))
    kind = _word("modality", modality, tuple(MODALITIES)) or _draw_modality(rng)
    seen = _word("view", view, VIEWS) or _draw_view(rng, kind)
    who = _word("lifespan", lifespan, LIFESPANS) or ("Pediatric" if rng.random() < 0.15 else "Adult")
    size = (
        float(rng.uniform(0.58, 0.82))
        if who == "Pediatric"
        else float(np.clip(rng.normal(1, 0.06), 0.85, 1.15))
    )
    agent = float(rng.uniform(0.6, 1.2)) if kind in WITH_AGENT else 0.0
    spread = np.exp(rng.normal(0, 0.05, (3, len(TISSUES))))
    tissue = relaxation(machine.nominal_t, spread=spread, gadolinium=agent)
    count = phases or PHASES[kind]
    weights = contrast(kind, tissue, field_t=machine.nominal_t, phases=count)
    scarred = (
        bool(rng.random() < (0.5 if kind == "late Gadolinium enhancement" else 0.1))
        if infarct is None
        else infarct
    )
    anatomy = draw_anatomy(rng, size=size)
    detail = draw_detail(rng, heart)
    ventricles = draw_heart(rng, size=size, infarct=scarred)
    irregular = 0.02 * float(rng.random() < 0.25) * rng.random() if arrhythmia is None else arrhythmia
    breath = float(rng.gamma(1.2, 0.8)) if breathing_mm is None else breathing_mm
    moments = draw_moments(
        rng,
        phases=count,
        moves=weights.moves,
        rr_ms=float(rng.uniform(700, 1050) * (0.68 if who == "Pediatric" else 1)),
        breathing_mm=breath,
        arrhythmia=float(irregular) if weights.moves else float(irregular) + 0.01,
    )
    scene = Scene(
        anatomy=anatomy,
        heart=ventricles,
        texture=Texture.draw(rng),
        moments=moments,
        contrast=weights,
        long_axis=seen == "long-axis",
        centre_mm=(float(rng.normal(34, 5)) * size, float(rng.normal(-10, 5)) * size),
        rv_rad=float(rng.normal(0.35, 0.12)),
        texture_depth=texture,
        detail=detail,
    )
    array = draw_coils(
        rng,
        vendor=machine.vendor,
        coils=coils or int(rng.integers(8, 17)),
        half_widths_mm=(anatomy.body.a, anatomy.body.b),
        size=size,
    )
    off = {0.55: 8, 1.5: 22, 3.0: 45, 5.0: 70}[machine.nominal_t]
    subject = Subject(
        scene=scene,
        machine=machine,
        coils=array,
        modality=kind,
        view=seen,
        lifespan=who,
        fov_mm=float(np.round(2 * anatomy.body.a * rng.uniform(1.03, 1.12) / 10) * 10),
        thickness_mm=float(rng.choice([6.0, 8.0])) * (0.8 if who == "Pediatric" else 1),
        receiver_gain=float(np.exp(rng.normal(0, 0.2))),
        phase_poly=rng.normal(0, [np.pi, 0.7, 0.7, 0.5, 0.5, 0.5]),
        field_poly=rng.normal(0, [0.4, 1, 1, 0.8, 0.8, 0.8]) * off,
        flip_poly=rng.normal(0, [0.05, 0.06, 0.06, 0.05, 0.08, 0.08]) * machine.nominal_t / 1.5,
        reference_rss=1.0,
    )
    return replace(subject, reference_rss=_rss_at_heart(subject))


def _rss_at_heart(subject: Subject) -> float:
    x, y = subject.scene.centre_mm
    axis = np.linspace(-20, 20, 5, dtype=np.float32)
    gy, gx = np.meshgrid(axis + np.float32(y), axis + np.float32(x), indexing="ij")
    plane = Plane(x=gx, y=gy, z=0.0, pixel_mm=10.0, thickness_mm=8.0)
    seen = whitened(subject.coils.sensitivities(plane, grid=6), subject.coils.covariance)
    return float(np.sqrt(np.mean(np.sum(np.abs(seen) ** 2, axis=0))))


def _pick(rng: np.random.Generator, models: list[Model]) -> Model:
    """One model, fields evenly first, so that rare fields are seen."""
    fields = sorted({m.nominal_t for m in models})
    chosen = fields[int(rng.integers(len(fields)))]
    fits = [m for m in models if m.nominal_t == chosen]
    return fits[int(rng.integers(len(fits)))]


def _word(name: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    for word in known:
        if word.lower() == value.lower():
            return word
    raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(known)}")


def _draw_modality(rng: np.random.Generator) -> str:
    odds = np.array([MODALITY_ODDS.get(m, 1.0) for m in MODALITIES])
    return str(rng.choice(list(MODALITIES), p=odds / odds.sum()))


def _draw_view(rng: np.random.Generator, modality: str) -> str:
    if modality == "phase contrast":
        return "through-plane"
    odds = 0.3 if modality in ("cine", "late Gadolinium enhancement") else 0.0
    return "long-axis" if rng.random() < odds else "short-axis"


__all__ = ["Contrast", "Subject", "draw_subject", "protocol_name"]
