"""Published CardioMM checkpoints: names and shapes to ours, and the network as their pipelines run it.

A published checkpoint is a PyTorch Lightning file whose ``state_dict`` has the prefixes ``metausunetlight.``
(network), ``lm_head_meta.`` and ``lm_head_us.`` (text heads), ``language_model_no.`` (the frozen CLIP text
tower) and ``loss.w``; the last two are dropped, after a comparison of the text tower with the one at hand.
Published weights are for academic use only.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.errors import WeightsError
from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import PUBLISHED_SENSITIVITY, CardioMMConfig, UNetConfig
from recon_node.model.singleframe import PublishedCardioMM
from recon_node.model.weights import save_weights

log = logging.getLogger(__name__)

ENCODER = "clip"
COVERED = {
    "accelerations": [4, 8, 12, 16, 20, 24],
    "patterns": ["uniform", "random", "radial"],
    "source": "published (arXiv 2512.21652)",
}
"""What published weights were trained on: the trust check doubts the rest."""
LICENCE = "The published CardioMM weights are for academic use only; so is this file."

_NETWORK = "metausunetlight."
_TOWER = "language_model_no.model."
_DROPPED = ("language_model_no.", "loss.")
_UNUSED_HEADS = tuple(f"lm_head_{text}.fc2.{part}" for text in ("meta", "us") for part in ("weight", "bias"))
_BLOCK = (
    (r"\.conv1\.", ".body.0."),
    (r"\.slope\.", ".body.1."),
    (r"\.conv2\.", ".body.2."),
    (r"\.squeeze\.", ".CA.conv_du.0."),
    (r"\.excite\.", ".CA.conv_du.2."),
)
_LEVELS = (
    (r"\.encoder\.(\d)\.blocks\.", ".enc_level{}.encoder."),
    (r"\.encoder\.(\d)\.down\.", ".enc_level{}.down."),
    (r"\.skips\.(\d)\.", ".skip_attn{}.skip_attn."),
    (r"\.prompters\.(\d)\.bank$", ".prompt_level{}.prompt_param"),
    (r"\.prompters\.(\d)\.mixture\.", ".prompt_level{}.linear_layer2."),
    (r"\.prompters\.(\d)\.conv\.", ".prompt_level{}.dec_conv3x3."),
    (r"\.decoder\.(\d)\.blocks\.", ".dec_level{}.fuse."),
    (r"\.decoder\.(\d)\.reduce\.", ".dec_level{}.reduce."),
    (r"\.decoder\.(\d)\.widen\.", ".dec_level{}.up.1."),
    (r"\.decoder\.(\d)\.last\.", ".dec_level{}.ca."),
    (r"\.adapters\.(\d)\.gate\.", ".metacond_level{}.fc."),
    (r"\.adapters\.(\d)\.", ".metacond_level{}."),
)
_PLACES = (
    (r"^sensitivity\.model\.", "sens_net.norm_unet."),
    (r"\.unet\.stem\.", ".unet.feat_extract."),
    (r"\.unet\.head\.", ".unet.conv_last."),
)


def published_name(name: str) -> str:
    """The published state-dict key of one of our network's parameters."""
    if name.startswith("metadata_head.linear."):
        return name.replace("metadata_head.linear.", "lm_head_meta.fc1.")
    if name.startswith("undersampling_head.linear."):
        return name.replace("undersampling_head.linear.", "lm_head_us.fc1.")
    for pattern, wanted in (*_BLOCK, *_PLACES):
        name = re.sub(pattern, wanted, name)
    for pattern, wanted in _LEVELS:
        found = re.search(pattern, name)
        if found:
            level = wanted.format(int(found.group(1)) + 1)
            name = name[: found.start()] + level + name[found.end() :]
            break
    return _NETWORK + name


def import_published(path: str | Path) -> PublishedCardioMM:
    """Load a published checkpoint (``.ckpt``).

    The configuration is found from the shapes, so any widths and number of cascades do. Of the shared PReLU
    slope, which a checkpoint holds under many keys, the last key counts.

    Raises
    ------
    WeightsError
        Where the file cannot be read without unpickling objects, or keys are missing, unknown or
        misshapen (all of them listed).
    """
    return PublishedCardioMM(_network(_read(Path(path)), Path(path).name)).eval().requires_grad_(False)


def convert(checkpoint: str | Path, out: str | Path, *, encoder: TextTower | None = None) -> Path:
    """Write a published checkpoint as a safetensors file with its manifest (JSON) beside it.

    Parameters
    ----------
    checkpoint : path
        The Lightning ``.ckpt``.
    out : path
        The ``.safetensors`` to write.
    encoder : TextTower, optional
        The CLIP text tower at hand. It has to be the checkpoint's own, and the file then refuses any other;
        without it the file refuses encoders by name only.

    Returns
    -------
    Path
        The file written; `load_weights` reads it.

    Raises
    ------
    WeightsError
        As `import_published`; where the text tower is not the checkpoint's; or where `out` cannot be written.
    """
    path = Path(checkpoint)
    content = _content(path)
    network = _network(_kept(content), Path(path).name)
    if encoder is not None:
        _check_tower(content, encoder, path)
    card = {
        "licence": LICENCE,
        "origin": f"published checkpoint {path.name}",
        "origin_sha256": _sha256(path),
        "parameters": sum(p.numel() for p in network.parameters()),
        "intended_use": "Not for clinical use.",
        "training": {"data": COVERED},
    }
    return save_weights(
        out, network, encoder=ENCODER, encoder_sha256=None if encoder is None else encoder.sha256, card=card
    )


class TextTower(Protocol):
    """What is asked of a CLIP text tower."""

    @property
    def sha256(self) -> str:
        """Hash of everything that decides its vectors."""

    def differences(self, tensors: Mapping[str, NDArray[Any]]) -> list[str]:
        """Names of its tensors that others of the same name contradict or lack."""


def _check_tower(content: Mapping[str, Any], encoder: TextTower, path: Path) -> None:
    tower = {
        key.removeprefix(_TOWER): value.float().numpy()
        for key, value in content.items()
        if key.startswith(_TOWER) and isinstance(value, Tensor)
    }
    different = encoder.differences(tower)
    if different:
        raise WeightsError(
            f"{path}: was trained with another text tower than the one given; {len(different)} tensors "
            f"differ: {_listed(different[:8])}{' ...' if len(different) > 8 else ''}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    return _kept(_content(path))


def _kept(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if not key.startswith(_DROPPED)}


def _content(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles before it refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # torch's own words advise to unpickle whatever is in the file
        raise WeightsError(
            f"{path}: not a checkpoint that loads without unpickling objects: damaged, no PyTorch file, or "
            "with more in it than tensors; save its state_dict alone and import that"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__}, expected a dictionary with a state_dict"
        )
    return {str(key): value for key, value in state.items()}


def _network(state: Mapping[str, Any], where: str) -> CardioMM:
    network = CardioMM(_config(state))
    own = {name: value for name, value in network.state_dict().items() if not _is_statistic(name)}
    expected = {published_name(name): name for name in own}
    problems = _problems(state, {key: tuple(own[name].shape) for key, name in expected.items()})
    if problems:
        raise WeightsError(f"{where}: not a published CardioMM checkpoint: {'; '.join(problems)}")
    loaded = {name: state[key].reshape(own[name].shape).float() for key, name in expected.items()}
    bad = sorted(key for key, name in expected.items() if not bool(torch.isfinite(loaded[name]).all()))
    if bad:
        raise WeightsError(f"{where}: values are not finite in {_listed(bad)}")
    _settle_slopes(network, loaded, where)
    network.load_state_dict(loaded, strict=False)
    return network


def _is_statistic(name: str) -> bool:
    return name.endswith(("_head.mean", "_head.scale"))


def _settle_slopes(network: CardioMM, loaded: dict[str, Tensor], where: str) -> None:
    """Give every alias of the shared slope the value of the last one, as loading the original does."""
    last = f"cascades.{len(network.phases) - 1}.model.unet.decoder.0.last.slope.weight"
    named = dict(network.named_parameters(remove_duplicate=False))
    aliases = [name for name, parameter in named.items() if parameter is named[last]]
    if any(not torch.equal(loaded[name], loaded[last]) for name in aliases):
        log.warning("%s: the keys of the shared PReLU slope differ; the last one counts", where)
    for name in aliases:
        loaded[name] = loaded[last]


def _problems(state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    missing = sorted(key for key in (*shapes, *_UNUSED_HEADS) if key not in state)
    unknown = sorted(set(state) - set(shapes) - set(_UNUSED_HEADS))
    misshapen = [
        f"{key} is {_shape_of(state[key])}, expected {shape}"
        for key, shape in sorted(shapes.items())
        if key in state and not _fits(key, state[key], shape)
    ]
    parts = (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
    return [f"{len(keys)} {kind}: {_listed(keys)}" for kind, keys in parts if keys]


def _shape_of(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _fits(key: str, value: Any, shape: tuple[int, ...]) -> bool:
    wanted = (1, *shape) if key.endswith("prompt_param") else shape
    return isinstance(value, Tensor) and tuple(value.shape) == wanted and value.is_floating_point()


def _listed(keys: list[str]) -> str:
    return ", ".join(keys)


def _config(state: Mapping[str, Any]) -> CardioMMConfig:
    """Configuration from the shapes; what a broken file does not show is taken as published."""
    cascades = [int(m.group(1)) for key in state if (m := re.match(rf"{_NETWORK}cascades\.(\d+)\.", key))]
    published = CardioMMConfig.published()
    first = _NETWORK + "cascades.0.model.unet."
    return CardioMMConfig(
        cascades=max(cascades, default=published.cascades - 1) + 1,
        unet=_widths(state, first, published.unet),
        sensitivity=_widths(state, _NETWORK + "sens_net.norm_unet.unet.", PUBLISHED_SENSITIVITY),
        text_features=_size(state, "lm_head_meta.fc1.weight", 1, published.text_features),
        text_size=_size(state, "lm_head_meta.fc1.weight", 0, published.text_size),
        text_norm="sign",
        shared_prelu=True,
        train_bank=False,
    )


def _widths(state: Mapping[str, Any], prefix: str, usual: UNetConfig) -> UNetConfig:
    def sizes(key: str, axis: int, defaults: tuple[int, int, int]) -> tuple[int, int, int]:
        first, second, third = (
            _size(state, prefix + key.format(level + 1), axis, defaults[level]) for level in range(3)
        )
        return first, second, third

    def counts(key: str) -> tuple[int, int, int]:
        first, second, third = (_count(state, prefix + key.format(level)) for level in (1, 2, 3))
        return first, second, third

    return UNetConfig(
        stem=_size(state, prefix + "feat_extract.weight", 0, usual.stem),
        levels=sizes("enc_level{}.down.weight", 0, usual.levels),
        prompts=sizes("prompt_level{}.prompt_param", 2, usual.prompts),
        bank_sizes=sizes("prompt_level{}.prompt_param", 4, usual.bank_sizes),
        bank_components=_size(state, prefix + "prompt_level1.prompt_param", 1, usual.bank_components),
        encoder_blocks=counts("enc_level{}.encoder."),
        decoder_blocks=counts("dec_level{}.fuse."),
        skip_blocks=counts("skip_attn{}.skip_attn."),
        bottleneck_blocks=_count(state, prefix + "bottleneck."),
    )


def _size(state: Mapping[str, Any], key: str, axis: int, usual: int) -> int:
    value = state.get(key)
    if not isinstance(value, Tensor) or value.ndim <= axis or value.shape[axis] < 1:
        return usual
    return int(value.shape[axis])


def _count(state: Mapping[str, Any], prefix: str) -> int:
    found = [int(m.group(1)) for key in state if (m := re.match(re.escape(prefix) + r"(\d+)\.", key))]
    return max(found, default=-1) + 1
