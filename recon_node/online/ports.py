"""The ports by which a node that serves is looked after: health, and the status page."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recon_node.core.tls import server_tls
from recon_node.delivery import DeliveryWorker
from recon_node.online.health import HealthServer, health_pages
from recon_node.online.node import Node
from recon_node.online.status import StatusBoard, StatusPage, StatusServer
from recon_node.online.status.facts import Sources, disks
from recon_node.pipeline.row import Pipeline
from recon_node.settings import ServerSettings, Settings
from recon_node.settings.kinds import is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Parts of a node that its ports tell about."""

    node: Node
    board: StatusBoard
    worker: DeliveryWorker | None
    deferred: Callable[[], Mapping[str, int]]
    """Deferred scans by state."""
    ready: Callable[[], str | None]
    """Why no scan is taken; None where all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What is listened on; None where the settings name no port."""

    health: int | None = None
    status_url: str | None = None


def show(stack: ExitStack, shown: Shown) -> Ports:
    """Open the ports that the settings name, until `stack` is left.

    Raises
    ------
    ConfigError
        A port cannot be listened on, or the certificate cannot be used.
    """
    server, worker = shown.node.settings.server, shown.worker
    weights = Pipeline(shown.node.settings).methods.weights
    if weights is not None:
        shown.node.metrics.tell_build(weights.name, weights.sha256)
    shown.node.metrics.watch_ready(shown.ready)
    shown.node.metrics.watch_disks(partial(_free, shown.node.settings))
    destinations = dict if worker is None else worker.status
    pages = health_pages(shown.node.metrics, ready=shown.ready, destinations=destinations)
    url = port = None
    if server.status_port is not None:
        sources = Sources(
            settings=shown.node.settings,
            worker=worker,
            deferred=shown.deferred,
            ready=shown.ready,
            weights=None if weights is None else (weights.name, weights.sha256),
        )
        status = StatusServer(
            StatusPage(shown.board, sources),
            retry=(lambda name: None) if worker is None else worker.retry,
            pages=pages,
            host=server.status_host,
            port=server.status_port,
            token=server.status_token,
            tls=None if is_loopback(server.status_host) else tls_of(server),
        )
        url = stack.enter_context(status).url
    if server.health_port is not None:
        port = stack.enter_context(HealthServer(pages, port=server.health_port, home=url)).port
    return Ports(health=port, status_url=url)


def _free(settings: Settings) -> dict[str, int]:
    return {disk.what: disk.free_bytes for disk in disks(settings) if disk.free_bytes is not None}


def tls_of(server: ServerSettings) -> ssl.SSLContext | None:
    """TLS as the server's settings want it; None where they name no certificate.

    Raises
    ------
    ConfigError
        The files hold no certificate or key.
    """
    if server.tls_certificate is None or server.tls_key is None:
        return None
    ca = None if server.tls_client_ca is None else Path(server.tls_client_ca)
    return server_tls(Path(server.tls_certificate), Path(server.tls_key), client_ca=ca)
