"""One tree of settings: defaults < node.toml < environment < flags. An unknown key is an error.

Environment variables are named ``RECON_NODE__SECTION__KEY`` (two underscores between the parts), for
example ``RECON_NODE__SERVER__PORT=9003``; lists are comma-separated.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recon_node.core.errors import ConfigError
from recon_node.methods.table import check_method, check_stand_in

CONFIG_VARIABLE = "RECON_NODE_CONFIG"
"""Environment variable that names the settings file where no flag does (the gadget has no flags)."""
_ENV_PREFIX = "RECON_NODE__"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepSettings:
    """How raw data becomes k-space."""

    group: str | None = None
    """Dataset to read of an HDF5 file that holds several."""
    orientation: Literal["auto", "conjugate", "as-is"] = "auto"
    """`auto` conjugates Siemens k-space that carries direction vectors, and warns that other vendors' images
    may be mirrored; the others are for sites that compared."""
    dynamic: Literal["auto", "phase", "contrast", "repetition", "set"] = "auto"
    """Counter that becomes the time axis."""
    noise: Literal["auto", "none", "unit-parts"] = "auto"
    """`auto` whitens with the noise scan; `none` leaves the data alone; `unit-parts` is for data that
    Gadgetron's NoiseAdjust whitened before."""
    gating: Literal["prospective", "retrospective"] = "prospective"
    """`prospective` takes the phase counter; `retrospective` sorts the readouts of each slice into `phases`
    cardiac phases by its heartbeats."""
    r_waves: Literal["auto", "stamps", "triggers", "ecg"] = "auto"
    """Where retrospective gating sees heartbeats: physiology time stamps, trigger marks of a waveform, or the
    trace of an ECG; `auto` takes the first of these that has any."""
    phases: int = 25
    """Cardiac phases of retrospective gating."""
    fill: Literal["none", "share", "interpolate"] = "none"
    """Lines that a gated phase misses: left to the reconstruction, shared from the nearest phase, or every
    line interpolated in time."""
    rr_tolerance: float = 0.2
    """Beats whose RR interval differs by more than this fraction from the median are rejected."""
    compression: Literal["none", "pca", "geometric"] = "none"
    """Fewer virtual coils."""
    virtual_coils: int | None = None
    """How many; by default as many as rise above the noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoilSettings:
    """ESPIRiT."""

    kernel: int = 6
    """Side of the k-space kernels in samples; 4 or 5 suits fewer than about 16 calibration lines better."""
    threshold: float | Literal["auto"] = 0.02
    """Singular values below this fraction of the largest are noise; `auto` takes the noise level of whitened
    data (0.02 where it is not known)."""
    maps: int = 1
    """Map sets: 2 where the object is larger than the field of view (networks use the first)."""
    crop: float = 0.8
    """Maps end where their eigenvalue falls below this."""
    soft: bool = False
    """Fade maps out around `crop` instead of cutting them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconSettings:
    """Which method makes the images, and what happens when it is not to be trusted."""

    method: str = "cardiomm"
    """A built-in method, one of an installed package, or ``module:Class`` (docs/plugins.md)."""
    weights: str = "default"
    """Name of shipped weights, or a file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is used where the first slice shows that it changes next to nothing."""
    chunk: int | None = None
    """Frames that go through the network together; found by the device where it is not set."""
    compile: bool = False
    """Compile the network: tens of seconds at the first slice of each shape."""
    coil_maps: Literal["auto", "espirit", "learned"] = "auto"
    """Maps the network gets: ``auto`` takes those it was trained with, learned ones where it has them."""
    encoder_folder: str | None = None
    """Folder of a CLIP text tower, where the weights want one."""
    fallback: str = "sense"
    """Method whose images stand in where the network's are withheld; one that learned nothing."""
    on_distrust: Literal["warn", "fallback"] = "fallback"
    """What a failed trust check does: keep the image with a warning, or withhold it."""
    check_trust: bool = True
    partial_fourier: Literal["zero", "homodyne", "pocs"] = "zero"
    """The side of k-space that was never measured: left zero, or filled by symmetry after the
    reconstruction."""

    def __post_init__(self) -> None:
        check_method(self.method, "recon.method")
        check_stand_in(self.fallback, "recon.fallback")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSettings:
    """Words that replace what the header says, by slot."""

    lifespan: str | None = None
    field: str | None = None
    vendor: str | None = None
    scanner: str | None = None
    modality: str | None = None
    view: str | None = None

    def overrides(self) -> dict[str, str]:
        """The slots that are set."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSettings:
    """What instances hold, and what the site adds to them."""

    images: tuple[str, ...] = ("magnitude",)
    """One series each of: magnitude, phase, velocity (set 0 is its reference), t1, t2 (of a scan whose
    `prep.dynamic` is contrast)."""
    venc_cm_s: float | None = None
    """Velocity that turns the phase by 180 degrees."""
    turn: Literal["none", "radiological"] = "none"
    """`radiological`: mirror or transpose until the patient's left is on the right of the picture."""
    format: Literal["mr", "enhanced-mr", "legacy-enhanced-mr"] = "mr"
    """An instance for each image, or one with all images of a series."""
    compression: Literal["none", "rle", "jpeg-ls", "jpeg-2000"] = "none"
    """Lossless."""
    mark: Literal["none", "overlay", "burn"] = "none"
    """How a trust verdict other than pass is written on the picture."""
    institution: str | None = None
    """This and the following stand in where the header is silent."""
    department: str | None = None
    """InstitutionalDepartmentName."""
    station: str | None = None
    """StationName."""
    manufacturer: str | None = None
    """Of the scanner."""
    patient_name: str | None = None
    """For phantoms and volunteers whose header has none."""
    study_description: str | None = None
    """StudyDescription."""
    series_number_offset: int = 1000
    """Added to every SeriesNumber, above those of the scanner's own series."""
    uid_prefix: str | None = None
    """UID root of the site, ending in a dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """Where instances go."""

    spool: str = "~/.local/state/recon-node/spool"
    """Folder of the durable queue."""
    destinations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name: tables with `address` and the options of that kind of destination."""
    calling_ae_title: str = "RECON-NODE"
    """The AE title under which PACS know this node."""
    to: tuple[str, ...] = ()
    """Destinations every series goes to."""
    routes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Rules by name: tables with `to`, `priority` and patterns by DICOM keyword."""
    priority: int = 5
    """0 to 9, higher goes first, to the device and (where no rule says otherwise) out of the spool."""
    parallel: int = 1
    """Connections to each destination at a time."""
    listen: str | None = None
    """dicom:// or dicoms:// address of our own, to which PACS report storage commitment."""
    grace_s: float = 0.0
    """Without storage commitment: how long after its success an instance counts as delivered."""
    retention_h: float = 24.0
    """How long delivered files stay in the spool."""
    reserve_mb: int = 500
    """Free space on the disks of spool, images and deferred scans below which no new scan is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The MRD server."""

    host: str = "127.0.0.1"
    port: int = 9002
    max_connections: int = 4
    """Scans served at a time."""
    waiting: int = 8
    """More connections that may wait for their turn; others are refused."""
    timeout_s: float = 60.0
    """Silence after which a connection is given up."""
    drain_s: float = 30.0
    """How long running scans may go on after SIGTERM or Ctrl-C."""
    out: str = "images"
    """Folder for DICOM instances."""
    mode: Literal["direct", "deferred", "retrieve"] = "direct"
    """`deferred` answers with the fallback's images and makes the method's after the connection has closed;
    `retrieve` hands back what was deferred for the same patient."""
    deferred: str = "~/.local/state/recon-node/deferred"
    """Folder of deferred scans."""
    deferred_limit_mb: int = 20_000
    """Space for them; finished ones make room first."""
    queue: Literal["newest", "oldest"] = "newest"
    """Which scan's slice goes first where several wait for the device (deferred scans go last)."""
    slices_ahead: int = 2
    """Slices that may wait in memory while another is reconstructed; then the sender has to wait."""
    on_vanish: Literal["finish", "stop"] = "finish"
    """A client that vanishes: `finish` its complete slices to DICOM, or `stop` at once."""
    allowed_peers: tuple[str, ...] = ()
    """Addresses or networks that may connect; empty allows all that can reach `host`."""
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    """With it, clients must show a certificate of this authority."""
    record: str | None = None
    """Folder that keeps every incoming stream."""
    record_limit_mb: int = 10_000
    health_port: int | None = None
    """Port of /healthz, /readyz and /metrics on loopback; none by default."""
    configurations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Named configurations a client may ask for: tables of recon settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What ``serve`` logs, without patient data at every level."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    prep: PrepSettings = PrepSettings()
    coils: CoilSettings = CoilSettings()
    recon: ReconSettings = ReconSettings()
    prompts: PromptSettings = PromptSettings()
    dicom: DicomSettings = DicomSettings()
    delivery: DeliverySettings = DeliverySettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()

    def replace(self, section: str, **values: Any) -> Settings:
        """A copy with keys of one section changed, checked like the file.

        Raises
        ------
        ConfigError
            Unknown section or key, or a value of the wrong kind.
        """
        return _merged(self, {section: values}, "flags")


def load_settings(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Defaults, then the file, then the environment.

    Parameters
    ----------
    path : Path, optional
        A TOML file with one table per section; ``RECON_NODE_CONFIG`` names it where this is None.
    environment : mapping, optional
        Defaults to the process environment.

    Raises
    ------
    ConfigError
        File unreadable or not TOML, unknown section or key, value of the wrong kind.
    """
    variables = os.environ if environment is None else environment
    settings = Settings()
    if path is None and CONFIG_VARIABLE in variables:
        path = Path(variables[CONFIG_VARIABLE])
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"settings {path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"settings {path} are not TOML: {error}") from error
        settings = _merged(settings, tree, str(path))
    return _merged(settings, _from_environment(variables), "environment")


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for name, text in environment.items():
        if not name.startswith(_ENV_PREFIX):
            continue
        parts = name[len(_ENV_PREFIX) :].lower().split("__")
        if len(parts) != 2:
            raise ConfigError(f"environment variable {name}: expected {_ENV_PREFIX}SECTION__KEY")
        tree.setdefault(parts[0], {})[parts[1]] = text
    return tree


def _merged(settings: Settings, tree: Mapping[str, Any], where: str) -> Settings:
    known = {f.name for f in dataclasses.fields(Settings)}
    unknown = sorted(set(tree) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown section {unknown}, expected some of {sorted(known)}")
    changed = {
        name: _section(getattr(settings, name), table, f"{where} [{name}]") for name, table in tree.items()
    }
    return dataclasses.replace(settings, **changed)


def _section(section: Any, table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: found {table!r}, expected a table of keys")
    hints = typing.get_type_hints(type(section))
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown}, expected some of {sorted(hints)}")
    return dataclasses.replace(section, **{k: _value(hints[k], v, f"{where} {k}") for k, v in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _one_of(options, value, where)
    if origin is Literal:
        if value not in options:
            raise ConfigError(f"{where}: found {value!r}, expected one of {', '.join(map(str, options))}")
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(str(item).strip() for item in items)
    if origin is not None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: found {value!r}, expected a table")
        return {str(k): v for k, v in value.items()}
    return _scalar(hint, value, where)


def _one_of(options: tuple[Any, ...], value: Any, where: str) -> Any:
    """Value of a union: absent, a word of one of its literals, or else of its first kind."""
    if types.NoneType in options and value in (None, "none"):
        return None
    for option in options[1:]:
        if typing.get_origin(option) is Literal and value in typing.get_args(option):
            return value
    return _value(options[0], value, where)


def _scalar(kind: type[Any], value: Any, where: str) -> Any:
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false", "1", "0"):
        return value.lower() in ("true", "1")
    wrong_kind = isinstance(value, bool) is not (kind is bool) or (kind is str and not isinstance(value, str))
    try:
        if not wrong_kind:
            return kind(value)
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"{where}: found {value!r}, expected {kind.__name__}")
