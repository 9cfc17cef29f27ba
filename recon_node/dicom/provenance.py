"""What every instance says about how it was made, readable by people and by programs.

People read SeriesDescription, ImageComments and DerivationDescription; programs read
ContributingEquipmentSequence (PS3.3 C.12.1.1) and the private block `CREATOR` (PS3.5 section 7.8).
Nothing here names the patient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydicom.dataset import Dataset

from recon_node.core.types import MadeBy, Prompts, Sampling, Verdict
from recon_node.core.version import __version__
from recon_node.dicom.text import clipped, code

CREATOR = "RECON-NODE PROVENANCE 1"
PRIVATE_GROUP = 0x0011
NOT_VALIDATED = "NOT FOR CLINICAL USE"
MANUFACTURER = "recon-node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a series was made and how far it is to be believed."""

    made_by: MadeBy
    prompts: Prompts | None = None
    sampling: Sampling | None = None
    verdict: Verdict | None = None
    validated: bool = False
    """True only where the weights were validated for clinical use."""
    lines_found: int = 0
    lines_expected: int = 0
    notes: tuple[str, ...] = ()
    """What had to be assumed, in sentences."""
    source_id: str = ""
    """What tells this raw data from other raw data where its header has no identifiers (a hash of
    the file, for example); goes into the UIDs."""


def provenance_facts(provenance: Provenance) -> dict[str, Any]:
    """Everything a provenance says, as JSON-able values."""
    made, prompts, sampling, verdict = (
        provenance.made_by,
        provenance.prompts,
        provenance.sampling,
        provenance.verdict,
    )
    return {
        "software_version": _node_version(made),
        "method": made.method,
        **({"method_package": made.package, "method_version": made.version} if made.package else {}),
        "weights": made.weights,
        "weights_sha256": made.weights_sha256,
        "settings": dict(made.settings),
        "metadata_prompt": str(prompts.metadata) if prompts else None,
        "undersampling_prompt": str(prompts.undersampling) if prompts else None,
        "pattern": sampling.pattern if sampling else None,
        "acceleration": sampling.acceleration if sampling else None,
        "acs_lines": sampling.acs if sampling else None,
        "lines_found": provenance.lines_found,
        "lines_expected": provenance.lines_expected,
        "verdict": verdict.verdict if verdict else None,
        "score": verdict.score if verdict else None,
        "reasons": list(verdict.reasons) if verdict else None,
        "expected": asdict(verdict.expected) if verdict and verdict.expected else None,
        "validated": provenance.validated,
        "notes": list(provenance.notes),
    }


def add_provenance(ds: Dataset, provenance: Provenance, fallbacks: Mapping[str, str]) -> None:
    """Put the provenance into `ds`, and what stands in for values the header does not give.

    SeriesDescription is made by `series_description`.
    """
    facts = provenance_facts(provenance)
    sentences = _sentences(provenance)
    ds.ImageComments = clipped("\n".join(sentences), 10240)
    ds.DerivationDescription = clipped(" ".join(sentences), 1024)
    ds.ContributingEquipmentSequence = [_equipment(provenance, " ".join(sentences))]
    block = ds.private_block(PRIVATE_GROUP, CREATOR, create=True)
    block.add_new(0x01, "LO", clipped(f"{MANUFACTURER} {_node_version(provenance.made_by)}", 64))
    block.add_new(0x02, "LO", clipped(provenance.made_by.method, 64))
    block.add_new(0x03, "LO", clipped(provenance.made_by.weights or "none", 64))
    block.add_new(0x04, "LO", clipped(provenance.made_by.weights_sha256 or "none", 64))
    block.add_new(0x05, "CS", provenance.verdict.verdict.upper() if provenance.verdict else "NONE")
    block.add_new(0x06, "CS", "YES" if provenance.validated else "NO")
    block.add_new(0x10, "UT", json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str))
    block.add_new(0x11, "UT", json.dumps(dict(fallbacks), sort_keys=True, ensure_ascii=True))


def read_provenance(ds: Dataset) -> dict[str, Any]:
    """What `add_provenance` wrote, and under ``fallbacks`` what stands in for missing values.

    Raises
    ------
    KeyError
        Where `ds` has no such block.
    """
    block = ds.private_block(PRIVATE_GROUP, CREATOR)
    facts: dict[str, Any] = json.loads(block[0x10].value)
    return {**facts, "fallbacks": json.loads(block[0x11].value)}


def series_description(provenance: Provenance, what: str) -> str:
    """Method, protocol and, while the weights are not validated, the warning; at most 64 characters."""
    start = provenance.made_by.method
    if provenance.verdict and provenance.verdict.verdict != "pass":
        start += f" [{provenance.verdict.verdict.upper()}]"
    end = "" if provenance.validated else f" {NOT_VALIDATED}"
    return clipped(f"{start} {what}".strip(), 64 - len(end)) + end


def _node_version(made: MadeBy) -> str:
    """Version of this package, whoever's method made the images."""
    return __version__ if made.package else made.version


def _sentences(provenance: Provenance) -> list[str]:
    made = provenance.made_by
    brought = f" of {made.package} {made.version}" if made.package else ""
    node = f"{MANUFACTURER} {_node_version(made)}"
    lines = [f"Reconstructed from raw data by {node}, method {made.method}{brought}."]
    if not provenance.validated:
        lines.insert(0, f"{NOT_VALIDATED}: not validated.")
    if provenance.verdict:
        verdict = provenance.verdict
        lines.append(f"Trust verdict {verdict.verdict.upper()}, score {verdict.score:.2f}.")
        if verdict.expected is not None:
            lines.append(f"Expected of the image: {verdict.expected.sentence}.")
        lines.extend(f"Reason: {reason}" for reason in verdict.reasons)
    if made.weights_sha256:
        lines.append(f"Weights {made.weights} sha256 {made.weights_sha256}.")
    if provenance.sampling:
        sampling = provenance.sampling
        lines.append(
            f"Sampling {sampling.pattern}, acceleration {sampling.acceleration:.2f},"
            f" {sampling.acs} ACS lines."
            + "".join(f" {rate:.1f}x {name} in part of it." for name, rate in sampling.parts)
        )
    if provenance.lines_expected:
        lines.append(
            f"{provenance.lines_found} lines received, {provenance.lines_expected} announced by the header."
        )
    if provenance.prompts:
        lines.append(f"Metadata prompt: {provenance.prompts.metadata}")
        lines.append(f"Undersampling prompt: {provenance.prompts.undersampling}")
    lines.extend(provenance.notes)
    return lines


def _equipment(provenance: Provenance, description: str) -> Dataset:
    made = provenance.made_by
    ds = Dataset()
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = clipped(made.method, 64)
    versions = [_node_version(made)]
    if made.package:
        versions.append(f"{made.package} {made.version}")
    if made.weights_sha256:
        versions += [made.weights_sha256, clipped(f"weights {made.weights}", 63)]
    ds.SoftwareVersions = [clipped(version, 64) for version in versions]
    ds.ContributionDescription = clipped(description, 1024)
    ds.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    return ds
