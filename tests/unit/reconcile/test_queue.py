"""The queue: deduplication, one worker per key, times."""

import random

from hypothesis import given
from hypothesis import strategies as st

from eventing.reconcile import Backoff, Tracker, WorkQueue

A, B = ("ns", "a"), ("ns", "b")


def test_a_key_is_queued_once() -> None:
    queue = WorkQueue()
    for key in (A, B, A, A):
        queue.add(key)
    assert [queue.take(0), queue.take(0), queue.take(0)] == [A, B, None]


def test_a_key_added_while_in_work_comes_back_when_it_is_done() -> None:
    queue = WorkQueue()
    queue.add(A)
    assert queue.take(0) == A
    queue.add(A)
    queue.add(A)
    assert queue.take(0) is None
    assert not queue.idle
    queue.done(A)
    assert queue.take(0) == A
    queue.done(A)
    assert queue.take(0) is None
    assert queue.idle


def test_the_earliest_wish_wins_and_now_overtakes_later() -> None:
    queue = WorkQueue()
    queue.add_at(A, 10)
    queue.add_at(A, 5)
    queue.add_at(A, 20)
    assert queue.next_due == 5
    assert queue.take(4.9) is None
    assert queue.take(5) == A
    queue.done(A)
    assert queue.next_due is None
    queue.add_at(B, 10)
    queue.add(B)
    assert queue.take(0) == B
    queue.done(B)
    assert (queue.take(100), queue.next_due) == (None, None)


def test_a_wish_made_in_work_is_kept() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.take(0)
    queue.add_at(A, 3)
    assert queue.take(4) is None
    queue.done(A)
    assert queue.take(4) == A


@given(st.integers(1, 2000), st.integers())
def test_back_off_grows_within_bounds(failures: int, seed: int) -> None:
    delay = Backoff(0.1, 5.0).delay(failures, random.Random(seed))
    assert 0.05 <= delay <= 5.0
    if failures > 7:
        assert delay >= 2.5


@given(st.lists(st.tuples(st.sampled_from(["add", "at", "take", "done"]), st.sampled_from([A, B]), st.integers(0, 5))))
def test_every_wish_is_granted_and_no_key_is_worked_on_twice_at_once(steps: list[tuple[str, tuple[str, str], int]]) -> None:
    queue = WorkQueue()
    working: set[tuple[str, str]] = set()
    wanted: set[tuple[str, str]] = set()
    now = 0.0
    for action, key, amount in steps:
        now += 0.5
        if action == "add":
            queue.add(key)
            wanted.add(key)
        elif action == "at":
            queue.add_at(key, now + amount)
            wanted.add(key)
        elif action == "take" and (taken := queue.take(now)) is not None:
            assert taken not in working
            working.add(taken)
            wanted.discard(taken)
        elif action == "done" and key in working:
            working.discard(key)
            queue.done(key)
    for key in list(working):
        queue.done(key)
    while (taken := queue.take(now + 10)) is not None:
        wanted.discard(taken)
        queue.done(taken)
    assert not wanted
    assert queue.idle


def test_tracker_finds_both_ways_and_forgets() -> None:
    tracker: Tracker[str, str] = Tracker()
    tracker.track("sub1", ["svc", "channel"])
    tracker.track("sub2", ["channel"])
    assert tracker.watchers("channel") == {"sub1", "sub2"}
    tracker.track("sub1", ["other"])
    assert tracker.watchers("channel") == {"sub2"}
    assert tracker.watchers("svc") == frozenset()
    tracker.track("sub1", [])
    assert tracker.watchers("other") == frozenset()
    assert len(tracker) == 1
