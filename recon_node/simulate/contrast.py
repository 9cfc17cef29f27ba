"""What each tissue looks like: relaxation table by field strength and signal equations by modality.

T1 and T2 (ms) are rounded from published measurements: 1.5 T and 3 T from Stanisz et al., MRM 54:507
(2005), Bojorquez et al., MRI 35:69 (2017) and, for the heart, healthy volunteers at 3 T (von
Knobelsdorff-Brenkenhoff et al., JCMR 15:53, 2013); 0.55 T after Campbell-Washburn et al., Radiology
293:384 (2019); myocardium at 5 T from volunteers scanned at both fields (Myocardial T1 and T2 mapping
at 5.0 T, 2025 preprint: T1 1453 ms, T2 37.5 ms). What none of them gives (5 T elsewhere, scar, T2*) is
extrapolated along the field. A few per cent of spread is drawn per subject. At 5 T cine is spoiled
(Lin et al., Front Cardiovasc Med 9:913707, 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError
from recon_node.core.physics import GYROMAGNETIC_HZ_PER_T

FloatArray = NDArray[np.float64]

TISSUES = ("air", "lung", "fat", "muscle", "myocardium", "blood", "liver", "spleen", "bone", "fluid", "scar")
"""Order of the tissue axis everywhere in this package."""
AIR, LUNG, FAT, MUSCLE, MYOCARDIUM, BLOOD, LIVER, SPLEEN, BONE, FLUID, SCAR = range(len(TISSUES))

FIELDS_T = (0.55, 1.5, 3.0, 5.0)
"""Field strengths of the table; others are interpolated in log(field)."""

PROTON_DENSITY = np.array([0.0, 0.14, 0.45, 0.80, 0.82, 0.88, 0.76, 0.82, 0.35, 1.0, 0.84])
"""Relative; fat counts half, as its spectral lines dephase each other."""
T1_MS = np.array(
    [
        #  air  lung  fat  musc  myo  blood liver splen bone fluid scar
        [1e3, 971, 187, 701, 701, 1122, 339, 645, 220, 2300, 760],
        [1e3, 1050, 290, 1008, 990, 1550, 590, 1060, 280, 2600, 1090],
        [1e3, 1220, 370, 1412, 1220, 1870, 810, 1330, 370, 3000, 1340],
        [1e3, 1350, 420, 1550, 1450, 2100, 950, 1500, 430, 3300, 1600],
    ]
)
T2_MS = np.array(
    [
        [1.0, 50, 95, 48, 60, 263, 66, 110, 60, 1200, 68],
        [1.0, 41, 85, 44, 50, 230, 50, 88, 50, 1100, 58],
        [1.0, 35, 75, 40, 44, 150, 38, 68, 45, 900, 52],
        [1.0, 30, 70, 36, 37.5, 110, 32, 58, 40, 800, 47],
    ]
)
T2_STAR_MS = np.array(
    [
        [0.5, 8.0, 40, 40, 50, 180, 40, 60, 12, 400, 45],
        [0.5, 2.0, 25, 30, 36, 120, 28, 42, 6, 250, 33],
        [0.5, 0.9, 18, 22, 26, 60, 17, 28, 4, 150, 24],
        [0.5, 0.6, 13, 16, 19, 40, 12, 20, 3, 100, 17],
    ]
)
RELAXIVITY_BLOOD_CONCENTRATION = np.array([0, 0.5, 0.1, 0.25, 0.45, 1.0, 0.7, 0.8, 0.2, 0.05, 1.15])
"""Gadolinium ten minutes after injection, relative to blood (partition coefficients; scar enhances most)."""
GADOLINIUM_R1_PER_S = 1.9
"""Rise of blood R1 ten minutes after 0.15 mmol/kg."""
SINGLE_SHOT = 0.6
"""Share of a segmented scan's signal-to-noise ratio that a frame taken in one or a few beats has."""
FIRST_PASS_R1_PER_S = 14.0
"""Rise of blood R1 at the peak of the first pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """Tissue properties at one field strength; every array is `(tissue,)`."""

    density: FloatArray
    t1_ms: FloatArray
    t2_ms: FloatArray
    t2_star_ms: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """How one scan weights the tissues."""

    signals: FloatArray
    """`(phase, tissue)`: transverse magnetisation, signed (fat in opposed phase, before the null)."""
    rv_blood: FloatArray
    """`(phase,)`: blood of the right heart, which differs from the left in a first pass."""
    te_ms: tuple[float, ...]
    tr_ms: float
    flip_deg: float
    ti_ms: tuple[float, ...] = ()
    efficiency: float = 1.0
    """Signal-to-noise ratio beside a segmented scan (single shots have wider bandwidth)."""
    moves: bool = True
    """Phases follow the cardiac cycle (cine); otherwise all are taken at one moment of it."""
    steady_state: bool = False
    """Balanced readout: banding where the field is off."""
    tag_spacing_mm: float = 0.0
    echo_ms: FloatArray = field(default_factory=lambda: np.zeros(0))
    """`(phase,)` echo times where they differ (T2*), for off-resonance phase."""


def relaxation(field_t: float, *, spread: FloatArray | None = None, gadolinium: float = 0.0) -> Relaxation:
    """Tissue table at `field_t` tesla.

    Parameters
    ----------
    field_t : float
        0.2 to 7 T; interpolated in log(field), held outside 0.55 to 5 T.
    spread : numpy.ndarray, optional
        `(3, tissue)` factors on density, T1 and T2.
    gadolinium : float
        Contrast agent left, 1 ten minutes after injection.

    Raises
    ------
    ConfigError
        For a field strength outside 0.2 to 7 T.
    """
    if not 0.2 <= field_t <= 7:
        raise ConfigError(f"field strength is {field_t} T, expected 0.2 to 7")
    factor = np.ones((3, len(TISSUES))) if spread is None else spread
    t1 = _at_field(T1_MS, field_t) * factor[1]
    rise = gadolinium * GADOLINIUM_R1_PER_S * RELAXIVITY_BLOOD_CONCENTRATION
    return Relaxation(
        density=PROTON_DENSITY * factor[0],
        t1_ms=1 / (1 / t1 + rise / 1e3),
        t2_ms=_at_field(T2_MS, field_t) * factor[2],
        t2_star_ms=_at_field(T2_STAR_MS, field_t) * factor[2],
    )


def _at_field(table: FloatArray, field_t: float) -> FloatArray:
    at = np.log(field_t)
    return np.array([np.interp(at, np.log(FIELDS_T), column) for column in table.T])


def bssfp(tissue: Relaxation, *, flip_deg: float, tr_ms: float) -> FloatArray:
    """On-resonance balanced steady state at TE = TR/2 (Freeman-Hill; Scheffler, Eur Radiol 13:2409, 2003)."""
    flip = np.deg2rad(flip_deg)
    e1, e2 = np.exp(-tr_ms / tissue.t1_ms), np.exp(-tr_ms / tissue.t2_ms)
    steady = (1 - e1) / (1 - (e1 - e2) * np.cos(flip) - e1 * e2)
    return np.asarray(tissue.density * np.sin(flip) * np.sqrt(e2) * steady)


def spoiled(tissue: Relaxation, *, flip_deg: float, tr_ms: float, te_ms: float) -> FloatArray:
    """Spoiled gradient echo in steady state (Ernst-Anderson)."""
    flip = np.deg2rad(flip_deg)
    e1 = np.exp(-tr_ms / tissue.t1_ms)
    steady = (1 - e1) / (1 - e1 * np.cos(flip))
    return np.asarray(tissue.density * np.sin(flip) * steady * np.exp(-te_ms / tissue.t2_star_ms))


def inversion(tissue: Relaxation, ti_ms: FloatArray, *, efficiency: float = 0.96) -> FloatArray:
    """`(time, tissue)` longitudinal magnetisation after an inversion from equilibrium."""
    return np.asarray(1 - (1 + efficiency) * np.exp(-ti_ms[:, None] / tissue.t1_ms))


def null_time_ms(t1_ms: float, *, efficiency: float = 0.96) -> float:
    """Inversion time at which a tissue of this T1 gives no signal."""
    return float(t1_ms * np.log(1 + efficiency))


Maker = Callable[[Relaxation, float, int], Contrast]


def _plain(signals: FloatArray, phases: int) -> FloatArray:
    return np.repeat(np.atleast_2d(signals), phases, axis=0) if np.ndim(signals) == 1 else signals


def _fat_opposed(signals: FloatArray) -> FloatArray:
    out = signals.copy()
    out[..., FAT] *= -1
    return out


def _cine(tissue: Relaxation, field_t: float, phases: int) -> Contrast:
    if field_t > 4:  # at 5 T cine is often spoiled: banding and heating forbid bSSFP at full flip
        return _flow(tissue, field_t, phases)
    tr, flip = {0.55: (4.4, 75.0), 1.5: (3.0, 65.0)}.get(round(field_t, 2), (3.4, 48.0))
    signals = _plain(_fat_opposed(bssfp(tissue, flip_deg=flip, tr_ms=tr)), phases)
    return Contrast(
        signals=signals,
        rv_blood=signals[:, BLOOD],
        te_ms=(tr / 2,),
        tr_ms=tr,
        flip_deg=flip,
        steady_state=True,
    )


def _flow(tissue: Relaxation, field_t: float, phases: int) -> Contrast:
    tr, te, flip = 5.2, 2.6, 15.0 if field_t < 4 else 12.0
    signals = spoiled(tissue, flip_deg=flip, tr_ms=tr, te_ms=te)
    signals[BLOOD] = 0.75 * tissue.density[BLOOD] * np.sin(np.deg2rad(flip))  # fresh blood flows in
    signals = _plain(signals, phases)
    return Contrast(signals=signals, rv_blood=signals[:, BLOOD], te_ms=(te,), tr_ms=tr, flip_deg=flip)


def _t1_mapping(tissue: Relaxation, _field_t: float, phases: int) -> Contrast:
    beats = np.arange(phases)
    ti = np.sort(
        np.where(beats % 3 == 0, 110.0, np.where(beats % 3 == 1, 190.0, 270.0)) + 950.0 * (beats // 3)
    )
    signals = inversion(tissue, ti) * _fat_opposed(bssfp(tissue, flip_deg=35, tr_ms=2.7))
    return Contrast(
        signals=signals,
        rv_blood=signals[:, BLOOD],
        te_ms=(1.1,),
        tr_ms=2.7,
        flip_deg=35,
        ti_ms=tuple(map(float, ti)),
        moves=False,
        efficiency=SINGLE_SHOT,
        steady_state=True,
    )


def _prepared(base: FloatArray, decay: FloatArray, phases: int, te: tuple[float, ...]) -> Contrast:
    signals = base * decay
    return Contrast(
        signals=signals,
        rv_blood=signals[:, BLOOD],
        te_ms=te,
        tr_ms=2.9,
        flip_deg=50,
        moves=False,
        efficiency=SINGLE_SHOT,
        steady_state=True,
    )


def _t2_mapping(tissue: Relaxation, _field_t: float, phases: int) -> Contrast:
    prep = np.linspace(0, 55, phases) if phases > 1 else np.array([40.0])
    base = _fat_opposed(bssfp(tissue, flip_deg=50, tr_ms=2.9))
    return _prepared(base, np.exp(-prep[:, None] / tissue.t2_ms), phases, tuple(map(float, prep + 1.4)))


def _t1_rho_mapping(tissue: Relaxation, _field_t: float, phases: int) -> Contrast:
    lock = np.linspace(0, 50, phases) if phases > 1 else np.array([30.0])
    t1_rho = 1.15 * tissue.t2_ms  # spin lock at 500 Hz: a little above T2
    base = _fat_opposed(bssfp(tissue, flip_deg=50, tr_ms=2.9))
    return _prepared(base, np.exp(-lock[:, None] / t1_rho), phases, (1.4,))


def _t2_star_mapping(tissue: Relaxation, field_t: float, phases: int) -> Contrast:
    te = 1.6 + np.arange(phases) * (2.2 if field_t < 2 else 1.7)
    excited = spoiled(tissue, flip_deg=20, tr_ms=20, te_ms=0)
    fat_hz = 3.4e-6 * GYROMAGNETIC_HZ_PER_T * field_t
    signals = excited * np.exp(-te[:, None] / tissue.t2_star_ms)
    signals[:, FAT] *= np.cos(2 * np.pi * fat_hz * te / 1e3)
    signals[:, BLOOD] *= 0.35  # double inversion darkens it
    return Contrast(
        signals=signals,
        rv_blood=signals[:, BLOOD],
        te_ms=tuple(map(float, te)),
        tr_ms=20,
        flip_deg=20,
        moves=False,
        efficiency=SINGLE_SHOT,
        echo_ms=np.asarray(te, float),
    )


def _late_enhancement(tissue: Relaxation, _field_t: float, phases: int) -> Contrast:
    ti = null_time_ms(float(tissue.t1_ms[MYOCARDIUM])) * 1.03
    signals = inversion(tissue, np.array([ti]))[0] * tissue.density * np.sin(np.deg2rad(22))
    signals[FAT] *= 0.8
    return Contrast(
        signals=_plain(signals, phases),
        rv_blood=np.full(phases, signals[BLOOD]),
        te_ms=(1.6,),
        tr_ms=4.1,
        flip_deg=22,
        ti_ms=(ti,),
        moves=False,
        efficiency=SINGLE_SHOT,
    )


def gamma_variate(t: FloatArray, *, start: float, peak: float, power: float = 2.5) -> FloatArray:
    """First-pass bolus, 1 at `peak` (Thompson, Circ Res 14:502, 1964)."""
    x = np.maximum(t - start, 0) / (peak - start)
    return np.asarray(x**power * np.exp(power * (1 - x)))


def _perfusion(tissue: Relaxation, _field_t: float, phases: int) -> Contrast:
    t = np.linspace(0, 1, phases)
    rv = gamma_variate(t, start=0.08, peak=0.25)
    lv = gamma_variate(t, start=0.2, peak=0.42) + 0.25 * np.clip(2 * t - 0.8, 0, 1)
    uptake = np.zeros((phases, len(TISSUES)))
    for name, share, start, peak in (
        (MYOCARDIUM, 0.22, 0.32, 0.62),
        (MUSCLE, 0.05, 0.4, 0.95),
        (LIVER, 0.10, 0.45, 0.98),
        (SPLEEN, 0.20, 0.36, 0.75),
        (LUNG, 0.35, 0.18, 0.4),
    ):
        uptake[:, name] = share * gamma_variate(t, start=start, peak=peak, power=1.2)
    uptake[:, BLOOD] = lv
    recovery = 110.0  # ms after saturation

    def saturated(r1_rise: FloatArray, which: int | slice) -> FloatArray:
        rate = 1e3 / tissue.t1_ms[which] + FIRST_PASS_R1_PER_S * r1_rise
        return np.asarray(
            tissue.density[which] * (1 - np.exp(-recovery * rate / 1e3)) * np.sin(np.deg2rad(15))
        )

    signals = saturated(uptake, slice(None))
    return Contrast(
        signals=signals,
        rv_blood=saturated(rv, BLOOD),
        te_ms=(1.1,),
        tr_ms=2.3,
        flip_deg=15,
        ti_ms=(recovery,),
        moves=False,
        efficiency=SINGLE_SHOT,
    )


def _tagging(tissue: Relaxation, field_t: float, phases: int) -> Contrast:
    flow = _flow(tissue, field_t, phases)
    signals = flow.signals.copy()
    signals[:, BLOOD] *= np.linspace(0.9, 0.6, phases)
    return Contrast(
        signals=signals,
        rv_blood=signals[:, BLOOD],
        te_ms=flow.te_ms,
        tr_ms=flow.tr_ms,
        flip_deg=10,
        tag_spacing_mm=7.5,
    )


def _spin_echo(te: float, tr: float, blood: float) -> Maker:
    def make(tissue: Relaxation, _field_t: float, phases: int) -> Contrast:
        signals = tissue.density * (1 - np.exp(-tr / tissue.t1_ms)) * np.exp(-te / tissue.t2_ms)
        signals[BLOOD] *= blood  # double inversion or outflow
        signals *= 0.35  # one readout per beat, on the scale of the gradient echoes
        return Contrast(
            signals=_plain(signals, phases),
            rv_blood=np.full(phases, signals[BLOOD]),
            te_ms=(te,),
            tr_ms=tr,
            flip_deg=90,
            moves=False,
            efficiency=SINGLE_SHOT,
        )

    return make


MODALITIES: Mapping[str, Maker] = {
    "cine": _cine,
    "T1 mapping": _t1_mapping,
    "T1 mapping post": _t1_mapping,
    "T1 rho mapping": _t1_rho_mapping,
    "T2 mapping": _t2_mapping,
    "T2 star mapping": _t2_star_mapping,
    "tagging": _tagging,
    "phase contrast": _flow,
    "perfusion": _perfusion,
    "late Gadolinium enhancement": _late_enhancement,
    "blackblood": _spin_echo(30, 1600, 0.08),
    "T1 weighted": _spin_echo(12, 800, 0.12),
    "T2 weighted": _spin_echo(75, 2200, 0.10),
}
"""The modality vocabulary of CardioMM's prompts and how each weights the tissues."""

PHASES: Mapping[str, int] = {
    "cine": 25,
    "T1 mapping": 9,
    "T1 mapping post": 9,
    "T1 rho mapping": 5,
    "T2 mapping": 4,
    "T2 star mapping": 8,
    "tagging": 18,
    "phase contrast": 25,
    "perfusion": 40,
    "late Gadolinium enhancement": 1,
    "blackblood": 1,
    "T1 weighted": 1,
    "T2 weighted": 1,
}
"""Frames that a scan of each modality usually has."""

WITH_AGENT = ("T1 mapping post", "late Gadolinium enhancement")


def contrast(modality: str, tissue: Relaxation, *, field_t: float, phases: int) -> Contrast:
    """How `modality` at `field_t` weights the tissues in each of `phases` frames.

    Raises
    ------
    ConfigError
        For a modality outside the vocabulary.
    """
    if modality not in MODALITIES:
        raise ConfigError(f"modality is {modality!r}, expected one of {', '.join(MODALITIES)}")
    return MODALITIES[modality](tissue, field_t, phases)
