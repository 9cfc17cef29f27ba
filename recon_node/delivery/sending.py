"""Sending what waits for one destination.

Whose failure it is decides what follows. A destination's (raised while delivering): all of its entries
wait, ever longer, until it is back, for days if need be. One instance's (told in its `Outcome`): that one is
tried again later, or becomes a dead letter with the reason if trying again cannot help; the others go on. An
exception that nobody foresaw belongs to the instance that was being sent. A destination that failed a few
times in a row is offered one instance at a time, each time another: where only one of them brings the
connection down, it is that instance's failure.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from recon_node.core.errors import DeliveryError, ReconNodeError, where_it_failed
from recon_node.delivery.asking import Asking
from recon_node.delivery.destinations import OpenDestination
from recon_node.delivery.outcome import Unanswered
from recon_node.delivery.policy import Health, Policy, Tally
from recon_node.delivery.queue.entry import Entry
from recon_node.delivery.queue.spool import Spool

_LOG = logging.getLogger(__name__)
_QUIET_S = 5.0
_ONE_AT_A_TIME_AFTER = 3
"""Failures of a destination in a row."""


class Sending:
    """One destination's way out of the spool; its threads share this object.

    Parameters
    ----------
    spool, name, destination
        What is sent where.
    policy, rng : Policy, random.Random
        How patient to be, and the jitter.
    asking : Asking
        Of the same destination.
    stopping : threading.Event
        Set while the worker stops: finish the instance at hand, put the rest back.
    """

    def __init__(
        self,
        spool: Spool,
        name: str,
        destination: OpenDestination,
        *,
        policy: Policy,
        rng: random.Random,
        asking: Asking,
        stopping: threading.Event,
    ) -> None:
        self.spool = spool
        self.name = name
        self.destination = destination
        self.health = Health()
        self.tally = Tally()
        self._policy = policy
        self._rng = rng
        self._asking = asking
        self._stopping = stopping
        self._busy_since: float | None = None
        """When it last had work; None once its connections are closed."""
        self._owed: list[Callable[[], None]] = []
        """What came of attempts and could not be written down (a full or read-only disk)."""
        self._lock = threading.Lock()
        self._brought_down: dict[str, int] = {}
        """Instances at which the destination failed as a whole, with `Tally.delivered` at that time."""

    # ---------------------------------------------------------------- one round

    def once(self) -> int:
        """Claim and try one batch; how many entries were dealt with."""
        now = self.spool.clock.steady()
        if now < self.health.resume:
            return 0
        self._write_what_is_owed()
        alone = self.health.failures >= _ONE_AT_A_TIME_AFTER
        entries = self.spool.claim(self.name, limit=1 if alone else self._policy.batch)
        if not entries:
            self._rest()
            return 0
        self._busy_since = now
        rest = {entry.path: entry for entry in entries}
        try:
            self._leave_out_what_is_there(rest)
            self._send(rest)
        except ReconNodeError as error:
            self.pause(error)
            if alone:
                self._make_way(rest, error)
            elif isinstance(error, Unanswered) and rest:
                self._doubt(rest, error)
        except Exception as error:  # noqa: BLE001 - a destination may be anyone's code, over anyone's library
            self._unforeseen(rest, error)
        else:
            self._recovered()
        finally:
            self._write(lambda: self.spool.release(rest.values()))
        return len(entries) - len(rest)

    def _send(self, rest: dict[Path, Entry]) -> None:
        done: list[Entry] = []
        renewed = self.spool.clock.steady()
        try:
            for entry, error in self._attempt(rest):
                if self.spool.clock.steady() - renewed > self.spool.lease_s / 4:
                    renewed = self.spool.clock.steady()
                    self.spool.renew([*done, *rest.values()])
                if error is None:
                    done.append(entry)
                else:
                    self._failed(entry, error)
        finally:
            self._settle(done)

    def _attempt(self, rest: dict[Path, Entry]) -> Iterator[tuple[Entry, DeliveryError | None]]:
        outcomes = self.destination.deliver([e.path for e in rest.values()])
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                if outcome.note:
                    _LOG.warning("%s", outcome.note, extra={"destination": self.name})
                yield rest.pop(outcome.file), outcome.error
                if self._stopping.is_set():
                    return

    def _leave_out_what_is_there(self, rest: dict[Path, Entry]) -> None:
        """Ask first for entries that an earlier attempt may have stored."""
        doubtful = [entry for entry in rest.values() if entry.in_doubt]
        if not doubtful:
            return
        held = self._asking.held(doubtful)
        if held is None and self.destination.commits:
            there = doubtful  # the report tells, and what it lacks is sent again
        else:
            there = [entry for entry in doubtful if (held or {}).get(entry)]
        for entry in there:
            rest.pop(entry.path)
        self._settle(there, how="found there")

    # ---------------------------------------------------------------- what came of it

    def _settle(self, done: list[Entry], *, how: str = "delivered") -> None:
        if not done:
            return
        for entry in done:
            self.tally.delivered += 1
            _LOG.info(
                "%s: %s",
                how,
                entry.uid,
                extra={
                    "destination": self.name,
                    "outcome": how,
                    "seconds": max(0.0, self.spool.clock.wall() - entry.queued),
                },
            )
        confirmed_later = self._policy.grace > 0 or self.destination.commits or self._asking.possible
        self._write(lambda: (self.spool.stored if confirmed_later else self.spool.delivered)(done))

    def _failed(self, entry: Entry, error: DeliveryError) -> None:
        tries = entry.attempts + 1
        if not error.retryable:
            self._dead_letter(entry, str(error))
        elif tries >= self._policy.give_up_after:
            self._dead_letter(entry, f"given up after {tries} attempts; the last: {error}")
        else:
            wait = self._policy.wait_after(error, tries, self._rng)
            self._tell_failure(entry, str(error), f"attempt {tries}, the next in {wait:.3g} s")
            in_doubt = isinstance(error, Unanswered)
            self._write(lambda: self.spool.postpone(entry, wait, str(error), in_doubt=in_doubt))

    def _dead_letter(self, entry: Entry, reason: str) -> None:
        self._tell_failure(entry, reason, "a dead letter now")
        self._write(lambda: self.spool.dead_letter([entry], reason))

    def _tell_failure(self, entry: Entry, reason: str, next_: str) -> None:
        self.tally.failed += 1
        extra = {"destination": self.name, "outcome": "failed", "reason": reason}
        _LOG.warning("not delivered: %s (%s)", entry.uid, next_, extra=extra)

    def _unforeseen(self, rest: dict[Path, Entry], error: Exception) -> None:
        """The instance being sent takes the blame; the others go on at the next round."""
        what = f"unforeseen {where_it_failed(error)}"
        if not rest:
            _LOG.error("%s", what, extra={"destination": self.name})
            return
        entry = rest.pop(next(iter(rest)))
        self._failed(entry, Unanswered(what))

    def _make_way(self, rest: dict[Path, Entry], error: ReconNodeError) -> None:
        """Let another instance be tried next; the attempt counts if others got through since the last."""
        for path, entry in list(rest.items()):
            del rest[path]
            before = self._brought_down.get(entry.uid)
            self._brought_down[entry.uid] = self.tally.delivered
            if before is not None and before < self.tally.delivered:
                self._failed(entry, Unanswered(f"others get through, this one does not: {error}"))
            else:
                # Past the end of the destination's own wait, so that another one's turn comes first.
                wait = 2.0 * max(0.0, self.health.resume - self.spool.clock.steady())
                columns = {"in_doubt": entry.in_doubt or isinstance(error, Unanswered), "counts": False}
                self._write(partial(self.spool.postpone, entry, wait, str(error), **columns))

    def _doubt(self, rest: dict[Path, Entry], error: Unanswered) -> None:
        """The destination failed as a whole, but may have stored the instance that was being sent."""
        entry = rest.pop(next(iter(rest)))
        columns = {"in_doubt": True, "counts": False}
        self._write(partial(self.spool.postpone, entry, 0.0, str(error), **columns))

    def pause(self, error: ReconNodeError) -> None:
        """The destination is in trouble: nothing is tried for a while, longer each time."""
        health = self.health
        health.failures += 1
        self.tally.failed += 1
        wait = self._policy.wait_after(error, health.failures, self._rng)
        extra = {"destination": self.name, "outcome": "waits", "reason": str(error)}
        _LOG.warning("delivery waits %.3g s", wait, extra=extra)
        health.resume = self.spool.clock.steady() + wait
        health.trouble = str(error)

    def _recovered(self) -> None:
        if self.health.trouble is not None:
            _LOG.info("delivery goes on", extra={"destination": self.name})
        self.health.failures, self.health.resume, self.health.trouble = 0, 0.0, None

    # ---------------------------------------------------------------- writing it down

    def _write(self, action: Callable[[], None]) -> None:
        """Write down what came of an attempt; where the disk does not take it now, before the next one.

        Otherwise an instance whose success could not be recorded would be sent again and again.
        """
        try:
            action()
        except ReconNodeError:
            with self._lock:
                self._owed.append(action)
            raise

    def _write_what_is_owed(self) -> None:
        with self._lock:
            while self._owed:
                self._owed[0]()
                self._owed.pop(0)

    def _rest(self) -> None:
        """Let go of connections after a quiet while: some PACS serve one at a time."""
        since = self._busy_since
        if since is not None and self.spool.clock.steady() - since >= _QUIET_S:
            self._busy_since = None
            self.destination.close()
