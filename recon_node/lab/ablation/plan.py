"""What an ablation trains and compares, from one TOML file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from recon_node.core import durable
from recon_node.core.errors import ConfigError
from recon_node.lab.training.config import TrainConfig, train_config_from_dict
from recon_node.schema import Checked, Refused, checked, make, read_toml, setting
from recon_node.simulate import MODALITIES

LABEL = "ablation plan"
KEPT = "plan.json"
"""In the folder of results: the plan that they are of."""
Arm = Literal["none", "undersampling", "metadata", "both", "shuffled"]
TEXTS: Mapping[Arm, tuple[bool, bool]] = {
    "none": (False, False),
    "undersampling": (False, True),
    "metadata": (True, False),
    "both": (True, True),
    "shuffled": (True, True),
}
"""Whether an arm's network sees the metadata text, and the undersampling text."""


@checked(section="plan", label=LABEL)
class Size(Checked):
    """Arms, seeds and test cases."""

    arms: tuple[Arm, ...] = setting(tuple(TEXTS), min_length=2)
    """Networks that are told apart by what they are told."""
    seeds: tuple[Annotated[int, Field(ge=0, le=10**9)], ...] = setting((0, 1), min_length=1)
    """Each network is trained once with each."""
    test_scans: Annotated[int, Field(ge=2, le=10**4)] = 12
    """Drawn scans of each set of contrasts that no network was trained on."""
    test_hearts: Annotated[int, Field(ge=0, le=10**4)] = 10
    """Real clips, evenly taken from the folder that the command names."""


@checked(label=LABEL)
class Plan(Checked):
    """A whole ablation."""

    plan: Size = Size()
    starts: Mapping[str, Mapping[str, Any]] = setting(factory=lambda: {"single": {}})
    """Name to the settings of `[model]` that a start changes."""
    contrasts: Mapping[str, tuple[str, ...]] = setting(factory=lambda: {"one": ("cine",)})
    """Name to the modalities that are mixed evenly."""
    train: Mapping[str, Any] = setting(factory=dict)
    """Settings of every training run."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for key in ("starts", "contrasts"):
            if not getattr(self, key):
                raise Refused("at least one", key=key, found={})
        for name, modalities in self.contrasts.items():
            unknown = [one for one in modalities if one not in MODALITIES]
            if unknown or not modalities:
                wanted = f"one or more of {', '.join(MODALITIES)}"
                raise Refused(wanted, key=("contrasts", name), found=(unknown or ["nothing"])[0])
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a plan."""

    arm: Arm
    start: str
    contrast: str
    seed: int

    @property
    def key(self) -> str:
        """Its name, in files and folders as well."""
        return f"{self.start}-{self.contrast}-{self.seed}-{self.arm}"


def networks(plan: Plan) -> Iterator[Network]:
    """Every network, ordered so that a run that is stopped has whole comparisons: seeds change last."""
    for seed in plan.plan.seeds:
        for start in plan.starts:
            for contrast in plan.contrasts:
                for arm in plan.plan.arms:
                    yield Network(arm=arm, start=start, contrast=contrast, seed=seed)


def training_of(plan: Plan, network: Network, folder: Path) -> TrainConfig:
    """The settings of one network's training; its run lies in `folder`, prepared examples are shared.

    Raises
    ------
    ConfigError
        The plan's `train` is not made of settings of training.
    """
    tree = json.loads(json.dumps(plan.train))
    for section in ("model", "data", "text", "run"):
        if not isinstance(tree.setdefault(section, {}), dict):
            raise ConfigError(f"{LABEL} [train]: {section} is no table of settings")
    metadata, undersampling = TEXTS[network.arm]
    tree["model"] |= {
        **plan.starts[network.start],
        "metadata_text": metadata,
        "undersampling_text": undersampling,
    }
    tree["data"] |= {
        "source": "simulator",
        "modalities": list(plan.contrasts[network.contrast]),
        "pool": str(folder / "pool"),
    }
    tree["text"]["shuffled"] = network.arm == "shuffled"
    tree["run"] |= {"name": network.key, "out": str(folder / "networks" / network.key), "seed": network.seed}
    return train_config_from_dict(tree)


def load_plan(path: Path) -> Plan:
    """Read a plan: a file, or the name of one that is shipped.

    Raises
    ------
    ConfigError
        No such file or plan, a mistake in it, or settings that no network can be trained with.
    """
    if not path.is_file():
        shipped = {one.stem: one for one in sorted(Path(__file__).with_name("plans").glob("*.toml"))}
        if str(path) not in shipped:
            known = ", ".join(shipped)
            raise ConfigError(f"{LABEL} {path}: no such file, and no plan of that name ({known})")
        path = shipped[str(path)]
    tree = read_toml(path, LABEL)
    plan = make(Plan, tree)
    for network in networks(plan):
        training_of(plan, network, Path())
    return plan


def planned(plan: Plan, folder: Path) -> None:
    """Keep the plan in the folder of its results before anything is trained.

    Raises
    ------
    ConfigError
        The folder has results of another plan.
    """
    text = json.dumps(dataclasses.asdict(plan), indent=1, sort_keys=True) + "\n"
    path = folder / KEPT
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{folder} has results of another plan ({KEPT}): name another folder, or give that plan"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_text(path, text)


def fingerprint(plan: Plan) -> str:
    """12 hexadecimal digits of a plan, for its report."""
    text = json.dumps(dataclasses.asdict(plan), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
