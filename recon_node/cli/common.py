"""What every command has: -v and --quiet wherever they stand, examples, and a guess at misspelt names."""

from __future__ import annotations

import difflib
import logging

import click

COMMON = ("verbose", "quiet")
"""Options that every command takes, so that they may stand before and behind it."""

EXAMPLES = {
    "demo": "recon-node demo --out demo",
    "simulate": "recon-node simulate heart.h5 --acceleration 8 --pattern random --truth truth.h5",
    "inspect": "recon-node inspect heart.h5",
    "replay": "recon-node replay heart.h5 --out images --method kt",
    "compare": "recon-node compare images vendor --out compared",
    "ledger query": "recon-node ledger query \"trust = 'warn' and field_t < 1\" --out images",
    "stream": "recon-node stream --input scan.mrd --output images.mrd",
    "serve": "recon-node serve --config node.toml --status-port 9004",
    "send": "recon-node send heart.h5 --port 9002 --out back.h5",
    "export": "recon-node export images --to dicom://ORTHANC@127.0.0.1:4242",
    "captures list": "recon-node captures list",
    "captures replay": "recon-node captures replay --out images",
    "captures purge": "recon-node captures purge",
    "deferred list": "recon-node deferred list --config node.toml",
    "deferred retry": "recon-node deferred retry",
    "spool list": "recon-node spool list --state dead",
    "spool retry": "recon-node spool retry --to pacs",
    "spool purge": "recon-node spool purge",
    "echo": "recon-node echo dicom://ORTHANC@127.0.0.1:4242",
    "train": "recon-node train --config heart --set run.out=runs/mine",
    "evaluate": "recon-node evaluate --scans 3 --methods sense,kt,cardiomm",
    "evaluate measured": "recon-node evaluate measured full.h5 --methods sense,kt",
    "evaluate trust": "recon-node evaluate trust --out runs/trust",
    "evaluate biomarkers": "recon-node evaluate biomarkers --scans 4 --acceleration 4,8,16,24",
    "evaluate zero-shot": "recon-node evaluate zero-shot --scans 2 --vendors GE,Siemens --fields 1.5,3",
    "evaluate ablation": "recon-node evaluate ablation --plan small --minutes 60",
    "evaluate readers": "recon-node evaluate readers --methods cardiomm,kt --scans 2",
    "weights list": "recon-node weights list",
    "weights verify": "recon-node weights verify default",
    "weights import": "recon-node weights import cardiomm.ckpt --encoder-folder CLIP",
    "weights calibrate": "recon-node weights calibrate mine.safetensors",
    "gadget chains": "recon-node gadget chains /usr/local/share/gadgetron/config",
    "openrecon label": "recon-node openrecon label --dockerfile",
    "openrecon package": "recon-node openrecon package --out openrecon",
}
"""Of commands whose help has no example in its text."""


class Group(click.Group):
    """A group that guesses what was meant by a name that it does not have."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name where there is no such command."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near or "mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error


def dressed(command: click.Command, words: str) -> click.Command:
    """The command with the common options, and an example in its help; those of a group likewise."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            dressed(inner, f"{words} {name}")
        if not command.invoke_without_command:
            return command
    if not any(parameter.name in COMMON for parameter in command.params):
        command.params += common_options()
    if words in EXAMPLES and not command.epilog:
        command.epilog = f"Example: {EXAMPLES[words]}"
    return command


def common_options() -> list[click.Parameter]:
    """New -v and --quiet, which act by themselves."""
    verbose = click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_verbose,
        help="Log what happens (never patient data) to stderr.",
    )
    quiet = click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_quiet,
        help="No progress and no notes; results and errors only.",
    )
    return [verbose, quiet]


def is_quiet() -> bool:
    """Whether the command that runs was asked for results and errors only."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().meta.get(_QUIET))


_QUIET = "recon_node.quiet"


def _verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger("pynetdicom").setLevel(logging.NOTSET)


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta[_QUIET] = True
