"""Methods of other people: found by name, loaded, and held to what a reconstructor promises.

The node knows nothing of such a method that it does not say itself. Unless it says otherwise it counts as
learned and as not validated, and without trust limits of its own it is judged by the defaults and never
passed. Whatever it returns gets the geometry, the times and the name that the node knows it by.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError, ModelError, ReconNodeError
from recon_node.core.plugins import FAILURES, UNKNOWN_VERSION, imported, installed, package_of, told
from recon_node.core.protocols import Reconstructor
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, MadeBy, TextEmbedding
from recon_node.methods.record import LoadedMethod, MethodOptions, MethodRecord
from recon_node.methods.series import check, series
from recon_node.methods.table import BUILT_IN, GROUP, is_address
from recon_node.prompts import load_encoder
from recon_node.trust import Limits, TrainedOn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")
T = TypeVar("T")


def foreign_method(chosen: str) -> MethodRecord:
    """The record of a method from an entry point, or from ``module:Class``.

    Raises
    ------
    ConfigError
        It cannot be imported, is not there, or is nothing that reconstructs.
    """
    address = chosen if is_address(chosen) else installed(GROUP)[chosen].value
    target = imported(f"method {chosen}", address)
    record = target if isinstance(target, MethodRecord) else _described(chosen, target)
    if not _NAME.fullmatch(record.name) or record.name in BUILT_IN:
        raise ConfigError(
            f"method {chosen} calls itself {record.name[:60]!r}: expected a name of its own, of up to 64 "
            "letters, digits, blanks and ._+-"
        )
    return replace(record, built_in=False)


def _described(chosen: str, target: Any) -> MethodRecord:
    """What a class, a function that makes a reconstructor, or a reconstructor says of itself."""
    name = _text(_part(chosen, target, "name")) or ""
    summary = (inspect.getdoc(target) or "").split("\n", 1)[0]
    return MethodRecord(
        name=chosen if not is_address(chosen) else name or chosen.rpartition(":")[2],
        summary=summary[:100],
        load=lambda options: _loaded(chosen, target, options),
        limits=lambda options, loaded: _said(chosen, loaded.reconstructor, "limits", Limits),
        learned=_part(chosen, target, "learned") is not False,
    )


def _loaded(chosen: str, target: Any, options: MethodOptions) -> LoadedMethod:
    made = _made(chosen, target, options) if callable(target) else target
    if not callable(_part(chosen, made, "reconstruct")):
        raise ConfigError(
            f"method {chosen}: {type(made).__name__} has no method reconstruct(kspace, maps, text): see "
            "docs/plugins.md"
        )
    encoder = _said(chosen, made, "encoder", str)
    return LoadedMethod(
        reconstructor=made,
        encoder=None if encoder is None else load_encoder(encoder),
        trained_on=_said(chosen, made, "trained_on", TrainedOn),
        validated=_part(chosen, made, "validated") is True,
    )


def _made(chosen: str, target: Callable[..., Any], options: MethodOptions) -> Any:
    """Call it with those of the options that it names."""
    offered: dict[str, Any] = {"device": options.device, "threads": options.threads}
    if options.weights != "default":
        offered["weights"] = options.weights
    try:
        wanted = inspect.signature(target).parameters
        return target(**{name: value for name, value in offered.items() if name in wanted})
    except ReconNodeError:
        raise
    except FAILURES as error:
        raise ConfigError(f"method {chosen} cannot be made: {told(error)}") from error


def _part(chosen: str, made: object, name: str) -> Any:
    """An attribute; None where it is not there."""
    try:
        return getattr(made, name, None)
    except FAILURES as error:
        raise ConfigError(f"method {chosen}: its {name} cannot be read: {told(error)}") from error


def _said(chosen: str, made: object, name: str, kind: type[T]) -> T | None:
    """What a method declares of itself, None where it says nothing."""
    value = _part(chosen, made, name)
    if value is None or isinstance(value, kind):
        return value
    raise ConfigError(
        f"method {chosen} declares {name} as {type(value).__name__}, expected {kind.__name__} or nothing"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A foreign reconstructor whose results and failures are what the node's own would be."""

    name: str
    inner: Reconstructor
    version: str
    package: str

    def reconstruct(self, kspace: KSpace, maps: CoilMaps, text: TextEmbedding | None) -> ImageSeries:
        """Images `(phase, y, x)` on the grid of `kspace`, under the name that the node knows.

        Raises
        ------
        DataError
            See `recon_node.methods.series.check`.
        ModelError
            It failed with an error of its own, or returned something else than images on that grid.
        """
        check(kspace, maps)
        try:
            made = self.inner.reconstruct(kspace, maps, text)
        except ReconNodeError:
            raise
        except FAILURES as error:
            raise ModelError(f"method {self.name} failed: {told(error)}") from error
        images = series(kspace, self._grid(made, kspace), self.name, {})
        return replace(images, made_by=self._made_by(made))

    def _grid(self, made: Any, kspace: KSpace) -> NDArray[np.complex64]:
        data = made.data if isinstance(made, ImageSeries) else made
        expected = (kspace.data.shape[0], *kspace.data.shape[2:])
        shape = getattr(data, "shape", None)
        if shape is None or tuple(shape) != expected or np.asarray(data).dtype.kind not in "fc":
            found = type(made).__name__ if shape is None else f"{tuple(shape)} {data.dtype}"
            raise ModelError(
                f"method {self.name} returned {found}, expected an ImageSeries or a complex array "
                f"(phase, y, x) of shape {expected}"
            )
        return np.asarray(data).astype(np.complex64, copy=False)

    def _made_by(self, made: object) -> MadeBy:
        """What it says in `made_by` and in its attributes, under the name and version that the node knows."""
        said = made.made_by if isinstance(made, ImageSeries) else MadeBy(method="", version=UNKNOWN_VERSION)
        return MadeBy(
            method=self.name,
            version=said.version if self.version == UNKNOWN_VERSION else self.version,
            package=self.package,
            weights=said.weights or _text(_part(self.name, self.inner, "weights")),
            weights_sha256=said.weights_sha256 or _text(_part(self.name, self.inner, "weights_sha256")),
            settings=said.settings,
        )


def guarded(record: MethodRecord, inner: Reconstructor) -> Reconstructor:
    """The same reconstructor, held to its promises; a built-in one as it is."""
    return inner if record.built_in else _held(record.name, inner)


def hosted(method: Reconstructor) -> Reconstructor:
    """A reconstructor as the node calls it: one of this package as it is, any other held to its promises."""
    if type(method).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return method
    return _held(_text(_part(type(method).__name__, method, "name")) or type(method).__name__, method)


def _held(name: str, inner: Reconstructor) -> Guarded:
    package, release = package_of(type(inner).__module__)
    own = _text(_part(name, inner, "version")) or _text(_part(name, type(inner), "__version__"))
    return Guarded(name=name, inner=inner, version=own or release, package=package)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
