"""Asks a destination to which nothing has been sent for a while whether it is still there."""

from __future__ import annotations

import logging

from recon_node.core.errors import DeliveryError, ReconNodeError, where_it_failed
from recon_node.delivery.destinations import OpenDestination
from recon_node.delivery.policy import Health, Policy
from recon_node.delivery.queue.spool import Spool
from recon_node.delivery.sending import Sending

_LOG = logging.getLogger(__name__)


class Probing:
    """One destination, while nothing is on its way there.

    Parameters
    ----------
    spool, name, destination, policy
        As for `Sending`.
    sending : Sending
        Whose attempts tell more than a probe: after one, the next probe has time.
    """

    def __init__(
        self, spool: Spool, name: str, destination: OpenDestination, *, policy: Policy, sending: Sending
    ) -> None:
        self.health = Health()
        self._spool = spool
        self._name = name
        self._destination = destination
        self._policy = policy
        self._sending = sending
        self._attempts = 0
        self._next = spool.clock.steady()

    def once(self) -> int:
        """Ask if it is time; nothing was dealt with."""
        now = self._spool.clock.steady()
        tally = self._sending.tally
        attempts = tally.delivered + tally.failed
        if attempts != self._attempts or self._sending.health.trouble is not None:
            self._attempts, self._next = attempts, now + self._policy.probe
            self.health = Health()
        elif now >= self._next:
            self._next = now + self._policy.probe
            self._ask()
        return 0

    def pause(self, error: ReconNodeError) -> None:
        """Nothing waits for it: the next probe comes in its time."""

    def _ask(self) -> None:
        try:
            self._destination.echo()
        except DeliveryError as error:
            self._away(str(error))
        except Exception as error:  # noqa: BLE001 - a destination may be anyone's code
            self._away(f"unforeseen {where_it_failed(error)}")
        else:
            if self.health.trouble is not None:
                _LOG.info("there again", extra={"destination": self._name})
            self.health = Health()

    def _away(self, trouble: str) -> None:
        if self.health.trouble is None:
            extra = {"destination": self._name, "outcome": "away", "reason": trouble}
            _LOG.warning("does not answer, though nothing is to be sent", extra=extra)
        self.health = Health(failures=self.health.failures + 1, trouble=trouble)
