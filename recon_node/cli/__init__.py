"""The command line: one file a command, loaded only when asked for."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from recon_node.cli.common import Group, common_options, dressed
from recon_node.core.errors import ReconNodeError, one_line, where_it_failed
from recon_node.core.version import __version__
from recon_node.online.signals import leave

log = logging.getLogger(__name__)

COMMANDS = {
    "demo": "A simulated beating heart from raw data to PACS, with a report.",
    "simulate": "Write raw data as a scanner would send it.",
    "inspect": "Show what is in a raw data file.",
    "replay": "Reconstruct raw data files to DICOM.",
    "ledger": "Ask what became of an archive's slices.",
    "compare": "Compare two folders of DICOM images.",
    "serve": "Run the MRD server that scanners connect to.",
    "stream": "Reconstruct a stream of raw data to a stream of images.",
    "send": "Send a raw data file to an MRD server and keep the images.",
    "export": "Queue DICOM files and deliver them.",
    "captures": "Look after the scans that a node received.",
    "deferred": "Look after scans whose reconstruction was deferred.",
    "spool": "Look after the delivery queue.",
    "echo": "Check that a destination answers.",
    "train": "Train a network.",
    "evaluate": "Measure reconstructions against a known truth.",
    "weights": "List, verify and import network weights.",
    "openrecon": "Write the description of an OpenRecon container.",
    "gadget": "Give Gadgetron the chains that call this node.",
    "settings": "Show, check and describe settings.",
    "doctor": "Check this machine and installation.",
}


_AGAIN_S = 0.05
"""After which a signal that Python dropped is sent again."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: like Ctrl-C, but for a server it is the ordinary end."""


class LazyGroup(Group):
    """Finds a command in the module of its name, so that `--help` does not load torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"recon_node.cli.{cmd_name}")
        return dressed(module.command, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="recon-node")
def cli() -> None:
    """MRI reconstruction node: raw ISMRMRD in, CardioMM, DICOM out.

    NOT FOR CLINICAL USE until validated at your site.
    """
    root = logging.getLogger()
    if root.level != logging.INFO:  # -v came first
        logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
        # What pynetdicom tells of is told by our own errors, in one line.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


cli.params += common_options()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or configuration, 130 Ctrl-C."""
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _lost
    threading.excepthook = thread_ended
    leave(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line in this process and return its exit code."""
    try:
        result = cli.main(args=arguments, prog_name="recon-node", standalone_mode=False)
    except ReconNodeError as error:
        click.echo(f"recon-node: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt) as stopped:
        hint = str(stopped.__cause__ or "")  # click's own error, from the one that may say how to go on
        click.echo(f"recon-node: interrupted{hint and ': '}{hint}", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (for example `| head`); nothing more can be said to it.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - stays open until exit
        return 1
    except MemoryError as error:
        click.echo(f"recon-node: this machine has not the memory for it ({one_line(str(error))})", err=True)
        return 1
    except OSError as error:  # what the system refuses: a full disk, a folder that may not be written
        where = "" if error.filename is None else f"{error.filename}: "
        click.echo(f"recon-node: {where}{error.strerror or error}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _lost(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception Python dropped, as it does in a weak reference's callback."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    sent = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), sent))
    again.daemon = True
    again.start()


def thread_ended(ended: threading.ExceptHookArgs) -> None:
    """Tell of a thread that an exception ended: one line, without its text, which might quote a header."""
    if ended.exc_value is not None:
        name = "?" if ended.thread is None else ended.thread.name
        log.error("thread %s ended: %s", name, where_it_failed(ended.exc_value))


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
