"""Empties the spool in the background; nobody waits for it.

Each destination has threads of its own for sending and for confirming, supervised, so that none waits for
another. See `sending` for whose failure is whose.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from recon_node.core.errors import ConfigError, ReconNodeError
from recon_node.core.supervise import Supervisor
from recon_node.delivery.asking import Asking
from recon_node.delivery.confirming import Confirming, is_transaction
from recon_node.delivery.destinations import OpenDestination
from recon_node.delivery.peers.commitment import CommitmentReport
from recon_node.delivery.policy import DestinationStatus, Health, Policy
from recon_node.delivery.probing import Probing
from recon_node.delivery.queue.spool import Spool
from recon_node.delivery.sending import Sending

_LOG = logging.getLogger(__name__)
_HOUSEKEEPING_S = 60.0
_STOP_S = 30.0
_INTERRUPTED_S = 3.0
"""A person waits at the keyboard: what hangs in the network stays in the spool."""


class _Work(Protocol):
    def once(self) -> int: ...

    def pause(self, error: ReconNodeError) -> None: ...


class DeliveryWorker:
    """Delivers a spool's entries to their destinations.

    Parameters
    ----------
    spool : Spool
        Where entries come from.
    destinations : mapping
        Name, as used with `Spool.put`, to destination. Entries for other names stay.
    policy : Policy
        How patient to be.
    seed : int, optional
        For the jitter.
    """

    def __init__(
        self,
        spool: Spool,
        destinations: Mapping[str, OpenDestination],
        *,
        policy: Policy | None = None,
        seed: int | None = None,
    ) -> None:
        self.spool = spool
        self.policy = policy or Policy()
        self.supervisor = Supervisor()
        self._destinations = dict(destinations)
        self._work = threading.Condition()
        self._sending: dict[str, Sending] = {}
        self._confirming: dict[str, Confirming] = {}
        self._probing: dict[str, Probing] = {}
        rng = random.Random(seed)  # noqa: S311 - jitter, not secrets
        for name, destination in self._destinations.items():
            asking = Asking(name, destination, spool.clock.steady)
            self._sending[name] = Sending(
                spool,
                name,
                destination,
                policy=self.policy,
                rng=rng,
                asking=asking,
                stopping=self.supervisor.stopping,
            )
            self._confirming[name] = Confirming(
                spool, name, destination, policy=self.policy, rng=rng, asking=asking
            )
            self._probing[name] = Probing(
                spool, name, destination, policy=self.policy, sending=self._sending[name]
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and not issubclass(kind, Exception)
        self.stop(timeout=_INTERRUPTED_S if interrupted else _STOP_S)

    # ---------------------------------------------------------------- how it does

    def health(self) -> dict[str, Health]:
        """Destination to how sending to it goes, or asking it for confirmation where that is worse."""
        return {
            name: max(sending.health, self._confirming[name].health, key=lambda health: health.failures)
            for name, sending in self._sending.items()
        }

    def status(self) -> dict[str, DestinationStatus]:
        """Destination to what it does in numbers."""
        counts, oldest, health = self.spool.counts(), self.spool.oldest("waiting"), self.health()
        troubles = {name: one.trouble or self._probing[name].health.trouble for name, one in health.items()}
        return {
            name: DestinationStatus(
                up=troubles[name] is None,
                trouble=troubles[name],
                delivered=sending.tally.delivered,
                failed=sending.tally.failed,
                waiting=counts.get(name, {}).get("waiting", 0),
                stored=counts.get(name, {}).get("stored", 0),
                dead=counts.get(name, {}).get("dead", 0),
                oldest_waiting_s=oldest[name].queued_s if name in oldest else 0.0,
            )
            for name, sending in self._sending.items()
        }

    def trouble(self) -> str | None:
        """Why the node cannot be relied on to deliver: a thread is down, the spool cannot be written.

        None while all is well. A destination that is away is no trouble of the node; `status` tells.
        """
        down = self.supervisor.trouble()
        if down is not None:
            return down
        try:
            self.spool.check_writable()
        except ReconNodeError as error:
            return str(error)
        return None

    # ---------------------------------------------------------------- threads

    def start(self) -> None:
        """Deliver in threads until `stop`."""
        for name, sending in self._sending.items():
            for number in range(self.policy.parallel):
                self._run(f"deliver-{number}-{name}", sending)
            self._run(f"confirm-{name}", self._confirming[name])
            if self.policy.probe > 0:
                self._run(f"probe-{name}", self._probing[name])
        self.supervisor.run("spool-housekeeping", self._housekeeping)

    def stop(self, *, timeout: float = _STOP_S) -> None:
        """Finish the instance at hand, put the rest back, close connections; at most `timeout` s.

        Threads that are stuck in the network longer than that do not keep the program from ending;
        what they had claimed is free again as soon as the process is gone.
        """
        self.supervisor.stopping.set()
        self.wake()
        self.supervisor.stop(timeout)
        for destination in self._destinations.values():
            destination.close()

    def wake(self) -> None:
        """Look at once rather than at the next poll (after `Spool.put`)."""
        with self._work:
            self._work.notify_all()

    def retry(self, name: str) -> int:
        """Revive a destination's dead letters and try it at once, however long it would have waited.

        Returns
        -------
        int
            Entries that will be tried.

        Raises
        ------
        ConfigError
            There is no such destination.
        SpoolFull, SpoolCorrupt
            The spool cannot be written.
        """
        if name not in self._destinations:
            known = ", ".join(self._destinations)
            raise ConfigError(f"no destination {name!r}; this node has {known}")
        count = self.spool.retry(destination=name)
        self._sending[name].health.resume = self._confirming[name].health.resume = 0.0
        self.wake()
        return count

    def drain(self, *, timeout: float) -> bool:
        """Wait until nothing is waiting or unconfirmed; False if that took longer than `timeout` s."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            counts = self.spool.counts()
            if not any(
                counts.get(n, {}).get(s, 0) for n in self._destinations for s in ("waiting", "stored")
            ):
                return True
            time.sleep(0.02)
        return False

    def _run(self, thread: str, work: _Work) -> None:
        self.supervisor.run(thread, partial(self._loop, work.once, work.pause), longest_wait_s=30.0)

    def _loop(self, step: Callable[[], int], pause: Callable[[ReconNodeError], None]) -> None:
        while not self.supervisor.stopping.is_set():
            try:
                busy = step()
            except ReconNodeError as error:
                # The spool itself: a full disk, an index that had to be rebuilt.
                pause(error)
                busy = 0
            if not busy:
                with self._work:
                    if not self.supervisor.stopping.is_set():
                        self._work.wait(self.policy.poll)

    def _housekeeping(self) -> None:
        while not self.supervisor.stopping.wait(_HOUSEKEEPING_S):
            try:
                self.clean()
            except ReconNodeError as error:
                _LOG.warning("the spool was not looked after: %s", error)

    # ---------------------------------------------------------------- single steps

    def send_once(self, name: str) -> int:
        """Claim and try one batch for a destination; how many entries were dealt with."""
        return self._sending[name].once()

    def confirm_once(self, name: str) -> int:
        """Confirm what a destination stored; how many entries were dealt with."""
        return self._confirming[name].once()

    def clean(self) -> None:
        """Make the index agree with the folders, and delete delivered files that are old enough."""
        self.spool.reconcile()
        self.spool.purge(older_than_s=self.policy.retention)

    def on_report(self, report: CommitmentReport) -> None:
        """Act on a commitment report, whichever way it came (give this to a `CommitmentListener`)."""
        if not is_transaction(report.transaction):
            return
        entries = self.spool.entries(ticket=report.transaction, state="stored")
        for name, confirming in self._confirming.items():
            confirming.on_report(report, [e for e in entries if e.destination == name])
