"""The side lane and the fair lock."""

import threading

import pytest

from multitask_core.errors import OverloadError
from multitask_core.lane import Lane
from multitask_core.turns import Turns


def test_small_jobs_overtake_large_ones_that_wait() -> None:
    lane, gate, order = Lane(10_000), threading.Event(), []
    lane.submit(1, lambda: gate.wait(30))
    lane.submit(1000, lambda: order.append("large"))
    lane.submit(10, lambda: order.append("small"))
    gate.set()
    lane.drain()
    assert order == ["small", "large"]


def test_a_large_job_does_not_wait_for_ever() -> None:
    """Small jobs that come after its own size has been worked off stand behind it."""
    lane, order = Lane(10_000), []
    done = threading.Event()

    def small() -> None:
        order.append("small")
        if len(order) < 50:
            lane.submit(10, small)
        else:
            done.set()

    gate = threading.Event()
    lane.submit(1, lambda: gate.wait(30))
    lane.submit(100, lambda: order.append("large"))
    lane.submit(10, small)
    gate.set()
    assert done.wait(30)
    lane.drain()
    assert 5 <= order.index("large") <= 12


def test_what_runs_takes_no_room_from_what_waits() -> None:
    lane, gate, began = Lane(100), threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        gate.wait(30)

    lane.submit(5000, wait)
    assert began.wait(30)
    lane.submit(60, lambda: None)
    lane.submit(50, lambda: None)  # 60 counts as half of the room
    with pytest.raises(OverloadError, match="requests wait, 100 with 1 more, at most 100"):
        lane.submit(1, lambda: None)
    gate.set()
    lane.drain()
    lane.submit(1, lambda: None)
    lane.drain()


def test_a_giant_that_waits_leaves_room_which_overtakes_it() -> None:
    lane, gate, began, order = Lane(100), threading.Event(), threading.Event(), []

    def wait() -> None:
        began.set()
        gate.wait(30)

    lane.submit(1, wait)
    assert began.wait(30)
    lane.submit(5000, lambda: order.append("giant"))
    lane.submit(50, lambda: order.append("small"))
    with pytest.raises(OverloadError):
        lane.submit(5000, lambda: order.append("second giant"))
    gate.set()
    lane.drain()
    assert order == ["small", "giant"]


def test_a_job_that_fails_does_not_end_the_lane(caplog: pytest.LogCaptureFixture) -> None:
    lane, order = Lane(100), []

    def fail() -> None:
        raise RuntimeError("the caller is gone")

    lane.submit(1, fail)
    lane.drain()
    lane.submit(1, lambda: order.append("next"))
    lane.drain()
    assert order == ["next"]
    assert "the caller is gone" in caplog.text


def test_turns_are_taken_in_the_order_of_arrival() -> None:
    turns, order = Turns(), []

    def take(name: str) -> None:
        with turns:
            order.append(name)

    threads = [threading.Thread(target=take, args=(name,)) for name in "abc"]
    with turns:
        for place, thread in enumerate(threads, 1):
            thread.start()
            while turns.waiting < place:
                thread.join(0.001)
    take("the one who gave it back")
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "the one who gave it back"]
