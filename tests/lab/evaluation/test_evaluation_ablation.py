from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import ablation
from recon_node.core.errors import ConfigError
from recon_node.lab.evaluation import Metrics
from recon_node.lab.evaluation.studies import Result
from recon_node.model import CardioMM, CardioMMConfig, UNetConfig, save_weights
from recon_node.prompts import load_encoder

TINY = UNetConfig(
    stem=4,
    levels=(4, 4, 4),
    prompts=(2, 2, 2),
    bank_sizes=(4, 4, 4),
    encoder_blocks=(1, 0, 0),
    decoder_blocks=(0, 0, 0),
    skip_blocks=(0, 0, 0),
    bottleneck_blocks=0,
)


def weights(folder: Path, *, metadata: bool, undersampling: bool, held_out: tuple[str, ...] = ()) -> str:
    config = CardioMMConfig(
        cascades=1,
        unet=TINY,
        text_features=384,
        metadata_text=metadata,
        undersampling_text=undersampling,
        frames=3,
        residual=True,
    )
    encoder = load_encoder("minilm")
    card = {"training": {"data": {"hold_out_vendors": held_out, "hold_out_fields": [], "accelerations": [4]}}}
    file = folder / f"{config.variant}.safetensors"
    save_weights(file, CardioMM(config), encoder=encoder.name, encoder_sha256=encoder.sha256, card=card)
    return str(file)


def results(gains: dict[str, float], *, level: float = 30.0, scans: int = 12) -> list[Result]:
    return [
        Result(
            scan=str(scan),
            condition="uniform 8x",
            method=method,
            metrics=Metrics(psnr=level + 0.1 * scan + gain, ssim=0.9, nmse=0.01),
        )
        for scan in range(scans)
        for method, gain in gains.items()
    ]


def test_the_order_holds_only_where_the_difference_is_significant() -> None:
    steps = ablation.order(
        results({"CardioMM": 1.0, "CardioSM+UT": 0.5, "CardioSM+MT": 1.2, "CardioSM": 0.5})
    )
    said = {(s.better, s.worse): s.verdict.split()[0] for s in steps}
    assert said == {
        ("CardioMM", "CardioSM+UT"): "holds",
        ("CardioMM", "CardioSM+MT"): "REVERSED",
        ("CardioSM+UT", "CardioSM"): "not",
        ("CardioSM+MT", "CardioSM"): "holds",
        ("CardioMM", "CardioSM"): "holds",
    }


def test_a_few_scans_show_nothing() -> None:
    (step,) = ablation.order(results({"CardioMM": 1.0, "CardioSM": 0.5}, scans=4))
    assert step.verdict == "not shown"


def test_a_drop_is_told_from_scans_that_are_harder_for_everyone() -> None:
    seen = results({"CardioMM": 2.0, "CardioSM": 2.0, "kt": 0.0})
    unseen = results({"CardioMM": 1.9, "CardioSM": 0.5, "kt": 0.0}, level=27.0)
    mm, sm = ablation.drops(seen, unseen, "GE")
    assert (mm.db, mm.beyond_kt_db) == pytest.approx((3.1, 0.1))
    assert (sm.db, sm.beyond_kt_db) == pytest.approx((4.5, 1.5))
    assert mm.verdict == "1 dB or MORE; beyond k-t's below 1 dB"
    assert "beyond k-t's 1 dB or MORE" in sm.verdict


def test_scanners_that_were_held_out_are_not_among_those_seen() -> None:
    pairs = ablation.scanners_but(["GE"], [5.0])
    assert ("Siemens", 0.55) in pairs
    assert not [pair for pair in pairs if pair[0] == "GE" or pair[1] == 5.0]
    assert ablation.scanners_but([], []) == [(None, None)]


def test_weights_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    both = weights(tmp_path, metadata=True, undersampling=True)
    with pytest.raises(ConfigError, match="both CardioMM"):
        ablation.variants([both, both])
    other = weights(tmp_path, metadata=False, undersampling=False, held_out=("GE",))
    with pytest.raises(ConfigError, match="different scanners"):
        ablation.variants([both, other])


def test_an_ablation_with_a_vendor_held_out_runs_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [weights(tmp_path, metadata=text, undersampling=text, held_out=("GE",)) for text in (True, False)]
    size = "--phases 3 --matrix 32 --coils 3 --patterns random --accelerations 4 --scans 3"
    monkeypatch.setattr(sys, "argv", ["ablation", *files, *size.split(), "--out", str(tmp_path / "out")])
    ablation.main()
    told = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [(s["better"], s["comparison"]["scans"]) for s in told["steps"]] == [("CardioMM", 3)]
    assert [(d["scanners"], d["method"]) for d in told["drops"]] == [
        ("GE (vendor)", "CardioMM"),
        ("GE (vendor)", "CardioSM"),
    ]
    page = (tmp_path / "out" / "ablation.md").read_text()
    assert "| CardioMM | CardioSM |" in page
    assert "never seen" in page
