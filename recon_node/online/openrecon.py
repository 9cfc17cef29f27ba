"""The JSON description that an OpenRecon container carries in a label, made from the node's settings.

Facts used: the label's value is base64 of JSON; at most 14 parameters; ISMRMRD over port 9002; the
chosen values arrive as JSON in a TEXT message. Rules after the vendor's published schema 1.1.0: ids of
letters and digits, numbers with both bounds (fractions in steps of 0.1), exactly one choice ``config``.
"""

from __future__ import annotations

import base64
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from recon_node.core.errors import ConfigError
from recon_node.methods.table import choices
from recon_node.schema import Setting
from recon_node.settings import Settings, every_setting

LABEL_NAME = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
MAX_PARAMETERS = 14
_TRANSFER_VERSION = "1.4.1"
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_KINDS = {bool: "boolean", int: "int", float: "double", str: "string"}
_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "int": (int,),
    "double": (float, int),
    "string": (str,),
    "choice": (str,),
}

Kind = Literal["choice", "boolean", "int", "double", "string"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One control on the scanner's card; `name` is the property that the node receives."""

    name: str
    kind: Kind
    label: str
    default: str | bool | int | float
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    information: str = ""

    def tree(self) -> dict[str, Any]:
        """As the label holds it."""
        tree: dict[str, Any] = {"id": self.name, "label": {"en": self.label}, "type": self.kind}
        if self.choices:
            tree["values"] = [{"id": choice, "name": {"en": choice}} for choice in self.choices]
        if self.minimum is not None:
            tree["minimum"] = self.minimum
        if self.maximum is not None:
            tree["maximum"] = self.maximum
        if self.information:
            tree["information"] = {"en": self.information}
        tree["default"] = self.default
        return tree


def parameters_from_settings(settings: Settings) -> list[Parameter]:
    """Controls for the settings whose fields say that the scanner's card shows them.

    Parameters
    ----------
    settings : Settings
        Its values are the defaults.

    Raises
    ------
    ConfigError
        A field of a kind that has no control.
    """
    return [
        parameter(setting, getattr(getattr(settings, setting.section), setting.key))
        for setting in every_setting()
        if setting.openrecon
    ]


def parameter(setting: Setting, default: Any) -> Parameter:
    """The control of one setting: a choice where it has words, else one of its kind.

    Raises
    ------
    ConfigError
        It is of a kind that has no control.
    """
    words = setting.choices or choices().get(setting.key, ())
    kind = "choice" if words else _KINDS.get(setting.kind or object)
    if kind is None:
        raise ConfigError(f"setting {setting.key} takes {setting.allowed}, and no control does")
    return Parameter(
        name=setting.peer or setting.key,
        kind=typing.cast("Kind", kind),
        label=(setting.peer or setting.key).replace("_", " ").capitalize(),
        default=default,
        choices=words,
        minimum=setting.bounds.get("ge"),
        maximum=setting.bounds.get("le"),
        information=" ".join(setting.doc.split()),
    )


def openrecon_label(
    parameters: Sequence[Parameter],
    *,
    version: str,
    configurations: Sequence[str] = ("default",),
    vendor: str = "recon-node",
    name: str = "recon-node",
    gpus: int = 0,
    gpu_memory_mb: int = 0,
    memory_mb: int = 8192,
    cores: int = 2,
) -> dict[str, Any]:
    """The label as a JSON-able tree, validated.

    Parameters
    ----------
    parameters : sequence of Parameter
        At most 13: the choice of the configuration comes first by itself.
    version : str
        Of this package, ``x.y.z``.
    configurations : sequence of str
        Configurations that the node's server knows; the first is the default.
    gpus, gpu_memory_mb, memory_mb, cores : int
        What the container needs at least.

    Raises
    ------
    ConfigError
        See `validate_label`.
    """
    config = Parameter(
        name="config",
        kind="choice",
        label="Configuration",
        default=configurations[0] if configurations else "",
        choices=tuple(configurations),
        information="Configuration of the node",
    )
    tree = {
        "general": {
            "name": {"en": name},
            "version": version,
            "vendor": vendor,
            "information": {
                "en": "CardioMM reconstruction of cardiac cine. Research use, not for clinical use."
            },
            "id": name,
            "regulatory_information": {
                "device_trade_name": name,
                "production_identifier": version,
                "manufacturer_address": "",
                "made_in": "",
                "manufacture_date": "",
                "material_number": f"{name}_{version}",
                "gtin": "",
                "udi": "",
                "safety_advices": "Not for clinical use.",
                "special_operating_instructions": "Research use only.",
                "additional_relevant_information": "",
            },
        },
        "reconstruction": {
            "transfer_protocol": {"protocol": "ISMRMRD", "version": _TRANSFER_VERSION},
            "port": 9002,
            "emitter": "raw",
            "injector": "image",
            "can_process_adjustment_data": True,
            "can_use_gpu": True,
            "min_count_required_gpus": gpus,
            "min_required_gpu_memory": gpu_memory_mb,
            "min_required_memory": memory_mb,
            "min_count_required_cpu_cores": cores,
            "content_qualification_type": "RESEARCH",
        },
        "parameters": [parameter.tree() for parameter in (config, *parameters)],
    }
    validate_label(tree)
    return tree


def validate_label(tree: Mapping[str, Any]) -> None:
    """Check what is known of the format.

    Raises
    ------
    ConfigError
        A part is missing, there are more than 14 parameters, an id is doubled or odd, a default is
        not of its kind, not among its choices or outside its range, or the version is not x.y.z.
    """
    missing = {"general", "reconstruction", "parameters"} - set(tree)
    if missing:
        raise ConfigError(f"label lacks {', '.join(sorted(missing))}")
    version = str(tree["general"].get("version"))
    if not _VERSION.fullmatch(version):
        raise ConfigError(f"label: version is {version!r}, expected x.y.z")
    parameters = tree["parameters"]
    if len(parameters) > MAX_PARAMETERS:
        raise ConfigError(f"label has {len(parameters)} parameters, the scanner takes {MAX_PARAMETERS}")
    ids = [parameter.get("id") for parameter in parameters]
    doubled = sorted({name for name in ids if ids.count(name) > 1})
    if doubled:
        raise ConfigError(f"label has parameter {', '.join(doubled)} more than once")
    if [p.get("type") for p in parameters if p.get("id") == "config"] != ["choice"]:
        raise ConfigError("label: expected exactly one parameter called config, of type choice")
    for parameter in parameters:
        _validate_parameter(parameter)


def _validate_parameter(parameter: Mapping[str, Any]) -> None:
    name, kind, default = (parameter.get(part) for part in ("id", "type", "default"))
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise ConfigError(f"label: parameter id is {name!r}, expected letters and digits")
    if kind not in _TYPES:
        raise ConfigError(f"label: parameter {name} is of type {kind!r}, expected {', '.join(_TYPES)}")
    if not isinstance(default, _TYPES[kind]) or (isinstance(default, bool) and kind != "boolean"):
        raise ConfigError(f"label: parameter {name} has default {default!r}, which is no {kind}")
    values = [value.get("id") for value in parameter.get("values", ())]
    if kind == "choice" and default not in values:
        raise ConfigError(f"label: parameter {name} has default {default!r}, expected one of {values}")
    if kind in {"int", "double"}:
        _validate_bounds(parameter)


def _validate_bounds(parameter: Mapping[str, Any]) -> None:
    name, default = parameter["id"], parameter["default"]
    low, high = parameter.get("minimum"), parameter.get("maximum")
    if low is None or high is None:
        raise ConfigError(f"label: parameter {name} lacks a bound, expected minimum and maximum")
    if not low <= default <= high:
        raise ConfigError(f"label: parameter {name} has default {default}, outside {low} to {high}")
    if parameter["type"] == "double" and any(abs(10 * b - round(10 * b)) > 1e-9 for b in (low, high)):
        raise ConfigError(f"label: parameter {name} has bounds {low} to {high}, expected steps of 0.1")


def encoded_label(tree: Mapping[str, Any]) -> str:
    """The label's value: base64 of the JSON."""
    return base64.b64encode(json.dumps(tree).encode()).decode()


def dockerfile_line(tree: Mapping[str, Any]) -> str:
    """The line for the Dockerfile."""
    return f'LABEL "{LABEL_NAME}"="{encoded_label(tree)}"'
