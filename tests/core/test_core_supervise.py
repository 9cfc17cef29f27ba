"""A thread that somebody lives by comes back, whatever it raised."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import pytest

from recon_node.core.supervise import Supervised, Supervisor

_LONG_S = 30.0


def _thread(target: Callable[[], object], stop: threading.Event, **how: float) -> Supervised:
    return Supervised("worker", target, stop, **{"first_wait_s": 0.01, "longest_wait_s": 0.02, **how})


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), MemoryError(), OSError(5, "io"), SystemExit(3)])
def test_whatever_a_target_raises_it_runs_again_and_the_failure_is_counted(error: BaseException) -> None:
    stop, seen = threading.Event(), queue.Queue[str]()

    def target() -> None:
        seen.put("ran")
        if seen.qsize() < 3:
            raise error
        stop.wait(_LONG_S)

    thread = _thread(target, stop)
    thread.start()
    while seen.qsize() < 3:
        threading.Event().wait(0.01)
    assert thread.failures == 2
    stop.set()
    assert thread.join(_LONG_S)


def test_a_thread_that_waits_to_be_restarted_is_not_alive_and_says_why_without_the_text() -> None:
    stop, failed = threading.Event(), threading.Event()

    def target() -> None:
        raise ValueError("MUSTERMANN^MAX")

    thread = Supervised("deliver", target, stop, first_wait_s=_LONG_S, on_failure=lambda _error: failed.set())
    thread.start()
    assert failed.wait(_LONG_S)
    assert not thread.alive
    assert thread.trouble is not None
    assert thread.trouble.startswith("ValueError at test_core_supervise.py")
    assert "MUSTERMANN" not in thread.trouble
    stop.set()
    assert thread.join(_LONG_S)


def test_a_restarted_thread_counts_as_alive_only_after_it_has_held_out() -> None:
    stop, second = threading.Event(), threading.Event()
    runs: list[int] = []

    def target() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError
        second.set()
        stop.wait(_LONG_S)

    thread = _thread(target, stop, first_wait_s=0.2, longest_wait_s=_LONG_S)
    thread.start()
    assert second.wait(_LONG_S)
    assert thread.trouble is not None
    while not thread.alive:
        stop.wait(0.01)
    assert thread.trouble is None
    stop.set()
    assert thread.join(_LONG_S)


def test_a_target_that_returns_before_it_was_stopped_has_failed() -> None:
    stop, failures = threading.Event(), queue.Queue[BaseException]()
    thread = Supervised("worker", lambda: None, stop, first_wait_s=_LONG_S, on_failure=failures.put)
    thread.start()
    assert type(failures.get(timeout=_LONG_S)).__name__ == "EndedEarly"
    stop.set()
    assert thread.join(_LONG_S)


def test_a_failing_hook_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    stop, twice = threading.Event(), threading.Event()
    calls: list[int] = []

    def hook(_error: BaseException) -> None:
        calls.append(1)
        if len(calls) == 2:
            twice.set()
        raise KeyError("SECRET")

    thread = Supervised("worker", lambda: 1 / 0, stop, first_wait_s=0.01, on_failure=hook)
    with caplog.at_level(logging.ERROR):
        thread.start()
        assert twice.wait(_LONG_S)
        stop.set()
        assert thread.join(_LONG_S)
    assert "SECRET" not in caplog.text


def test_a_supervisor_names_the_thread_that_is_down() -> None:
    down = threading.Event()
    supervisor = Supervisor()

    def bad() -> None:
        down.set()
        raise ValueError

    supervisor.run("good", lambda: supervisor.stopping.wait(_LONG_S))
    assert supervisor.trouble() is None
    supervisor.run("bad", bad, first_wait_s=_LONG_S)
    assert down.wait(_LONG_S)
    while supervisor.failures()["bad"] == 0:
        supervisor.stopping.wait(0.01)
    trouble = supervisor.trouble()
    assert trouble is not None
    assert trouble.startswith("bad is down: ValueError at ")
    assert supervisor.failures() == {"good": 0, "bad": 1}
    assert supervisor.stop(_LONG_S)


def test_a_thread_that_was_never_started_is_no_thread_that_is_alive() -> None:
    thread = Supervised("worker", lambda: None, threading.Event())
    assert thread.trouble == "not running"
    assert thread.join(0.1)
