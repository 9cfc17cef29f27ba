"""Who goes first on the device, and reading on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from recon_node.core.errors import TruncatedStream
from recon_node.online.device_queue import DeviceQueue, Place
from recon_node.online.prefetch import Prefetch


def order_of(turns: DeviceQueue, places: dict[str, Place]) -> list[str]:
    """Names in the order of their turns, when all wait for the device at once."""
    order: list[str] = []

    def take(name: str, place: Place) -> None:
        with turns.turn(place):
            order.append(name)

    threads = [threading.Thread(target=take, args=item) for item in places.items()]
    with turns.turn(turns.place(priority=99)):
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while turns.waiting < len(places) and time.monotonic() < end:
            time.sleep(0.001)
    for thread in threads:
        thread.join(60)
    return order


def test_the_newest_scan_goes_first_unless_the_settings_say_otherwise() -> None:
    for order, expected in (("newest", ["c", "b", "a"]), ("oldest", ["a", "b", "c"])):
        turns = DeviceQueue(order)
        assert order_of(turns, {name: turns.place() for name in "abc"}) == expected


def test_priority_goes_before_age_and_a_console_before_what_is_deferred() -> None:
    turns = DeviceQueue("newest")
    places = {
        "urgent": turns.place(priority=2),
        "deferred": turns.place(priority=9, background=True),
        "old": turns.place(),
        "new": turns.place(),
        "unimportant": turns.place(priority=-1),
    }
    assert order_of(turns, places) == ["urgent", "new", "old", "unimportant", "deferred"]


def test_only_one_turn_is_taken_at_a_time_and_a_failure_ends_it() -> None:
    turns = DeviceQueue()
    inside: list[int] = []
    most: list[int] = []

    def fails(place: Place) -> None:
        with turns.turn(place):
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            raise ValueError("x")

    def work() -> None:
        place = turns.place()
        for _ in range(20):
            with pytest.raises(ValueError, match="x"):
                fails(place)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 80
    assert max(most) == 1


def test_items_are_read_on_while_the_first_is_at_work_but_not_without_bound() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with Prefetch(numbers(), 3) as items:
        iterator = iter(items)
        assert next(iterator) == 0
        end = time.monotonic() + 60
        while len(taken) < 5 and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.05)
        assert taken == [0, 1, 2, 3, 4]
        assert list(iterator) == list(range(1, 100))


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise TruncatedStream("gone")

    got: list[int] = []
    with Prefetch(broken(), 8) as items, pytest.raises(TruncatedStream, match="gone"):
        got.extend(items)
    assert got == [1, 2]


def test_the_thread_ends_soon_after_the_block_is_left() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    before = set(threading.enumerate())
    with Prefetch(endless(), 1) as items:
        assert next(iter(items)) == 1
        [worker] = set(threading.enumerate()) - before
    worker.join(60)
    assert not worker.is_alive()
