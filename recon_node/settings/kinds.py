"""Kinds of values that several settings have."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from recon_node.core.errors import ConfigError
from recon_node.core.folders import trouble_with
from recon_node.methods.table import BUILT_IN, CLASSICAL, LEARNED, check_method, method_names
from recon_node.schema import Allowed, Refused
from recon_node.schema.complaints import closest

_UID_ROOT = re.compile(r"[0-2](\.(0|[1-9][0-9]*))*\.")
_LONGEST_ROOT = 54
"""What leaves room for a generated part in the 64 characters of a UID (PS3.5 section 9.1)."""

_TOKEN = re.compile("[!-~]{16,512}")
_PASSABLE = "16 to 512 printable ASCII characters without a space"


def _path(value: str) -> str:
    try:
        return str(Path(value).expanduser())
    except RuntimeError as error:
        raise Refused(f"a path ({error})") from error


def _title(value: str) -> str:
    title = value.strip()
    if not 1 <= len(title) <= 16 or not title.isascii() or "\\" in title:
        raise Refused("1 to 16 printable ASCII characters without a backslash")
    return title


def _uid_root(value: str) -> str:
    if not _UID_ROOT.fullmatch(value) or len(value) > _LONGEST_ROOT:
        raise Refused(f"digits and dots ending in a dot, at most {_LONGEST_ROOT}, such as 1.2.826.0.1.")
    return value


def _folders(value: str) -> str:
    wanted = trouble_with(value)
    if wanted is not None:
        raise Refused(wanted)
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise Refused("addresses or networks such as 192.168.2.0/24") from error
    return value


def _method(value: str) -> str:
    try:
        return check_method(value)
    except ConfigError as error:
        known = method_names()
        wanted = f"{', '.join(known)}, or module:Class of your own{closest(value, known)}"
        raise Refused(wanted) from error


def _stand_in(value: str) -> str:
    if value in LEARNED:
        raise Refused(f"{', '.join(CLASSICAL)}, or another that learned nothing")
    return _method(value)


def _word(value: str) -> str:
    if not value.strip() or "," in value or value.endswith("."):
        raise Refused("words without a comma, and no full stop at their end")
    return value


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        # What was given is not shown: it may be somebody's password.
        raise Refused(told=f"found {len(value)} characters, allowed {_PASSABLE}")
    return value


def _dicom_text(value: str) -> str:
    if not value.strip() or "\\" in value:
        raise Refused("text without a backslash")
    return value


AeTitle = Annotated[
    str, AfterValidator(_title), Allowed("1 to 16 printable ASCII characters without a backslash")
]
Filename = Annotated[str, Field(min_length=1), AfterValidator(_path), Allowed("a path")]
FolderTemplate = Annotated[
    str, Field(max_length=200), AfterValidator(_folders), Allowed("names with fields such as {patient}")
]
Method = Annotated[
    str,
    AfterValidator(_method),
    Allowed(f"{', '.join(BUILT_IN)}, one of an installed package, or module:Class"),
]
"""Name of a method; nothing is imported yet."""
StandIn = Annotated[
    str, AfterValidator(_stand_in), Allowed(f"{', '.join(CLASSICAL)}, or another that learned nothing")
]
"""Name of a method that may stand in for a network."""
Name = Annotated[str, Field(min_length=1, max_length=255), Allowed("a name")]
Network = Annotated[str, AfterValidator(_network), Allowed("an address or network such as 192.168.2.0/24")]
Port = Annotated[int, Field(ge=0, le=65535)]
ShortText = Annotated[
    str, Field(max_length=16), AfterValidator(_dicom_text), Allowed("text of at most 16 characters")
]
LongText = Annotated[
    str, Field(max_length=64), AfterValidator(_dicom_text), Allowed("text of at most 64 characters")
]
Token = Annotated[str, AfterValidator(_token), Allowed(_PASSABLE)]
UidRoot = Annotated[
    str,
    AfterValidator(_uid_root),
    Allowed(f"digits and dots ending in a dot, at most {_LONGEST_ROOT}, such as 1.2.826.0.1."),
]
Word = Annotated[str, AfterValidator(_word), Allowed("words without a comma")]


def names_a_file(text: str) -> bool:
    """Whether a name of weights means a file: it has a slash or the suffix."""
    return any(mark in text for mark in ("/", "\\")) or text.endswith(".safetensors")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
