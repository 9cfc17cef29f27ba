"""From what a person writes (DEST) to a destination that delivers."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, get_type_hints, runtime_checkable
from urllib.parse import SplitResult, parse_qsl, urlsplit

from recon_node.core.errors import ConfigError
from recon_node.core.plugins import installed
from recon_node.core.tls import client_tls, server_tls
from recon_node.delivery.outcome import Outcome
from recon_node.delivery.peers.acceptor import Admission
from recon_node.delivery.peers.association import Peer, Timeouts
from recon_node.delivery.peers.commitment import REPORT_BYTES, CommitmentListener, CommitmentReport, OnReport
from recon_node.delivery.peers.dimse import DicomDestination
from recon_node.delivery.peers.folder import FolderDestination
from recon_node.delivery.peers.foreign import GROUP, open_foreign
from recon_node.delivery.peers.http import HttpAccess
from recon_node.delivery.peers.stow import StowDestination

_DEFAULT_PORT = 104
_DEFAULT_TLS_PORT = 2762
_TLS_OPTIONS = frozenset({"ca", "certificate", "key", "server_name"})
_TIMEOUTS = frozenset({"connect", "associate", "answer", "network"})
_DICOM_OPTIONS = _TLS_OPTIONS | _TIMEOUTS | {"calling", "commitment", "verify"}
_LISTENER_OPTIONS = frozenset({"ca", "certificate", "key", "callers", "peers"})
_FOLDER_OPTIONS = frozenset({"mode"})
_HTTP_OPTIONS = frozenset(get_type_hints(HttpAccess)) | {"verify"}


@runtime_checkable
class OpenDestination(Protocol):
    """A `recon_node.core.protocols.Destination` that also tells of each file, can be tried and closed."""

    @property
    def name(self) -> str:
        """Name from the settings, or the address."""

    def send(self, files: Sequence[Path]) -> None:
        """Deliver DICOM files; raises the first error."""

    def deliver(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        """Deliver DICOM files, telling of each; raises what concerns the destination."""

    @property
    def commits(self) -> bool:
        """Whether storage commitment confirms what was sent."""

    def ask_commitment(
        self, instances: Sequence[tuple[str, str]], transaction: str
    ) -> CommitmentReport | None:
        """Ask for storage commitment of (SOP class, SOP instance) pairs; the report if it came at once."""

    def echo(self) -> float:
        """Try the way there; the seconds it took."""

    def close(self) -> None:
        """Let go of connections kept open."""


def open_destination(dest: str, *, named: Mapping[str, Mapping[str, Any]] = {}) -> OpenDestination:
    """The destination that `dest` means; nothing is contacted yet.

    Parameters
    ----------
    dest : str
        A key of `named`; ``dicom://AET@host:port``; ``dicoms://...`` (TLS); an ``http(s)://`` STOW-RS
        base URL; a scheme that an installed package adds (entry point group ``recon_node.destinations``);
        anything else is a folder (a bare word only where it exists: a misspelt name must not
        become one). DICOM addresses take options as a query
        (``?calling=NODE&ca=ca.pem&certificate=node.pem&key=node.key``).
    named : mapping
        Name to options: ``address`` as above, and for DICOM ``calling``, ``ca``, ``certificate``,
        ``key``, ``server_name``, ``commitment`` (bool), ``connect``, ``associate``, ``answer``,
        ``network`` (s); for http
        ``user``, ``password``, ``token``, ``certificate``, ``key``, ``ca``, ``connect_s``, ``answer_s``.

    Raises
    ------
    ConfigError
        An address that is none, an unknown option, or unreadable certificates.
    """
    if dest in named:
        options = dict(named[dest])
        address = options.pop("address", None)
        if not isinstance(address, str):
            raise ConfigError(
                f"destination {dest!r} has no address, expected for example dicom://AET@host:104"
            )
        return _open(address, dest, options)
    if "://" not in dest and os.sep not in dest and dest and not Path(dest).is_dir():
        known = ", ".join(sorted(named)) or "none"
        raise ConfigError(
            f"destination {dest!r} is not configured (configured: {known}), and there is no such folder: "
            f"write ./{dest} for a new one"
        )
    return _open(dest, None, {})


def echo(dest: str, *, named: Mapping[str, Mapping[str, Any]] = {}) -> float:
    """Try the way to `dest`; returns the seconds it took.

    Raises
    ------
    DeliveryError
        With a diagnosis: unknown host, no route, refused, AE title rejected, no presentation
        context, TLS certificate for another name.
    """
    destination = open_destination(dest, named=named)
    try:
        return destination.echo()
    finally:
        destination.close()


def _open(address: str, name: str | None, options: dict[str, Any]) -> OpenDestination:
    scheme = urlsplit(address).scheme if "://" in address else ""
    if scheme in SCHEMES:
        return SCHEMES[scheme](address, name, options)
    if scheme in installed(GROUP):
        return open_foreign(installed(GROUP)[scheme], address, name or address, options)
    known = ", ".join(f"{one}://" for one in (*filter(None, SCHEMES), *installed(GROUP)))
    raise ConfigError(
        f"destination {address!r}: unknown scheme {scheme!r}, expected {known}, a folder or a configured name"
    )


def _open_folder(address: str, name: str | None, options: dict[str, Any]) -> FolderDestination:
    _refuse_unknown(address, options, _FOLDER_OPTIONS)
    path = urlsplit(address).path if address.startswith("file://") else address
    if not path:
        raise ConfigError("destination: empty folder name")
    folder = Path(path).expanduser()
    if "mode" not in options:
        return FolderDestination(folder, name=name)
    return FolderDestination(folder, name=name, mode=_mode(options["mode"]))


def _mode(value: Any) -> int:
    text = str(value)
    mode = int(text, 8) if text.isdigit() and not set(text) & set("89") else 0
    if mode & 0o600 != 0o600 or mode & ~0o666:
        raise ConfigError(f"destination option mode: {value!r}, expected permissions of files such as '0640'")
    return mode


def _open_stow(address: str, name: str | None, options: dict[str, Any]) -> StowDestination:
    verify = _yes("verify", options.pop("verify", True))
    return StowDestination(address, name=name, access=_http_access(address, options), verify=verify)


def _http_access(address: str, options: dict[str, Any]) -> HttpAccess:
    _refuse_unknown(address, options, _HTTP_OPTIONS)
    checked: dict[str, Any] = {k: _seconds(k, v) if k.endswith("_s") else str(v) for k, v in options.items()}
    for name in ("ca", "certificate", "key"):
        if name in checked and not Path(checked[name]).is_file():
            raise ConfigError(f"TLS file {checked[name]} ({name} of {address!r}): no such file")
    if ("certificate" in checked or "key" in checked) and not address.startswith("https:"):
        raise ConfigError(f"destination {address!r}: a client certificate needs https://")
    return HttpAccess(**checked)


def _open_dicom(address: str, name: str | None, options: dict[str, Any]) -> DicomDestination:
    secure, parts, options = _dicom_parts(address, options, _DICOM_OPTIONS)
    peer = Peer(
        host=str(parts.hostname),
        port=parts.port or (_DEFAULT_TLS_PORT if secure else _DEFAULT_PORT),
        called=_ae_title(parts.netloc.rpartition("@")[0], address),
        calling=_ae_title(str(options.get("calling", "RECON-NODE")), address),
        tls=_client_tls(options) if secure else None,
        server_name=options.get("server_name"),
        timeouts=Timeouts(**{k: _seconds(k, options[k]) for k in _TIMEOUTS if k in options}),
    )
    return DicomDestination(
        peer,
        name=name or address,
        commits=_yes("commitment", options.get("commitment", False)),
        verify=_yes("verify", options.get("verify", True)),
    )


SCHEMES: Mapping[str, Callable[[str, str | None, dict[str, Any]], OpenDestination]] = {
    "dicom": _open_dicom,
    "dicoms": _open_dicom,
    "http": _open_stow,
    "https": _open_stow,
    "file": _open_folder,
    "": _open_folder,
}
"""Scheme of an address to what opens it, from address, configured name and options."""


def open_listener(address: str, on_report: OnReport, *, expected: Sequence[str] = ()) -> CommitmentListener:
    """Where PACS report storage commitment to; listens once entered.

    Parameters
    ----------
    address : str
        ``dicom://AET@host:port``, or ``dicoms://AET@host:port?certificate=node.pem&key=node.key``, to
        which ``&ca=ca.pem`` adds that the PACS must show a certificate. ``callers=AET,AET`` and
        ``peers=HOST,NETWORK`` say who may report, in place of the destinations; ``any`` lets everybody.
    expected : sequence of str
        Addresses (``dicom://AET@host:port``) of the destinations that may report.
    on_report : callable
        As for `CommitmentListener`.

    Raises
    ------
    ConfigError
        An address that is none, an unknown option, or unreadable certificates.
    """
    if urlsplit(address).scheme not in ("dicom", "dicoms"):
        raise ConfigError(f"listener {address!r}: expected dicom://AET@host:port or dicoms://")
    secure, parts, options = _dicom_parts(address, {}, _LISTENER_OPTIONS)
    tls = _server_tls(options) if secure else None
    title = _ae_title(parts.netloc.rpartition("@")[0], address)
    port = (_DEFAULT_TLS_PORT if secure else _DEFAULT_PORT) if parts.port is None else parts.port
    return CommitmentListener(
        on_report,
        ae_title=title,
        host=str(parts.hostname),
        port=port,
        tls=tls,
        admission=_admission(options, [urlsplit(a) for a in expected]),
    )


def _admission(options: Mapping[str, Any], expected: Sequence[SplitResult]) -> Admission:
    """Who may report: those named, else the destinations themselves by AE title and host."""
    callers = _names(options.get("callers"), [p.netloc.rpartition("@")[0] for p in expected])
    hosts = _names(options.get("peers"), [str(p.hostname) for p in expected])
    return Admission(callers=callers, hosts=hosts, total_bytes=REPORT_BYTES)


def _names(given: Any, expected: Sequence[str]) -> tuple[str, ...] | None:
    if given is not None:
        return None if str(given) == "any" else tuple(str(given).split(","))
    return tuple(dict.fromkeys(expected)) or None


def _dicom_parts(
    address: str, options: dict[str, Any], known: frozenset[str]
) -> tuple[bool, SplitResult, dict[str, Any]]:
    """Whether it is TLS, the parts of the address, and the options of its query and of a table."""
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query)) | options
    _refuse_unknown(address, options, known)
    secure = parts.scheme == "dicoms"
    form = f"expected {parts.scheme}://AET@host:port"
    try:
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"destination {address!r}: {error}, {form}") from error
    if not parts.hostname or parts.path not in ("", "/"):
        raise ConfigError(f"destination {address!r} is no DICOM address, {form}")
    if not secure and _TLS_OPTIONS & set(options):
        raise ConfigError(f"destination {address!r}: TLS options need dicoms://")
    return secure, parts, options


def _server_tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    if "certificate" not in options:
        raise ConfigError("a dicoms:// listener needs ?certificate=node.pem&key=node.key")
    return server_tls(options["certificate"], options.get("key"), client_ca=options.get("ca"))


def _client_tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    return client_tls(options.get("ca"), certificate=options.get("certificate"), key=options.get("key"))


def _ae_title(title: str, address: str) -> str:
    if not 1 <= len(title.strip()) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ConfigError(f"destination {address!r}: AE title {title!r}, expected 1 to 16 ASCII characters")
    return title.strip()


def _yes(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false"):
        raise ConfigError(f"destination option {name}: {value!r}, expected true or false")
    return str(value).lower() == "true"


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"destination option {name}: {value!r} is no number of seconds") from error
    if not 0 < seconds < 86400:
        raise ConfigError(f"destination option {name}: {value!r}, expected more than 0 s and less than a day")
    return seconds


def _refuse_unknown(address: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(
            f"destination {address!r}: unknown option {', '.join(unknown)}"
            + (f", known: {', '.join(sorted(known))}" if known else ", a folder takes none")
        )
