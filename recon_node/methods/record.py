"""What the node knows of a method: one record, and what it becomes when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from recon_node.core.choices import MapSource, Precision
from recon_node.core.protocols import Reconstructor, TextEncoder
from recon_node.model.weights import LoadedWeights
from recon_node.trust import Limits, TrainedOn


class MethodOptions(Protocol):
    """What a method may ask when it is loaded; the settings' section ``recon`` has all of it."""

    @property
    def device(self) -> str:
        """``auto``, ``cpu`` or ``cuda``."""

    @property
    def threads(self) -> int:
        """CPU threads of the process."""

    @property
    def weights(self) -> str:
        """Name or file of weights; ``default`` where nobody chose."""

    @property
    def encoder_folder(self) -> str | None:
        """Folder of a text encoder, where the weights want one that is not shipped."""

    @property
    def chunk(self) -> int | None:
        """Frames that go through a network together; None leaves it to the method."""

    @property
    def precision(self) -> Precision:
        """Of a network's convolutions."""

    @property
    def compile(self) -> bool:
        """Whether to compile networks."""

    @property
    def coil_maps(self) -> MapSource:
        """Maps that a network gets."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedMethod:
    """A method that is ready to reconstruct, with what is known of the very weights it runs."""

    reconstructor: Reconstructor
    encoder: TextEncoder | None = None
    """What turns prompts into vectors for it; None where it reads none."""
    trained_on: TrainedOn | None = None
    """What its training data covered, as far as anybody says."""
    validated: bool = False
    """True only where it was validated for clinical use."""
    weights: LoadedWeights | None = None
    """Of a network of this package."""


ReadLimits = Callable[[MethodOptions, LoadedMethod], Limits | None]


def no_limits(options: MethodOptions, loaded: LoadedMethod) -> Limits | None:
    """Nobody measured any."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MethodRecord:
    """One method: what can be said of it before it is loaded, and how to load it."""

    name: str
    """As settings, commands, summaries and DICOM name it."""
    summary: str
    """One line for people who choose."""
    load: Callable[[MethodOptions], LoadedMethod]
    learned: bool
    """Whether training decided its images: then they are withheld where the trust check fails."""
    built_in: bool = False
    """Whether this package answers for it. Others are never passed without trust limits of their own."""
    label: str = ""
    """As reports print it; the name where left out."""
    limits: ReadLimits = no_limits
    """Reads the trust limits measured for the method as loaded; None judges it by the defaults."""

    @property
    def title(self) -> str:
        """Name for a heading."""
        return self.label or self.name


def classical(name: str, summary: str, make: Callable[[str], Reconstructor], *, label: str) -> MethodRecord:
    """The record of a built-in method without weights, made for a device.

    Parameters
    ----------
    make : callable
        From ``auto``, ``cpu`` or ``cuda`` to the reconstructor.
    """
    return MethodRecord(
        name=name,
        summary=summary,
        load=lambda options: LoadedMethod(reconstructor=make(options.device)),
        learned=False,
        built_in=True,
        label=label,
    )
