"""What every destination keeps to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from recon_node.core.errors import DeliveryError
from recon_node.core.protocols import Destination
from recon_node.delivery import OpenDestination, read_instance
from recon_node.delivery.peers.foreign import ForeignDestination
from recon_node.pipeline.row import reconstruct
from recon_node.pipeline.write import write_dicom
from recon_node.testing.scenes import Scene


class DestinationTests:
    """Subclass, give `make` and `arrived`, and pytest runs these on your destination as the node uses it.

    Both are called in one test, in this order, with the same empty folder.
    """

    def make(self, folder: Path) -> Destination | OpenDestination:
        """A destination that works; what stands at the other end may live in `folder`."""
        raise NotImplementedError(f"{type(self).__name__}.make: return the destination to test")

    def arrived(self, folder: Path) -> Collection[str]:
        """SOP instance UIDs that the other end holds, as whole instances."""
        raise NotImplementedError(f"{type(self).__name__}.arrived: say what the other end holds")

    def broken(self, folder: Path) -> Destination | OpenDestination | None:
        """One whose other end cannot be reached now; None where that cannot be had."""
        return None

    def test_returning_means_that_every_instance_is_at_the_other_end(self, tmp_path: Path) -> None:
        """`send` returns only then."""
        files, uids = instances(tmp_path)
        destination = _opened(self.make(_other_end(tmp_path)))
        destination.send(files)
        assert set(self.arrived(_other_end(tmp_path))) == set(uids)
        destination.close()

    def test_each_file_is_told_of_in_its_turn(self, tmp_path: Path) -> None:
        """`deliver` gives an outcome a file, in order, without an error."""
        files, _ = instances(tmp_path)
        destination = _opened(self.make(_other_end(tmp_path)))
        outcomes = list(destination.deliver(files))
        assert [outcome.file for outcome in outcomes] == files
        assert [outcome.error for outcome in outcomes] == [None] * len(files)
        destination.close()

    def test_an_instance_that_is_sent_twice_is_there_once(self, tmp_path: Path) -> None:
        """The node sends again where an answer was lost."""
        files, uids = instances(tmp_path)
        destination = _opened(self.make(_other_end(tmp_path)))
        for _ in range(2):
            destination.send(files)
        assert sorted(self.arrived(_other_end(tmp_path))) == sorted(uids)
        destination.close()

    def test_a_file_that_is_no_dicom_keeps_no_other_from_arriving(self, tmp_path: Path) -> None:
        """It has an error of its own, or is taken as it is."""
        files, uids = instances(tmp_path)
        broken = tmp_path / "broken.dcm"
        broken.write_bytes(b"no DICOM" * 40)
        destination = _opened(self.make(_other_end(tmp_path)))
        outcomes = list(destination.deliver([files[0], broken, *files[1:]]))
        assert [
            outcome.file for outcome in outcomes if outcome.error is None and outcome.file != broken
        ] == files
        assert isinstance(outcomes[1].error, DeliveryError | None)
        assert set(uids) <= set(self.arrived(_other_end(tmp_path)))
        destination.close()

    def test_what_is_sent_stays_as_it_was(self, tmp_path: Path) -> None:
        """The spool's files are not changed, moved or removed."""
        files, _ = instances(tmp_path)
        before = [file.read_bytes() for file in files]
        destination = _opened(self.make(_other_end(tmp_path)))
        destination.send(files)
        destination.close()
        assert [file.read_bytes() for file in files] == before

    def test_it_has_a_name_and_can_be_tried_and_closed_twice(self, tmp_path: Path) -> None:
        """`name`, `echo` in seconds, `close`."""
        destination = _opened(self.make(_other_end(tmp_path)))
        assert destination.name
        assert destination.echo() >= 0
        destination.close()
        destination.close()

    def test_nothing_is_said_to_be_sent_where_nobody_answers(self, tmp_path: Path) -> None:
        """A `DeliveryError` of one line that is retried, and nothing at the other end, not even in part."""
        broken = self.broken(_other_end(tmp_path))
        if broken is None:
            return
        files, _ = instances(tmp_path)
        destination = _opened(broken)
        error: DeliveryError | None = None
        try:
            destination.send(files)
        except DeliveryError as caught:
            error = caught
        assert error is not None, "send returned although nobody answered"
        assert error.retryable, f"{error!r} is not retried"
        assert "\n" not in str(error)
        assert 0 < len(str(error)) <= 300
        destination.close()


def instances(folder: Path) -> tuple[list[Path], list[str]]:
    """DICOM files of a small reconstruction, and their SOP instance UIDs."""
    scene = Scene(phases=3)
    files = write_dicom(reconstruct(scene.kspace(), method="zero-filled", device="cpu"), folder / "sent")
    return files, [read_instance(file).uid for file in files]


def _other_end(folder: Path) -> Path:
    place = folder / "other-end"
    place.mkdir(exist_ok=True)
    return place


def _opened(destination: Destination | OpenDestination) -> OpenDestination:
    if isinstance(destination, OpenDestination):
        return destination
    return ForeignDestination(destination, destination.name)
