"""What the main thread of a node does while the others serve: watch, and tell systemd."""

from __future__ import annotations

from collections.abc import Callable

from recon_node.online.log import PatientFilter, setup_logging
from recon_node.online.logfile import log_handler
from recon_node.online.notify import notify, watchdog_s
from recon_node.online.reload import reload_settings
from recon_node.online.serve import Running
from recon_node.online.signals import Stop
from recon_node.settings import Settings

_LOOK_S = 0.5


def tend(running: Running, stop: Stop, read: Callable[[], Settings], patients: PatientFilter) -> None:
    """Until somebody asks the node to stop: take new settings at SIGHUP, and tell systemd that it lives.

    The watchdog hears nothing while no scan is accepted, so that systemd starts a node anew whose accepting
    thread does not come back.

    Parameters
    ----------
    running : Running
    stop : Stop
    read : callable
        Reads the settings again.
    patients : PatientFilter
        Of the log, which is set up anew.
    """
    patience = watchdog_s()
    wait = _LOOK_S if patience is None else min(_LOOK_S, patience / 4)
    notify(READY=1, STATUS=f"takes scans at port {running.server.port}")
    while not stop.wait(wait):
        if stop.hung_up():
            reload_settings(running.node, read, lambda found: _log_anew(found, patients))
        if patience is not None and running.server.accepting:
            notify(WATCHDOG=1)
    notify(STOPPING=1)


def _log_anew(settings: Settings, patients: PatientFilter) -> None:
    setup_logging(settings.log.level, handler=log_handler(settings.log), patients=patients)
