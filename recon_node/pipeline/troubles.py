"""What went wrong with single slices of a scan: told together, once every other slice was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from recon_node.core.errors import DataError, DeliveryError, DicomError
from recon_node.pipeline.scan import one_line_of


@dataclass(slots=True)
class Troubles:
    """Slices that could not be reconstructed, written or queued."""

    refused: list[str] = field(default_factory=list)
    unwritten: list[DicomError] = field(default_factory=list)
    unqueued: list[DeliveryError] = field(default_factory=list)

    @contextmanager
    def of_the_disk(self) -> Iterator[None]:
        """Images that find no room on the disk or in the queue reach their peer all the same."""
        try:
            yield
        except DicomError as error:
            self.unwritten.append(error)
        except DeliveryError as error:
            self.unqueued.append(error)

    def tell(self) -> None:
        """Nothing if all went well.

        Raises
        ------
        DataError
            Slices could not be reconstructed.
        DicomError
            Slices are not on the disk.
        DeliveryError
            Slices are on the disk, but not in the queue.
        """
        if self.refused:
            raise DataError(one_line_of(self.refused))
        if self.unwritten:
            error = self.unwritten[0]
            raise DicomError(f"{len(self.unwritten)} slices are not on the disk: {error}") from error
        if self.unqueued:
            raise DeliveryError(
                f"{len(self.unqueued)} slices did not get into the spool ({self.unqueued[0]}); their files "
                "are on disk: `recon-node export` delivers them"
            ) from self.unqueued[0]
