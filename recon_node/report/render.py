"""Templates to files; style and script lie in the page, and a policy keeps everything else out."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recon_node.core import durable

WARNING = "Not for clinical use until validated."


def render(path: Path, template: str, *, script: str, **content: Any) -> None:
    """Write a page, whole or not at all.

    Parameters
    ----------
    path : Path
        The file; an older one is replaced.
    template : str
        Name of the template.
    script : str
        Name of its script.
    **content
        What the template shows; text in it is escaped.
    """
    page = _environment().get_template(template)
    code = _own(script)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    text = page.render(
        style=Markup(_own("style.css")),  # noqa: S704 - ours
        script=Markup(code),  # noqa: S704 - ours
        script_hash=digest,
        warning=WARNING,
        **content,
    )
    durable.write_text(path, text)


def as_json(value: Any) -> Markup:
    """A value as JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - escaped above


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("recon_node.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _own(name: str) -> str:
    return resources.files("recon_node.report").joinpath("templates", name).read_text(encoding="utf-8")
