"""What every file format keeps to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon_node.core.errors import ReconNodeError, SourceError
from recon_node.core.protocols import OpenSource
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.files.open import open_source


class SourceTests:
    """Subclass, give `write`, and pytest runs these on your format as the node would open it."""

    rereads: bool = True
    """Whether an open file can be gone through more than once; what reads a stream forward cannot."""

    def write(self, folder: Path) -> Path:
        """Write a small file of the format, with at least one readout, into `folder`."""
        raise NotImplementedError(f"{type(self).__name__}.write: write a file and return its path")

    def open(self, path: Path) -> OpenSource:
        """Open it; by default through the node's table of formats."""
        return open_source(path)

    def read(self, path: Path) -> list[Readouts | Waveform]:
        """Everything in a file, copied out of it."""
        with self.open(path) as source:
            return [_copied(block) for block in source]

    def test_its_headers_are_those_of_the_encodings(self, tmp_path: Path) -> None:
        """At least one, numbered as they come, known before anything is read."""
        with self.open(self.write(tmp_path)) as source:
            headers = source.headers
        assert headers
        assert all(isinstance(header, ScanHeader) for header in headers)
        assert [header.encoding for header in headers] == list(range(len(headers)))

    def test_its_readouts_are_runs_of_complex_samples(self, tmp_path: Path) -> None:
        """Runs of one shape, none of them empty, and nothing but readouts and waveforms."""
        blocks = self.read(self.write(tmp_path))
        assert all(isinstance(block, Readouts | Waveform) for block in blocks)
        runs = [block for block in blocks if isinstance(block, Readouts)]
        assert runs
        for run in runs:
            assert len(run) > 0
            assert run.samples.dtype == np.complex64
            assert (run.head["active_channels"] == run.samples.shape[1]).all()
            assert (run.head["number_of_samples"] == run.samples.shape[2]).all()

    def test_reading_again_gives_the_same(self, tmp_path: Path) -> None:
        """After opening it again, and twice from one open file where `rereads` says so."""
        path = self.write(tmp_path)
        first = self.read(path)
        _same(first, self.read(path))
        if self.rereads:
            with self.open(path) as source:
                for _ in range(2):
                    _same(first, [_copied(block) for block in source])

    def test_it_is_closed_more_than_once_without_harm(self, tmp_path: Path) -> None:
        """Also in the middle of reading; the file can be moved away then."""
        path = self.write(tmp_path)
        source = self.open(path)
        next(iter(source))
        source.close()
        source.close()
        path.rename(path.with_name(f"moved{path.suffix}"))

    def test_a_file_that_is_not_there_is_a_source_error(self, tmp_path: Path) -> None:
        """Absent, empty, or a folder."""
        ending = self.write(tmp_path).suffix
        (tmp_path / f"empty{ending}").touch()
        (tmp_path / f"folder{ending}").mkdir()
        for name in ("absent", "empty", "folder"):
            error = self._failure(tmp_path / f"{name}{ending}")
            assert isinstance(error, SourceError), f"{name}: {error!r}, expected a SourceError"

    def test_a_damaged_file_is_an_error_of_one_line_or_read_in_part(self, tmp_path: Path) -> None:
        """Cut anywhere, or with bytes changed: never an exception of another kind, never an endless file."""
        from hypothesis import HealthCheck, given, settings
        from hypothesis import strategies as st

        path = self.write(tmp_path)
        whole, damaged = path.read_bytes(), path.with_name(f"damaged{path.suffix}")
        places = st.integers(0, len(whole) - 1)

        @settings(
            deadline=None,
            max_examples=60,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(end=st.none() | places, changes=st.lists(st.tuples(places, st.integers(0, 255)), max_size=4))
        def check(end: int | None, changes: list[tuple[int, int]]) -> None:
            data = bytearray(whole)
            for place, value in changes:
                data[place] = value
            damaged.write_bytes(data[:end])
            error = self._failure(damaged)
            if error is not None:
                assert "\n" not in str(error)
                assert 0 < len(str(error)) <= 300

        check()

    def _failure(self, path: Path) -> ReconNodeError | None:
        try:
            self.read(path)
        except ReconNodeError as error:
            return error
        return None


def _copied(block: Readouts | Waveform) -> Readouts | Waveform:
    if isinstance(block, Waveform):
        return block
    return Readouts(head=block.head.copy(), samples=block.samples.copy())


def _same(first: list[Readouts | Waveform], second: list[Readouts | Waveform]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert type(one) is type(other)
        for name in ("head", "samples") if isinstance(one, Readouts) else ("data",):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
