"""From stored to delivered: storage commitment, or a count of the series at the destination, or time."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from pydicom.uid import generate_uid

from recon_node.core.errors import DeliveryError, DicomError, ReconNodeError
from recon_node.delivery.asking import Asking
from recon_node.delivery.destinations import OpenDestination
from recon_node.delivery.instance import read_instance
from recon_node.delivery.peers.commitment import CommitmentReport
from recon_node.delivery.policy import Health, Policy
from recon_node.delivery.queue.entry import Entry
from recon_node.delivery.queue.spool import LOOKS, Spool

_LOG = logging.getLogger(__name__)
_COMMITMENT_BATCH = 200
_MISSING = "it answered success, but does not show the instance"


class Confirming:
    """One destination's stored entries.

    Parameters
    ----------
    spool, name, destination, policy, rng, asking
        As for `Sending`.
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
    ) -> None:
        self.spool = spool
        self.name = name
        self.destination = destination
        self.health = Health()
        self._policy = policy
        self._rng = rng
        self._asking = asking

    def once(self) -> int:
        """Ask for commitment, count series, or let the grace time pass; how many entries were dealt with."""
        if self.spool.clock.steady() < self.health.resume or not self._due():
            return 0
        try:
            count = self._commit() if self.destination.commits else self._verify()
        except DeliveryError as error:
            self.pause(error)
            return 0
        self.health.failures, self.health.resume, self.health.trouble = 0, 0.0, None
        return count

    def pause(self, error: ReconNodeError) -> None:
        """Ask again after a while, longer each time."""
        self.health.failures += 1
        wait = self._policy.wait_after(error, self.health.failures, self._rng)
        extra = {"destination": self.name, "outcome": "waits", "reason": str(error)}
        _LOG.warning("confirmation waits %.3g s", wait, extra=extra)
        self.health.resume = self.spool.clock.steady() + wait
        self.health.trouble = str(error)

    def _due(self) -> bool:
        """Whether there is something to confirm, without looking at each entry."""
        age = self.spool.oldest("stored").get(self.name)
        if age is None:
            return False
        if self.destination.commits or not self._asking.possible or not self._asking.known:
            return True
        waiting = self.spool.counts().get(self.name, {}).get("waiting", 0)
        return not waiting or age.in_state_s >= self._policy.series_wait

    def _stored(self) -> list[Entry]:
        return self.spool.entries(destination=self.name, state="stored")

    # ---------------------------------------------------------------- without storage commitment

    def _verify(self) -> int:
        """Count what is there of each series; entries that it cannot be asked for only have their grace."""
        now = self.spool.clock.steady()
        ripe = [e for e in self._stored() if e.changed + self._policy.grace <= now]
        due = [e for e in ripe if not _looks(e) or e.due <= now]
        if not due:
            return 0
        held = self._asking.held(due)
        if held is None:
            self.spool.delivered(due)
            return len(due)
        missing = [e for e in due if held.get(e) is False]
        there = [e for e in due if held.get(e) is not False]
        self.spool.delivered(there)
        extra = {"destination": self.name, "instances": len(there)}
        _LOG.info("counted there: %d of %d instances", len(there), len(due), extra=extra)
        for entry in missing:
            self._look_again(entry)
        return len(due)

    def _look_again(self, entry: Entry) -> None:
        looks = _looks(entry)
        if looks < len(self._policy.looks):
            self.spool.look_again([entry], self._policy.looks[looks], looks + 1)
        elif entry.reason == _MISSING:
            reason = f"{_MISSING}, twice (a destination that shows nothing: set verify = false for it)"
            self._tell(entry, reason)
            self.spool.dead_letter([entry], reason)
        else:
            self._tell(entry, f"{_MISSING}; sending it again")
            self.spool.again(entry, self._policy.wait(entry.attempts + 1, self._rng), _MISSING)

    def _tell(self, entry: Entry, reason: str) -> None:
        extra = {"destination": self.name, "outcome": "failed", "reason": reason}
        _LOG.warning("not confirmed: %s", entry.uid, extra=extra)

    # ---------------------------------------------------------------- storage commitment

    def _commit(self) -> int:
        now = self.spool.clock.steady()
        patience = self._policy.commitment_patience
        open_ = [e for e in self._stored() if not e.ticket or e.due + patience <= now]
        open_ = open_[:_COMMITMENT_BATCH]
        if open_:
            self._ask(open_)
        return len(open_)

    def _ask(self, entries: list[Entry]) -> None:
        known = []
        for entry in entries:
            try:
                instance = read_instance(entry.path)
            except DicomError as error:
                self.spool.dead_letter([entry], str(error))
                continue
            known.append((entry, (instance.sop_class, instance.uid)))
        if not known:
            return
        ticket = str(generate_uid())
        self.spool.ask([entry for entry, _ in known], ticket)
        try:
            report = self.destination.ask_commitment([names for _, names in known], ticket)
        except DeliveryError:
            self.spool.ask([entry for entry, _ in known], "")
            raise
        if report is not None:
            self.on_report(report, self.spool.entries(ticket=ticket, state="stored"))

    def on_report(self, report: CommitmentReport, entries: Sequence[Entry]) -> None:
        """Act on a commitment report about `entries`, which were asked for under its transaction."""
        self.spool.delivered([e for e in entries if e.uid in report.committed])
        for entry in entries:
            if entry.uid not in report.committed and entry.uid in report.failed:
                self._lost(entry, report.failed[entry.uid])

    def _lost(self, entry: Entry, reason: str) -> None:
        tries = entry.attempts + 1
        if tries >= self._policy.give_up_after:
            reason = f"given up after {tries} attempts; the last: {reason}"
            self._tell(entry, reason)
            self.spool.dead_letter([entry], reason)
        else:
            self._tell(entry, f"{reason}; sending it again")
            self.spool.again(entry, self._policy.wait(tries, self._rng), reason)


def _looks(entry: Entry) -> int:
    """How often the destination was asked for a stored entry, in vain."""
    ticket = entry.ticket or ""
    return int(ticket.removeprefix(LOOKS)) if ticket.startswith(LOOKS) else 0


def is_transaction(uid: str) -> bool:
    """Whether a report's transaction may be one of ours, and no other mark that a stored entry bears."""
    return bool(uid) and not uid.startswith(LOOKS)
