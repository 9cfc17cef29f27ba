"""A published checkpoint's whole way: import, replay, DICOM; made by formula, with a tiny CLIP."""

from __future__ import annotations

import dataclasses
import json
import string
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
import torch
from safetensors.numpy import load_file, save_file

from recon_node.cli import run
from recon_node.core.errors import ConfigError
from recon_node.methods.registry import make_methods
from recon_node.model import CardioMMConfig, UNetConfig, import_published
from recon_node.pipeline.scan import open_scan
from recon_node.prompts import build_prompts, embed, load_encoder
from recon_node.settings import load_settings

WIDTH, FEATURES, POSITIONS = 8, 10, 128
TINY = UNetConfig(
    stem=4,
    levels=(6, 8, 8),
    prompts=(2, 3, 4),
    bank_sizes=(8, 4, 2),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
)
CONFIG = dataclasses.replace(
    CardioMMConfig.published(), cascades=2, unet=TINY, sensitivity=TINY, text_features=FEATURES, text_size=6
)


def _tower(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "embeddings.token_embedding.weight": (2 * len(_LETTERS) + 2, WIDTH),
        "embeddings.position_embedding.weight": (POSITIONS, WIDTH),
        "encoder.layers.0.mlp.fc1.weight": (4 * WIDTH, WIDTH),
        "encoder.layers.0.mlp.fc1.bias": (4 * WIDTH,),
        "encoder.layers.0.mlp.fc2.weight": (WIDTH, 4 * WIDTH),
        "encoder.layers.0.mlp.fc2.bias": (WIDTH,),
    }
    for part in "q", "k", "v", "out":
        shapes[f"encoder.layers.0.self_attn.{part}_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"encoder.layers.0.self_attn.{part}_proj.bias"] = (WIDTH,)
    for norm in "encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2", "final_layer_norm":
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    drawn = {
        f"text_model.{name}": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    return drawn | {"text_projection.weight": rng.standard_normal((FEATURES, WIDTH)).astype(np.float32)}


_LETTERS = string.ascii_lowercase + string.digits + ".,:-"


def _clip(folder: Path, seed: int) -> Path:
    pieces = [*_LETTERS, *(f"{sign}</w>" for sign in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    config = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": FEATURES,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"text_config": config}))
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    save_file(_tower(seed), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _clip(tmp_path_factory.mktemp("encoders") / "clip", seed=1)


@pytest.fixture(scope="module")
def checkpoint(golden: ModuleType, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = golden.checkpoint(CONFIG, "strong")
    for name, value in load_file(clip / "model.safetensors").items():
        state[f"language_model_no.model.{name}"] = torch.from_numpy(value)
    state["language_model_no.model.text_model.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    path = tmp_path_factory.mktemp("published") / "epoch.ckpt"
    torch.save({"epoch": 14, "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def imported(checkpoint: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "published.safetensors"
    assert run(["weights", "import", str(checkpoint), "--out", str(out), "--encoder-folder", str(clip)]) == 0
    return out


def _published(checkpoint: Path, clip: Path, raw: Path) -> list[np.ndarray]:
    """What `import_published` makes of every frame with the scan's own prompts, `(phase, y, x)` a slice."""
    net, encoder, found = import_published(checkpoint), load_encoder("clip", folder=clip), []
    for kspace in open_scan(raw):
        text = embed(build_prompts(kspace.header, kspace.sampling), encoder)
        count = len(kspace.data)
        images = net(
            torch.from_numpy(kspace.data.swapaxes(2, 3).copy()),
            torch.from_numpy(kspace.mask.swapaxes(1, 2).copy()),
            torch.tensor(text.metadata).expand(count, -1),
            torch.tensor(text.undersampling).expand(count, -1),
            acs=min(20, kspace.sampling.acs),
        )
        found.append(images.numpy().swapaxes(1, 2))
    return found


def _pixels(out: Path, instances: list[str]) -> np.ndarray:
    files = (pydicom.dcmread(path) for path in out.rglob("*.dcm"))
    mine = sorted((d for d in files if d.SOPInstanceUID in instances), key=lambda d: int(d.InstanceNumber))
    return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in mine])


def test_an_imported_checkpoint_makes_the_images_of_its_own_pipelines(
    checkpoint: Path,
    imported: Path,
    clip: Path,
    heart: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECON_NODE__RECON__ON_DISTRUST", "warn")  # weights by formula make no good images
    given = ["--weights", str(imported), "--encoder-folder", str(clip)]
    assert run(["replay", str(heart[0]), "--out", str(tmp_path), *given]) == 0
    series = json.loads((tmp_path / "summary.json").read_text())["series"]
    manifest = json.loads(imported.with_suffix(".json").read_text())
    for entry, wanted in zip(series, _published(checkpoint, clip, heart[0]), strict=True):
        assert entry["method"] == "cardiomm"
        assert entry["weights"] == {"name": "published", "sha256": manifest["sha256"]}
        found = _pixels(tmp_path, entry["instances"])
        assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted)


def test_espirit_maps_are_used_where_they_are_asked_for(
    imported: Path, clip: Path, heart: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_NODE__RECON__CHECK_TRUST", "false")
    given = ["replay", str(heart[0]), "--weights", str(imported), "--encoder-folder", str(clip)]
    found = {}
    for maps in ("auto", "learned", "espirit"):
        assert run([*given, "--out", str(tmp_path / maps), "--coil-maps", maps]) == 0
        entry = json.loads((tmp_path / maps / "summary.json").read_text())["series"][0]
        found[maps] = _pixels(tmp_path / maps, entry["instances"])
    assert np.array_equal(found["auto"], found["learned"])
    assert np.linalg.norm(found["espirit"] - found["learned"]) > 0.02 * np.linalg.norm(found["learned"])


def test_images_of_a_network_by_formula_never_pass(
    imported: Path, clip: Path, heart: tuple[Path, Path], tmp_path: Path
) -> None:
    given = ["--weights", str(imported), "--encoder-folder", str(clip)]
    assert run(["replay", str(heart[0]), "--out", str(tmp_path), *given]) == 0
    for entry in json.loads((tmp_path / "summary.json").read_text())["series"]:
        assert entry["trust"]["verdict"] != "pass"


def _told(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert run(arguments) == code
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    return told


def test_another_text_tower_is_refused_at_import_and_later(
    checkpoint: Path,
    imported: Path,
    heart: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = str(_clip(tmp_path / "other", seed=2))
    told = _told(["weights", "import", str(checkpoint), "--encoder-folder", other], capsys)
    assert "another text tower" in told
    assert "tensors differ: text_model." in told
    given = ["replay", str(heart[0]), "--out", str(tmp_path / "out"), "--weights", str(imported)]
    assert "use the encoder they were trained with" in _told([*given, "--encoder-folder", other], capsys)
    assert "text encoder clip needs a local folder" in _told(given, capsys, code=2)


def test_an_import_without_the_text_tower_says_what_was_not_compared(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["weights", "import", str(checkpoint), "--out", str(tmp_path / "a.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "was not compared" in told
    assert "academic use only" in told
    assert json.loads((tmp_path / "a.json").read_text())["encoder"] == {"name": "clip", "sha256": None}


def test_the_settings_of_the_runner_reach_it(
    imported: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node.toml").write_text(
        f'[recon]\nweights = "{imported}"\nencoder_folder = "{clip}"\nchunk = 3\ncoil_maps = "espirit"\n'
    )
    monkeypatch.setenv("RECON_NODE__RECON__PRECISION", "bfloat16")
    runner = make_methods(load_settings(tmp_path / "node.toml").recon).chosen
    assert (runner.chunk, runner.learned_maps) == (3, False)
    monkeypatch.setenv("RECON_NODE__RECON__PRECISION", "float16")
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        load_settings(tmp_path / "node.toml")
    monkeypatch.setenv("RECON_NODE__RECON__PRECISION", "float32")
    monkeypatch.setenv("RECON_NODE__RECON__CHUNK", "0")
    with pytest.raises(ConfigError, match="chunk: found '0'"):
        make_methods(load_settings(tmp_path / "node.toml").recon)


def test_shipped_weights_have_no_maps_of_their_own(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _told(["replay", str(heart[0]), "--out", str(tmp_path), "--coil-maps", "learned"], capsys)
    assert "hold no sensitivity network" in told
