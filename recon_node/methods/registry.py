"""From a method's name to what runs it: the table's built-in methods, and those of other packages."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from recon_node.core.errors import ConfigError
from recon_node.core.protocols import Reconstructor, TextEncoder
from recon_node.methods.foreign import foreign_method, guarded
from recon_node.methods.record import MethodOptions, MethodRecord
from recon_node.methods.table import BUILT_IN, CLASSICAL, check_method, check_stand_in
from recon_node.model.weights import LoadedWeights
from recon_node.trust import Limits, Standards, TrainedOn


class MethodChoice(MethodOptions, Protocol):
    """The settings' section ``recon``, as far as it concerns methods."""

    @property
    def method(self) -> str:
        """Name of the method asked for."""

    @property
    def fallback(self) -> str:
        """Name of the one that stands in for it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Methods:
    """The method that was asked for, and the one that stands in for it."""

    record: MethodRecord
    """Of the method that was asked for."""
    chosen: Reconstructor
    fallback: Reconstructor
    encoder: TextEncoder | None = None
    weights: LoadedWeights | None = None
    limits: Limits | None = None
    """Trust limits of the method's own; the defaults where there are none."""
    trained_on: TrainedOn | None = None
    """What its training data covered, as far as anybody says."""
    validated: bool = False
    """Whether it was validated for clinical use."""

    @property
    def learned(self) -> bool:
        """Whether training decided the images: then a failed trust check withholds them."""
        return self.record.learned

    @property
    def calibrated(self) -> bool:
        """Whether a pass means something: it has limits of its own, or is built in and learned nothing."""
        return self.limits is not None or (self.record.built_in and not self.record.learned)

    @property
    def standards(self) -> Standards:
        """What its images are held to."""
        return Standards(
            trained=self.trained_on or TrainedOn(),
            limits=self.limits or Limits(),
            calibrated=self.calibrated,
        )


def find_method(name: str, where: str = "recon.method") -> MethodRecord:
    """What is known of a method by its name; its module is imported.

    Parameters
    ----------
    name : str
        A built-in name, the name of an entry point of group ``recon_node.methods``, or ``module:Class``.
    where : str
        The setting to name in errors.

    Raises
    ------
    ConfigError
        There is no such method, or it cannot be imported.
    """
    check_method(name, where)
    if name not in BUILT_IN:
        return foreign_method(name)
    module, _, attribute = BUILT_IN[name].partition(":")
    record: MethodRecord = getattr(import_module(module), attribute)
    return record


def title_of(name: str) -> str:
    """A method as headings name it, by the name that images carry."""
    return find_method(name).title if name in BUILT_IN else name


def make_methods(settings: MethodChoice, *, limits: bool = True) -> Methods:
    """Load what the settings ask for, once.

    Parameters
    ----------
    settings : MethodChoice
        Method, weights, device and the rest: the settings' section ``recon``.
    limits : bool
        Whether to read the method's trust limits.

    Raises
    ------
    ConfigError
        There is no such method, it cannot be imported or made, or the fallback is a network.
    WeightsError
        Weights missing or damaged, made for another text encoder than the one at hand, or with trust limits
        of other weights beside them.
    """
    fallback = stand_in(settings.fallback, settings)
    record = find_method(settings.method)
    loaded = record.load(settings)
    return Methods(
        record=record,
        chosen=guarded(record, loaded.reconstructor),
        fallback=fallback,
        encoder=loaded.encoder,
        weights=loaded.weights,
        limits=record.limits(settings, loaded) if limits else None,
        trained_on=loaded.trained_on,
        validated=loaded.validated,
    )


def stand_in(name: str, options: MethodOptions) -> Reconstructor:
    """A reconstructor that learned nothing.

    Raises
    ------
    ConfigError
        There is no such method, or training decides its images.
    """
    record = find_method(check_stand_in(name), "recon.fallback")
    if record.learned:
        raise ConfigError(
            f"recon.fallback: found {name}, which does not say that it learned nothing (learned = False): "
            f"expected one of {', '.join(CLASSICAL)}, or a method that does"
        )
    return guarded(record, record.load(options).reconstructor)
