"""Empties the spool in the background; nobody waits for it.

Whose failure it is decides what follows. A destination's (raised while delivering): all of its entries
wait, ever longer, until it is back, for days if need be. One instance's (told in its `Outcome`): that
one is tried again later, or buried with the reason if trying again cannot help; the others go on.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.uid import generate_uid

from recon_node.core.errors import DeliveryError, DicomError, ReconNodeError
from recon_node.delivery.destinations import OpenDestination
from recon_node.delivery.instance import read_instance
from recon_node.delivery.peers.commitment import CommitmentReport
from recon_node.delivery.queue.entry import Entry
from recon_node.delivery.queue.spool import Spool

_LOG = logging.getLogger(__name__)
_COMMITMENT_BATCH = 200
_HOUSEKEEPING_S = 60.0
_QUIET_S = 5.0
_STOP_S = 30.0
_INTERRUPTED_S = 3.0
"""A person waits at the keyboard: what hangs in the network stays in the spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient to be; all times in seconds."""

    batch: int = 16
    """Entries claimed, and acknowledged to the disk, at a time."""
    parallel: int = 1
    """Connections to each destination."""
    first_wait: float = 1.0
    longest_wait: float = 900.0
    """Waits double from the first to the longest."""
    jitter: float = 0.25
    """Fraction by which a wait is shortened at random, so that nodes do not come back all at once."""
    give_up_after: int = 20
    """Attempts on one instance whose failure might pass while its destination is otherwise well."""
    grace: float = 0.0
    """Without storage commitment: how long after its success an entry counts as delivered."""
    commitment_patience: float = 3600.0
    """Without a report for so long, commitment is asked for again."""
    retention: float = 86400.0
    """How long delivered files are kept."""
    poll: float = 1.0
    """Longest sleep while there is nothing to do."""

    def wait(self, failures: int, fortune: random.Random) -> float:
        """Back-off after `failures` in a row (at least 1), with jitter."""
        wait = min(self.longest_wait, self.first_wait * 2.0 ** min(failures - 1, 30))
        return wait * (1.0 - self.jitter * fortune.random())


@dataclass(slots=True)
class Health:
    """How a destination does."""

    failures: int = 0
    """In a row."""
    resume: float = 0.0
    """Steady clock: not before."""
    trouble: str | None = None
    """The last failure; None while all is well."""


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
        self._destinations = dict(destinations)
        self._fortune = random.Random(seed)  # noqa: S311 - jitter, not secrets
        self._sending = {name: Health() for name in self._destinations}
        self._confirming = {name: Health() for name in self._destinations}
        self._busy: dict[str, float] = {}
        """Destination to when it last had work; gone once its connections are closed."""
        self._stop = threading.Event()
        self._work = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._cleaned = spool.clock.steady()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and not issubclass(kind, Exception)
        self.stop(timeout=_INTERRUPTED_S if interrupted else _STOP_S)

    def health(self) -> dict[str, Health]:
        """Destination to how sending to it goes, or asking it for storage commitment where that is worse."""
        return {
            name: max(sending, self._confirming[name], key=lambda health: health.failures)
            for name, sending in self._sending.items()
        }

    # ---------------------------------------------------------------- threads

    def start(self) -> None:
        """Deliver in threads until `stop`."""
        for name in self._destinations:
            for number in range(self.policy.parallel):
                self._spawn(f"deliver-{number}", self._send_loop, name)
            self._spawn("confirm", self._confirm_loop, name)

    def stop(self, *, timeout: float = _STOP_S) -> None:
        """Finish the instance at hand, put the rest back, close connections; at most `timeout` s.

        Threads that are stuck in the network longer than that do not keep the program from ending;
        what they had claimed is free again as soon as the process is gone.
        """
        self._stop.set()
        self.wake()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._threads.clear()
        for destination in self._destinations.values():
            destination.close()

    def wake(self) -> None:
        """Look at once rather than at the next poll (after `Spool.put`)."""
        with self._work:
            self._work.notify_all()

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

    def _spawn(self, role: str, target: Callable[[str], None], name: str) -> None:
        thread = threading.Thread(target=target, args=(name,), name=f"{role}-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _send_loop(self, name: str) -> None:
        self._loop(name, self._sending[name], self.send_once)

    def _confirm_loop(self, name: str) -> None:
        self._loop(name, self._confirming[name], self.confirm_once)

    def _loop(self, name: str, health: Health, step: Callable[[str], int]) -> None:
        while not self._stop.is_set():
            try:
                busy = step(name)
            except ReconNodeError as error:
                # The spool itself: a full disk, an index that had to be rebuilt.
                self._pause(name, health, error)
                busy = 0
            if not busy:
                with self._work:
                    if not self._stop.is_set():
                        self._work.wait(self.policy.poll)

    # ---------------------------------------------------------------- sending

    def send_once(self, name: str) -> int:
        """Claim and try one batch for a destination; how many entries were dealt with."""
        health = self._sending[name]
        if self.spool.clock.steady() < health.resume:
            return 0
        entries = self.spool.claim(name, limit=self.policy.batch)
        if not entries:
            self._rest(name)
            return 0
        self._busy[name] = self.spool.clock.steady()
        done: list[Entry] = []
        rest = {entry.path: entry for entry in entries}
        renewed = self.spool.clock.steady()
        try:
            for entry, error in self._attempt(name, rest):
                if self.spool.clock.steady() - renewed > self.spool.lease_s / 4:
                    renewed = self.spool.clock.steady()
                    self.spool.renew([*done, *rest.values()])
                if error is None:
                    done.append(entry)
                else:
                    self._failed(name, entry, error)
        except DeliveryError as error:
            self._pause(name, health, error)
        else:
            self._recovered(name, health)
        finally:
            self._settle(name, done)
            self.spool.release(rest.values())
        return len(entries) - len(rest)

    def _rest(self, name: str) -> None:
        """Let go of connections after a quiet while: some PACS serve one at a time."""
        since = self._busy.get(name)
        if since is not None and self.spool.clock.steady() - since >= _QUIET_S:
            self._busy.pop(name, None)
            self._destinations[name].close()

    def _attempt(self, name: str, rest: dict[Path, Entry]) -> Iterator[tuple[Entry, DeliveryError | None]]:
        outcomes = self._destinations[name].deliver([e.path for e in rest.values()])
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                if outcome.note:
                    _LOG.warning("%s: %s", name, outcome.note)
                yield rest.pop(outcome.file), outcome.error
                if self._stop.is_set():
                    return

    def _settle(self, name: str, done: list[Entry]) -> None:
        if not done:
            return
        if self.policy.grace > 0 or self._destinations[name].commits:
            self.spool.stored(done)
        else:
            self.spool.delivered(done)

    def _failed(self, name: str, entry: Entry, error: DeliveryError) -> None:
        tries = entry.attempts + 1
        if not error.retryable:
            self.spool.bury([entry], str(error))
        elif tries >= self.policy.give_up_after:
            self.spool.bury([entry], f"given up after {tries} attempts; the last: {error}")
        else:
            self.spool.postpone(entry, self.policy.wait(tries, self._fortune), str(error))
            return
        _LOG.error("%s: an instance was given up: %s", name, error)

    def _pause(self, name: str, health: Health, error: ReconNodeError) -> None:
        health.failures += 1
        wait = self.policy.wait(health.failures, self._fortune)
        if health.trouble is None:
            _LOG.warning("%s: delivery waits: %s", name, error)
        health.resume = self.spool.clock.steady() + wait
        health.trouble = str(error)

    def _recovered(self, name: str, health: Health) -> None:
        if health.trouble is not None:
            _LOG.info("%s: delivery goes on", name)
        health.failures, health.resume, health.trouble = 0, 0.0, None

    # ---------------------------------------------------------------- confirming

    def confirm_once(self, name: str) -> int:
        """Ask for commitment or let the grace time pass; how many entries were dealt with."""
        self._housekeeping()
        health = self._confirming[name]
        now = self.spool.clock.steady()
        stored = self.spool.entries(destination=name, state="stored")
        if not stored or now < health.resume:
            return 0
        if not self._destinations[name].commits:
            safe = [e for e in stored if e.changed + self.policy.grace <= now]
            self.spool.delivered(safe)
            return len(safe)
        open_ = [e for e in stored if not e.ticket or e.due + self.policy.commitment_patience <= now]
        open_ = open_[:_COMMITMENT_BATCH]
        if open_:
            try:
                self._ask(name, open_)
            except DeliveryError as error:
                self._pause(name, health, error)
                return 0
            self._recovered(name, health)
        return len(open_)

    def _ask(self, name: str, entries: list[Entry]) -> None:
        known = []
        for entry in entries:
            try:
                instance = read_instance(entry.path)
            except DicomError as error:
                self.spool.bury([entry], str(error))
                continue
            known.append((entry, (instance.sop_class, instance.uid)))
        if not known:
            return
        ticket = str(generate_uid())
        self.spool.ask([entry for entry, _ in known], ticket)
        try:
            report = self._destinations[name].ask_commitment([names for _, names in known], ticket)
        except DeliveryError:
            self.spool.ask([entry for entry, _ in known], "")
            raise
        if report is not None:
            self.on_report(report)

    def on_report(self, report: CommitmentReport) -> None:
        """Act on a commitment report, whichever way it came (give this to a `CommitmentListener`)."""
        entries = self.spool.entries(ticket=report.transaction, state="stored")
        self.spool.delivered([e for e in entries if e.uid in report.committed])
        for entry in entries:
            if entry.uid not in report.committed and entry.uid in report.failed:
                self._lost(entry, report.failed[entry.uid])

    def _lost(self, entry: Entry, reason: str) -> None:
        _LOG.warning("%s: %s; sending it again", entry.destination, reason)
        tries = entry.attempts + 1
        if tries >= self.policy.give_up_after:
            self.spool.bury([entry], f"given up after {tries} attempts; the last: {reason}")
        else:
            self.spool.again(entry, self.policy.wait(tries, self._fortune), reason)

    def _housekeeping(self) -> None:
        now = self.spool.clock.steady()
        if now - self._cleaned >= _HOUSEKEEPING_S:
            self._cleaned = now
            self.spool.reconcile()
            self.spool.purge(older_than_s=self.policy.retention)
