"""Errors against the golden outputs of the published network, as a table.

    python -m benchmarks.golden [FOLDER]

FOLDER holds golden ``.npz`` files (default: those kept with the tests, which leave out some of the larger
intermediate results). Weights are made by formula from
the keys' names, saved as a Lightning checkpoint, and loaded through `import_published`. Exit status 1 where
an error is above its limit.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from recon_node.model import CardioMM, CardioMMConfig, UNetConfig, import_published
from recon_node.model.blocks import ChannelAttentionBlock, MetadataAdapter, Slope, UndersamplingPrompter
from recon_node.model.cardiomm import Cascade, TextHead
from recon_node.model.consistency import Physics, centred_fft, centred_ifft, combine
from recon_node.model.published import published_name
from recon_node.model.sensitivity import SensitivityNet, acs_region
from recon_node.model.singleframe import PublishedCardioMM
from recon_node.model.unet import DecoderLevel, EncoderLevel, NormalisedUNet, PromptedUNet, upsampled

KEPT = Path(__file__).parents[1] / "tests" / "data" / "golden"
NETWORK = "metausunetlight."
OWN_SLOPES = ("metacond_level", "enc_level1.encoder.0.body.1.")
SMALL = UNetConfig(stem=8, levels=(12, 16, 20), prompts=(4, 8, 12))
SMALL_SENSITIVITY = UNetConfig(stem=6, levels=(8, 10, 12), prompts=(2, 4, 6))


@dataclass(frozen=True)
class Row:
    """One compared quantity: relative L2 error and its limit."""

    case: str
    quantity: str
    error: float
    limit: float


def formula(key: str, shape: tuple[int, ...], weights: str) -> np.ndarray:
    """Value of one tensor in weight set ``brief``, ``strong`` or ``slopes``; `key` without the prefix."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("prompt_param"):
        return rng.uniform(size=shape).astype(np.float32)
    if key.endswith("dc_weight") or shape == (1,):
        return np.full(shape, _number(key, float(rng.uniform()), weights), np.float32)
    normal = rng.standard_normal(shape).astype(np.float32)
    return normal * np.float32(_factor(key, shape, strong=weights == "strong"))


def _number(key: str, u: float, weights: str) -> float:
    if key.endswith("dc_weight"):
        return {"brief": 0.7, "strong": 1.5 * u - 0.75, "slopes": -(0.2 + u)}[weights]
    if weights == "brief":
        return 0.25
    return 0.05 + 0.5 * u if any(part in key for part in OWN_SLOPES) else 0.15


def _factor(key: str, shape: tuple[int, ...], *, strong: bool) -> float:
    fan = float(np.sqrt(np.prod(shape[1:])))
    if key.endswith((".beta", ".gamma")):
        return 0.8 if strong else 0.5 / fan
    if len(shape) == 1:
        return 0.3 if strong else 0.1
    if not strong:
        return 0.5 / fan
    gains = (("conv_last", 0.2), ("conv_du.0", 4.0), ("conv_du.2", 3.0))
    text = ((part, 1.5) for part in (".fc.", "linear_layer2", "fc1", "fc2"))
    return next((gain for part, gain in (*gains, *text) if part in key), 1.0) / fan


def shapes(config: CardioMMConfig) -> dict[str, tuple[int, ...]]:
    """Every key of a published checkpoint of any widths, and its shape."""
    with torch.device("meta"):
        network = CardioMM(config)
    found = {}
    for name, value in network.state_dict().items():
        if not name.endswith(("_head.mean", "_head.scale")):
            key = published_name(name)
            found[key] = (1, *value.shape) if key.endswith("prompt_param") else tuple(value.shape)
    for text in ("meta", "us"):
        found[f"lm_head_{text}.fc2.weight"] = (3, config.text_size)
        found[f"lm_head_{text}.fc2.bias"] = (3,)
    return found | {"loss.w": (1, 1, 7, 7)}


def checkpoint(config: CardioMMConfig, weights: str) -> dict[str, torch.Tensor]:
    """State dict of a published checkpoint, every tensor made by formula."""
    state = {
        key: torch.from_numpy(formula(key.removeprefix(NETWORK), shape, weights))
        for key, shape in shapes(config).items()
    }
    state["language_model_no.model.logit_scale"] = torch.tensor(4.6)
    return state


def save_checkpoint(path: Path, config: CardioMMConfig, weights: str) -> Path:
    """Write the checkpoint as Lightning would."""
    torch.save({"epoch": 14, "global_step": 1, "state_dict": checkpoint(config, weights)}, path)
    return path


def config_of(values: dict[str, object]) -> CardioMMConfig:
    """Our configuration for the `config` field of a golden file."""

    def widths(prefix: str) -> UNetConfig:
        return UNetConfig(
            stem=values[prefix + "n_feat0"],
            levels=tuple(values[prefix + "feature_dim"]),
            prompts=tuple(values[prefix + "prompt_dim"]),
            bank_sizes=tuple(values["prompt_size"]),
            encoder_blocks=tuple(values["n_enc_cab"]),
            decoder_blocks=tuple(values["n_dec_cab"]),
            skip_blocks=tuple(values["n_skip_cab"]),
            bottleneck_blocks=values["n_bottleneck_cab"],
        )

    usual = CardioMMConfig.published().to_dict() | {"cascades": values["num_cascades"]}
    plain = CardioMMConfig.from_dict(usual)
    return CardioMMConfig(
        **{name: getattr(plain, name) for name in ("cascades", "text_norm", "shared_prelu", "train_bank")},
        unet=widths(""),
        sensitivity=widths("sens_"),
    )


def relative(found: torch.Tensor, wanted: np.ndarray) -> float:
    """Relative L2 error, in float64."""
    a, b = found.detach().numpy().astype(np.complex128).ravel(), wanted.astype(np.complex128).ravel()
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def to_complex(array: np.ndarray) -> np.ndarray:
    """`(..., 2)` to complex."""
    return array[..., 0] + 1j * array[..., 1]


def whole(path: Path, *, double: bool = False) -> Iterator[Row]:
    """Compare one whole-network file, also between the stages."""
    golden = np.load(path)
    config = config_of(json.loads(str(golden["config"])))
    weights = "strong" if path.stem.endswith("_strong") else "slopes" if path.stem == "F" else "brief"
    with tempfile.TemporaryDirectory() as folder:
        net = import_published(save_checkpoint(Path(folder) / "net.ckpt", config, weights))
    seen: dict[str, torch.Tensor] = {}
    first = net.network.phases[0].model
    first.register_forward_hook(
        lambda module, args, out: seen.update(c1_image_in=args[0][:, 0], c1_image_out=out)
    )
    net.network.sensitivity.register_forward_hook(lambda module, args, out: seen.update(sens_maps=out))
    seen["output"] = _run(net.double() if double else net, golden, path.stem, double=double)
    deep = config.cascades > 2
    for name, limit in (("sens_maps", 5e-6), ("c1_image_in", 5e-6), ("c1_image_out", 5e-6), ("output", 2e-6)):
        wanted = golden[name + "_f64"] if name + "_f64" in golden.files else golden[name]
        if wanted.ndim and wanted.shape[-1] == 2:
            wanted = to_complex(wanted)
        reached = 1e-12 if double and name == "output" else 1e-5 if deep else limit
        yield Row(path.stem + (" float64" if double else ""), name, relative(seen[name], wanted), reached)


def _run(net: PublishedCardioMM, golden: np.lib.npyio.NpzFile, case: str, *, double: bool) -> torch.Tensor:
    kspace = torch.from_numpy(to_complex(golden["masked_kspace"]))
    mask = torch.from_numpy(golden["mask"][:, 0, :, :, 0])
    mask = mask.expand(-1, kspace.shape[-2], -1)
    if case in ("A_trueL2", "A_zerotext"):  # fed past the heads
        fed = tuple(torch.from_numpy(golden[name][:, 0]) for name in ("meta_proj", "us_proj"))
        net.network.embed = lambda meta, us: fed
    rule = "square" if str(golden["mask_type"]) == "radial" else "columns"
    text = [torch.from_numpy(golden[name]) for name in ("text_meta", "text_us")]
    kind = torch.complex128 if double else torch.complex64
    return net(kspace.to(kind), mask, *text, acs=int(golden["num_low_frequencies"]), acs_rule=rule)


def modules(path: Path) -> Iterator[Row]:
    """Compare every module alone."""
    golden = np.load(path)
    for compare in (_cab, _textcond, _usprompt, _levels, _unet, _normunet, _sens, _dc, _fft, _heads):
        with torch.no_grad():
            for name, found, wanted in compare(golden):
                limit = 1e-6 if name == "normunet/std" else 2e-6
                yield Row("modules", name, relative(found, wanted), limit)


PLACES = {
    "encoder.0.": "enc_level1.",
    "decoder.0.": "dec_level1.",
    "prompters.0.": "prompt_level1.",
    "adapters.0.": "metacond_level1.",
    "unet.": "unet.",
}


def filled(module: nn.Module, name: str, place: str = "") -> nn.Module:
    """Weights by formula; `place` is where the module would stand in our network, for the naming."""
    state = {}
    for own, value in module.state_dict().items():
        if name == "sens":
            key = published_name(f"sensitivity.{own}").removeprefix(NETWORK + "sens_net.")
        else:
            key = published_name(f"net.{place}{own}").removeprefix(NETWORK + "net.")
            key = key.removeprefix(PLACES.get(place, ""))
        shape = (1, *value.shape) if key.endswith("prompt_param") else tuple(value.shape)
        state[own] = torch.from_numpy(formula(f"modules.{name}.{key}", shape, "strong")).reshape(value.shape)
    module.load_state_dict(state)
    return module


Comparison = Iterator[tuple[str, torch.Tensor, np.ndarray]]


def _tensor(golden: np.lib.npyio.NpzFile, name: str) -> torch.Tensor:
    return torch.from_numpy(golden[name])


def _texts(golden: np.lib.npyio.NpzFile, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return _tensor(golden, f"{name}/emb_meta")[:, 0], _tensor(golden, f"{name}/emb_us")[:, 0]


def _cab(golden: np.lib.npyio.NpzFile) -> Comparison:
    block = filled(ChannelAttentionBlock(12, 4), "cab")
    yield "cab", block(_tensor(golden, "cab/x")), golden["cab/out"]


def _textcond(golden: np.lib.npyio.NpzFile) -> Comparison:
    adapter = filled(MetadataAdapter(12, 4, 256, text=True), "textcond", "adapters.0.")
    # the published module tiles its two texts over the six samples; ours repeats each one's
    tiled = [0, 2, 4, 1, 3, 5]
    out = adapter(_tensor(golden, "textcond/x")[tiled], _tensor(golden, "textcond/emb")[:, 0])
    yield "textcond", out, golden["textcond/out"][tiled]


def _usprompt(golden: np.lib.npyio.NpzFile) -> Comparison:
    prompter = UndersamplingPrompter(6, 16, 3, 256, text=True, train_bank=False)
    prompter = filled(prompter, "usprompt", "prompters.0.")
    text = _tensor(golden, "usprompt/emb")[:, 0]
    yield "usprompt/weights", prompter.weights(text), golden["usprompt/weights"]
    for size in ("small", "large"):
        wanted = golden[f"usprompt/out_{size}"]
        yield f"usprompt/out_{size}", prompter(text, wanted.shape[-2:]), wanted[:2]


def _levels(golden: np.lib.npyio.NpzFile) -> Comparison:
    for name, blocks in (("down_first", 2), ("down", 3)):
        level = filled(EncoderLevel(12, 16, blocks, 4, None, first=False), name, "encoder.0.")
        out, skip = level(_tensor(golden, f"{name}/x"))
        yield f"{name}/out", out, golden[f"{name}/out"]
        yield f"{name}/skip", skip, golden[f"{name}/skip"]
    level = filled(DecoderLevel(16, 6, 12, 2, 4, None), "up", "decoder.0.")
    x, prompt, skip = (_tensor(golden, f"up/{part}") for part in ("x", "prompt", "skip"))
    yield "up/upsampled", upsampled(x), golden["up/upsampled"]
    yield "up/out", level(x, prompt, skip), golden["up/out"]


def _unet(golden: np.lib.npyio.NpzFile) -> Comparison:
    unet = filled(PromptedUNet(SMALL, CardioMMConfig.published(), 2, Slope()), "unet", "unet.")
    seen: dict[str, torch.Tensor] = {}

    def watch(module: nn.Module, *names: str) -> None:
        def keep(module: nn.Module, args: object, out: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            seen.update(zip(names, out if isinstance(out, tuple) else (out,), strict=True))

        module.register_forward_hook(keep)

    watch(unet.stem, "feat_extract")
    watch(unet.bottleneck, "bottleneck")
    for i, level in enumerate(("level1", "level2", "level3")):
        watch(unet.encoder[i], f"enc_{level}_down", f"enc_{level}_skip")
        watch(unet.skips[i], f"skip_attn{i + 1}")
        watch(unet.prompters[i], f"prompt_{level}")
        watch(unet.decoder[i], f"dec_{level}")
        watch(unet.adapters[i], f"metacond_{level}")
    seen["out"] = unet(_tensor(golden, "unet/x"), *_texts(golden, "unet"))
    for name, found in seen.items():
        if f"unet/{name}" in golden.files:
            yield f"unet/{name}", found, golden[f"unet/{name}"]


def _normunet(golden: np.lib.npyio.NpzFile) -> Comparison:
    wrapper = NormalisedUNet(SMALL, CardioMMConfig.published(), 1, Slope(), residual=False)
    filled(wrapper, "normunet")
    seen: dict[str, torch.Tensor] = {}
    wrapper.unet.register_forward_hook(lambda module, args, out: seen.update(padded=args[0]))
    images = torch.from_numpy(to_complex(golden["normunet/x"]))
    mean, deviation = wrapper.statistics(torch.cat([images.real, images.imag], dim=1))
    out = wrapper(images, *_texts(golden, "normunet"))
    yield "normunet/mean", mean, golden["normunet/mean"]
    yield "normunet/std", deviation, golden["normunet/std"]
    if "normunet/padded" in golden.files:
        yield "normunet/padded", seen["padded"], golden["normunet/padded"]
    yield "normunet/out", out, to_complex(golden["normunet/out"])[:, 0]


def _sens(golden: np.lib.npyio.NpzFile) -> Comparison:
    net = filled(SensitivityNet(SMALL_SENSITIVITY, CardioMMConfig.published(), Slope()), "sens")
    kspace = torch.from_numpy(to_complex(golden["sens/masked_kspace"]))
    rows, columns = acs_region(kspace.shape[-2:], int(golden["sens/num_low_frequencies"]), "columns")
    calibration = torch.zeros_like(kspace)
    calibration[..., rows, columns] = kspace[..., rows, columns]
    yield "sens/acs_kspace", calibration, to_complex(golden["sens/acs_kspace"])
    yield "sens/out", net(calibration, *_texts(golden, "sens")), to_complex(golden["sens/out"])


def _dc(golden: np.lib.npyio.NpzFile) -> Comparison:
    cascade = filled(Cascade(CardioMMConfig(unet=SMALL), Slope()), "dc")
    cascade.dc_weight.fill_(float(golden["dc/dc_weight"][0]))
    reference, current, maps = (
        torch.from_numpy(to_complex(golden[f"dc/{name}"]))
        for name in ("ref_kspace", "current_kspace", "sens_maps")
    )
    mask = torch.from_numpy(golden["dc/mask"][:, 0, :, :, 0]).expand(-1, reference.shape[-2], -1)
    physics = Physics(maps, mask.unsqueeze(1))
    image = combine(centred_ifft(current), maps)
    yield "dc/image_in", image, to_complex(golden["dc/image_in"])[:, 0]
    made = cascade.model(image.unsqueeze(1), *_texts(golden, "dc"))
    yield "dc/image_out", made, to_complex(golden["dc/image_out"])[:, 0]
    measured = (reference * mask.unsqueeze(1)).unsqueeze(1)
    coils = physics.coil_images(made.unsqueeze(1), measured, cascade.dc_weight.abs())
    wanted = to_complex(golden["dc/out"])
    yield "dc/out", centred_fft(coils[:, 0]), wanted
    step = physics.consistent(made.unsqueeze(1), physics.adjoint(measured), cascade.dc_weight.abs())
    yield "dc/out combined", step[:, 0], combine(centred_ifft(torch.from_numpy(wanted)), maps).numpy()


def _fft(golden: np.lib.npyio.NpzFile) -> Comparison:
    for size in ("even", "odd"):
        x = torch.from_numpy(to_complex(golden[f"fft/{size}"]))
        yield f"fft/{size}_fft2c", centred_fft(x), to_complex(golden[f"fft/{size}_fft2c"])
        yield f"fft/{size}_ifft2c", centred_ifft(x), to_complex(golden[f"fft/{size}_ifft2c"])


def _heads(golden: np.lib.npyio.NpzFile) -> Comparison:
    x = _tensor(golden, "heads/x")[:, 0]
    for sign, name in ((True, "embd_3d"), (False, "embd_2d")):
        head = TextHead(512, 256, sign=sign)
        for part in ("weight", "bias"):
            value = getattr(head.linear, part)
            value.copy_(torch.from_numpy(formula(f"modules.heads.fc1.{part}", tuple(value.shape), "strong")))
        yield f"heads/{name}", head(x), golden[f"heads/{name}"].reshape(len(x), -1)


def main(folder: Path) -> int:
    """Print the table of all golden files in `folder`; 1 where a limit is broken."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        print(f"{folder}: no golden files", file=sys.stderr)
        return 1
    return show(row for f in files for row in (modules(f) if f.stem.startswith("modules") else _both(f)))


def show(rows: Iterable[Row]) -> int:
    """Print a table as its rows are made; 1 where a limit is broken."""
    print(f"{'case':32s} {'quantity':26s} {'relative L2':>12s} {'limit':>8s}")
    broken = 0
    for row in rows:
        bad = not row.error <= row.limit
        broken += bad
        mark = "  ABOVE" if bad else ""
        print(f"{row.case:32s} {row.quantity:26s} {row.error:12.2e} {row.limit:8.0e}{mark}", flush=True)
    print(f"{broken} above their limit" if broken else "all within their limits")
    return int(broken > 0)


def _both(path: Path) -> Iterator[Row]:
    yield from whole(path)
    if "output_f64" in np.load(path).files:
        yield from (row for row in whole(path, double=True) if row.quantity == "output")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else KEPT))
