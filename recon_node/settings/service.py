"""What a node that serves and delivers does, a class for each section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from recon_node.core.choices import LogStyle, Order
from recon_node.schema import Checked, Refused, checked, setting
from recon_node.settings.destinations import check_delivery
from recon_node.settings.kinds import AeTitle, Filename, Name, Network, Port, Token, is_loopback

_YEAR_S = 366 * 86400
_TEN_YEARS_H = 10 * 366 * 24
_TLS = ("tls_certificate", "tls_key", "tls_client_ca")
_MOST_MB = 10**16


@checked(section="delivery")
class DeliverySettings(Checked):
    """Where instances go."""

    spool: Filename = setting("~/.local/state/recon-node/spool", path="path")
    """Folder of the durable queue."""
    destinations: Mapping[str, Mapping[str, Any]] = setting(
        factory=dict, path="destinations", hidden=("password", "token")
    )
    """By name: tables with `address` and the options of that kind of destination."""
    calling_ae_title: AeTitle = "RECON-NODE"
    """The AE title under which PACS know this node."""
    to: tuple[Name, ...] = setting((), peer="destination", peer_names=True)
    """Destinations every series goes to."""
    routes: Mapping[str, Mapping[str, Any]] = setting(factory=dict)
    """Rules by name: tables with `to`, `priority` and patterns by DICOM keyword."""
    priority: int = setting(5, ge=0, le=9, peer="priority")
    """Higher goes first, to the device and (where no rule says otherwise) out of the spool."""
    parallel: int = setting(1, ge=1, le=64)
    """Connections to each destination at a time."""
    listen: str | None = setting(None, path="address")
    """dicom:// or dicoms:// address of our own, to which PACS report storage commitment."""
    grace_s: float = setting(0.0, ge=0, le=_YEAR_S, unit="s")
    """Without storage commitment: how long after its success an instance counts as delivered."""
    retention_h: float = setting(24.0, ge=0, le=_YEAR_S / 3600, unit="h")
    """How long delivered files stay in the spool."""
    probe_s: float = setting(60.0, ge=0, le=_YEAR_S, unit="s")
    """How often a destination to which nothing goes is asked whether it is there (C-ECHO); 0: never."""
    reserve_mb: int = setting(500, limit=True, ge=0, le=_MOST_MB, unit="MB")
    """Free space on the disks of spool, images and deferred scans below which no new scan is taken."""

    @model_validator(mode="after")
    def _every_name_is_there(self) -> Self:
        if self.destinations or self.to or self.routes or self.listen:
            check_delivery(self.destinations, self.to, self.routes, self.listen)
        return self


@checked(section="server")
class ServerSettings(Checked):
    """The MRD server."""

    host: Name = "127.0.0.1"
    """Address to listen on; by default this machine alone can reach it."""
    port: Port = 9002
    """Port to listen on; 0 takes a free one."""
    max_connections: int = setting(4, limit=True, ge=1, le=1000)
    """Scans served at a time."""
    waiting: int = setting(8, limit=True, ge=0, le=10_000)
    """More connections that may wait for their turn; others are refused."""
    timeout_s: float = setting(60.0, limit=True, gt=0, le=86_400, unit="s")
    """Silence after which a connection is given up."""
    handshake_s: float = setting(30.0, limit=True, gt=0, le=3600, unit="s")
    """From connecting to the end of the header, however busy the peer seems."""
    min_rate_kb_s: float = setting(128.0, limit=True, ge=0, le=1e9, unit="kB/s")
    """What a peer has to take of its images on average (beyond a minute once), or is cut off; 0 for any."""
    max_channels: int = setting(512, limit=True, ge=1, le=65_535)
    """Channels of one readout or waveform."""
    buffer_mb: int = setting(1024, limit=True, ge=64, le=10_000_000, unit="MB")
    """Messages of all connections together that have not arrived whole."""
    scan_limit_gb: float = setting(64.0, limit=True, gt=0, le=1e9, unit="GB")
    """Bytes of one scan."""
    drain_s: float = setting(30.0, ge=0, le=86_400, unit="s")
    """How long running scans may go on after SIGTERM or Ctrl-C."""
    out: Filename = setting("images", path="path")
    """Folder for DICOM instances."""
    out_keep_h: float | None = setting(None, ge=1, le=_TEN_YEARS_H, unit="h")
    """After how many hours series are deleted from `out`, but for those that did not get into the spool; only
    where something is delivered. None keeps them."""
    mode: Literal["direct", "deferred", "retrieve", "echo"] = setting("direct", peer="mode", openrecon=True)
    """`deferred` answers with the fallback's images and makes the method's after the connection has closed;
    `retrieve` hands back what was deferred, to who sent it; `echo` only says what came."""
    frames: Literal["off", "sliding"] = setting("off", peer="frames", openrecon=True)
    """`sliding` sends a preliminary image of each frame while the lines of its slice still arrive, by SENSE
    with what has come so far; nothing of them is written, delivered or judged."""
    deferred: Filename = setting("~/.local/state/recon-node/deferred", path="path")
    """Folder of deferred scans, unless `record` names one for every scan."""
    deferred_limit_mb: int = setting(20_000, limit=True, ge=0, le=_MOST_MB, unit="MB")
    """Space for deferred scans; finished ones make room first."""
    queue: Order = "newest"
    """Which scan's slice goes first where several wait for the device (deferred scans go last)."""
    slices_ahead: int = setting(2, limit=True, ge=1, le=1000)
    """Slices that may wait in memory while another is reconstructed; then the sender has to wait."""
    on_vanish: Literal["finish", "stop"] = "finish"
    """A client that vanishes: `finish` its complete slices to DICOM, or `stop` at once."""
    allowed_peers: tuple[Network, ...] = ()
    """Addresses or networks that may connect; empty allows all that can reach `host`."""
    tls_certificate: Filename | None = setting(None, path="path")
    """Certificate that the server shows, with those of its authorities; needs `tls_key`."""
    tls_key: Filename | None = setting(None, path="path")
    """Private key of the certificate."""
    tls_client_ca: Filename | None = setting(None, path="path")
    """With it, clients must show a certificate of this authority."""
    record: Filename | None = setting(None, path="path")
    """Folder that keeps every incoming scan, on disk before an answer leaves; what fails is tried again
    from it."""
    record_limit_mb: int = setting(10_000, limit=True, ge=0, le=_MOST_MB, unit="MB")
    """Space for received scans; the oldest that are done, then those that failed, make room."""
    record_scans: int = setting(10_000, limit=True, ge=1, le=1_000_000)
    """How many received scans are kept; room is made likewise."""
    record_days: float = setting(0.0, ge=0, le=36_600, unit="days")
    """How long they are kept once they are done or failed; 0 for as long as there is room."""
    health_port: Port | None = None
    """Port of /healthz, /readyz and /metrics on loopback; none by default."""
    status_port: Port | None = None
    """Port of the status page, with /healthz, /readyz and /metrics; none by default, 0 takes a free one."""
    status_host: Name = "127.0.0.1"
    """Address of the status page; beyond loopback it needs `status_token`, or `tls_client_ca`, and speaks TLS
    where the server does."""
    status_token: Token | None = setting(None, hidden=True)
    """What a person types, and a program sends as `Authorization: Bearer`, to see the status page."""
    status_patients: bool = False
    """Whether the status page shows patients' names."""
    configurations: Mapping[str, Mapping[str, Any]] = setting(factory=dict, path="configurations")
    """Named configurations a client may ask for: tables of what a peer may set, or of recon settings."""

    @model_validator(mode="after")
    def _is_as_safe_as_it_looks(self) -> Self:
        given = [name for name in _TLS if getattr(self, name) is not None]
        if given and not {"tls_certificate", "tls_key"} <= set(given):
            missing = next(name for name in _TLS if name not in given)
            raise Refused(f"a file, as {given[0]} needs it", key=missing, found=None)
        for name in given:
            if not Path(getattr(self, name)).is_file():
                raise Refused("a file that is there", key=name, found=getattr(self, name))
        self._ports_differ()
        open_to_all = self.status_token is None and self.tls_client_ca is None
        if self.status_port is not None and open_to_all and not is_loopback(self.status_host):
            wanted = "a loopback address, or server.status_token or server.tls_client_ca as well"
            raise Refused(wanted, key="status_host", found=self.status_host)
        return self

    def _ports_differ(self) -> None:
        taken = {self.port: "server.port"}
        for key in ("health_port", "status_port"):
            port = getattr(self, key)
            if port and port in taken:
                raise Refused(f"another port than {taken[port]}", key=key, found=port)
            if port:
                taken[port] = f"server.{key}"


@checked(section="log")
class LogSettings(Checked):
    """What `serve` logs, without patient data at every level."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least serious that is logged."""
    format: LogStyle = "text"
    """A line of text, or of JSON."""
    file: Filename | None = setting(None, path="path")
    """File for the log in place of stderr (which systemd's journal takes, with priorities)."""
    max_mb: int = setting(50, ge=0, le=_MOST_MB, unit="MB")
    """Size at which the file is put aside as NAME.1, NAME.2, ...; 0 leaves that to logrotate and SIGHUP."""
    keep: int = setting(5, ge=1, le=1000)
    """Files put aside that are kept."""
