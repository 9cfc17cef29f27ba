"""The whole tree of settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Self

from pydantic import model_validator

from recon_node.core.errors import ConfigError
from recon_node.schema import Checked, Refused, Setting, checked, make, settings_of
from recon_node.schema.fields import fields
from recon_node.settings.service import DeliverySettings, LogSettings, ServerSettings
from recon_node.settings.stages import (
    CoilSettings,
    DicomSettings,
    PrepSettings,
    PromptSettings,
    ReconSettings,
)


@checked()
class Settings(Checked):
    """Everything that can be set."""

    prep: PrepSettings = PrepSettings()
    coils: CoilSettings = CoilSettings()
    recon: ReconSettings = ReconSettings()
    prompts: PromptSettings = PromptSettings()
    dicom: DicomSettings = DicomSettings()
    delivery: DeliverySettings = DeliverySettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _configurations_can_be_asked_for(self) -> Self:
        from recon_node.settings.peers import applied

        for name, table in self.server.configurations.items():
            try:
                applied(self, table)
            except ConfigError as error:
                key = ("server", "configurations", name)
                raise Refused(key=key, told=str(error)) from error
        return self

    @model_validator(mode="after")
    def _only_copies_are_deleted(self) -> Self:
        if self.server.out_keep_h is not None and not (self.delivery.to or self.delivery.routes):
            wanted = "none, unless delivery.to or delivery.routes sends the images elsewhere"
            raise Refused(wanted, key=("server", "out_keep_h"), found=self.server.out_keep_h)
        return self

    @model_validator(mode="after")
    def _maps_are_made_of_signal(self) -> Self:
        maps = [name for name in ("t1", "t2") if name in self.dicom.images]
        if self.recon.shading != "keep" and maps:
            wanted = f"keep, as dicom.images has {' and '.join(maps)}"
            raise Refused(wanted, key=("recon", "shading"), found=self.recon.shading)
        return self

    def replace(self, section: str, **values: Any) -> Settings:
        """A copy with keys of one section changed, checked like the file.

        Raises
        ------
        ConfigError
            Unknown section or key, or a value that is not allowed.
        """
        own = keys(getattr(self, section)) if section in sections() else {}
        return make(Settings, {**top(self), section: {**own, **values}})


def top(settings: Settings) -> dict[str, Any]:
    """The sections by name."""
    return {name: getattr(settings, name) for name in sections()}


def keys(section: Any) -> dict[str, Any]:
    """The values of a section by key."""
    return {name: getattr(section, name) for name in fields(type(section))}


@lru_cache(maxsize=1)
def sections() -> dict[str, Any]:
    """The class of each section, by its name."""
    return {name: type(info.get_default()) for name, info in fields(Settings).items()}


def every_setting() -> Iterator[Setting]:
    """Every setting of every section, in order."""
    for section, kind in sections().items():
        yield from settings_of(kind, section)
