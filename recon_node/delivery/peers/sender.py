"""What destinations have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from pathlib import Path

from recon_node.core.errors import DeliveryError, DicomError
from recon_node.delivery.outcome import Outcome


class Sender(ABC):
    """Delivers files and raises the first error, on top of telling of each."""

    @abstractmethod
    def deliver(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        """Deliver `files`, telling of each as it is answered; raises what concerns the destination."""

    def send(self, files: Sequence[Path]) -> None:
        """Deliver `files`; raises the first file's error, or the destination's."""
        for outcome in self.deliver(files):
            if outcome.error is not None:
                raise outcome.error


class OneByOne(Sender):
    """A destination that takes each file by itself, and whose answer is all there is."""

    commits = False

    @abstractmethod
    def deliver_one(self, file: Path) -> Outcome:
        """Deliver one file; `DicomError` where it is none."""

    def deliver(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        """Deliver `files` one after the other, telling of each as it is answered.

        Raises
        ------
        PacsUnreachable, PacsBusy, PacsMisconfigured
            About the destination; files not yet told of were not delivered.
        """
        for file in files:
            try:
                outcome = self.deliver_one(file)
            except DicomError as error:
                outcome = Outcome(file, as_delivery(error))
            yield outcome

    def ask_commitment(self, instances: Sequence[tuple[str, str]], transaction: str) -> None:
        """Not offered: an answered request is all there is."""


def as_delivery(error: DicomError) -> DeliveryError:
    """What is wrong with a file, as the outcome of its delivery."""
    wrapped = DeliveryError(str(error))
    wrapped.__cause__ = error
    return wrapped
