"""The loop on virtual time: what is called, how often, when."""

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from eventing.errors import ApiUnavailableError, ObjectConflictError
from eventing.reconcile import Again, Backoff, Done, Key, Outcome, ReconcileLoop, TerminalError

A, B = ("ns", "a"), ("ns", "b")
Run = Callable[[Coroutine[Any, Any, None]], None]


class Recorder:
    """A reconciler that does what the test tells it, and notes when it was called."""

    name = "recorder"

    def __init__(self, *outcomes: Outcome | Exception, takes_s: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes_s = takes_s
        self.calls: list[tuple[float, Key]] = []
        self.working: Counter[Key] = Counter()
        self.most = 0

    async def reconcile(self, key: Key) -> Outcome:
        self.calls.append((asyncio.get_running_loop().time() - 1000, key))
        self.working[key] += 1
        assert self.working[key] == 1
        self.most = max(self.most, self.working.total())
        await asyncio.sleep(self.takes_s)
        self.working[key] -= 1
        outcome = self.outcomes.pop(0) if self.outcomes else Done()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def loop_over(reconciler: Recorder, **options: Any) -> ReconcileLoop:
    defaults: dict[str, Any] = {"keys": list, "rand": random.Random(7), "backoff": Backoff(1.0, 8.0)}
    return ReconcileLoop(reconciler, **defaults | options)


async def play(loop: ReconcileLoop, script: Coroutine[Any, Any, None], until_s: float) -> None:
    task = asyncio.ensure_future(loop.run())
    await script
    await asyncio.sleep(until_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_calls_coalesce_while_queued_and_while_in_work(virtual_run: Run) -> None:
    recorder = Recorder(takes_s=1)
    loop = loop_over(recorder)

    async def script() -> None:
        for _ in range(5):
            loop.enqueue(A)
        await asyncio.sleep(0.5)
        for _ in range(5):
            loop.enqueue(A)

    virtual_run(play(loop, script(), 10))
    assert recorder.calls == [(0, A), (1, A)]


def test_concurrency_is_bounded(virtual_run: Run) -> None:
    recorder = Recorder(takes_s=1)
    loop = loop_over(recorder, workers=3)

    async def script() -> None:
        for number in range(7):
            loop.enqueue(("ns", str(number)))

    virtual_run(play(loop, script(), 10))
    assert recorder.most == 3
    assert [at for at, _ in recorder.calls] == [0, 0, 0, 1, 1, 1, 2]


def test_again_waits_and_an_earlier_call_overtakes(virtual_run: Run) -> None:
    recorder = Recorder(Again(5), Again(30))
    loop = loop_over(recorder)

    async def script() -> None:
        loop.enqueue(A)
        await asyncio.sleep(6)
        loop.enqueue(A)

    virtual_run(play(loop, script(), 100))
    assert [at for at, _ in recorder.calls] == [0, 5, 6]


def test_errors_back_off_with_jitter_per_key_and_success_forgets(virtual_run: Run, caplog: pytest.LogCaptureFixture) -> None:
    unavailable = ApiUnavailableError(503, "", "away")
    recorder = Recorder(*[unavailable] * 5, Done(), ValueError("bug"))
    loop = loop_over(recorder)

    async def script() -> None:
        loop.enqueue(A)
        await asyncio.sleep(100)
        loop.enqueue(A)

    with caplog.at_level(logging.CRITICAL):
        virtual_run(play(loop, script(), 20))
    times = [at for at, _ in recorder.calls]
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    for delay, ceiling in zip(delays[:5], (1, 2, 4, 8, 8), strict=True):
        assert ceiling / 2 <= delay <= ceiling
    assert len(set(delays)) == len(delays)
    assert delays[-1] <= 1


def test_retry_after_is_honoured_and_conflicts_are_quiet(virtual_run: Run, caplog: pytest.LogCaptureFixture) -> None:
    busy = ApiUnavailableError(429, "", "busy")
    busy.retry_after = 20.0
    recorder = Recorder(busy, ObjectConflictError(409, "Conflict", "changed"))
    loop = loop_over(recorder)

    async def script() -> None:
        loop.enqueue(A)

    with caplog.at_level(logging.WARNING):
        virtual_run(play(loop, script(), 60))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    first, second, third = (at for at, _ in recorder.calls)
    assert second - first == 20
    assert third - second <= 2


def test_a_terminal_error_is_not_tried_again(virtual_run: Run) -> None:
    recorder = Recorder(TerminalError("hopeless"))
    loop = loop_over(recorder)

    async def script() -> None:
        loop.enqueue(A)

    virtual_run(play(loop, script(), 300))
    assert len(recorder.calls) == 1


def test_resync_calls_every_key_once_a_period_spread_out(virtual_run: Run) -> None:
    recorder = Recorder()
    keys = [("ns", str(number)) for number in range(50)]
    loop = loop_over(recorder, keys=lambda: keys, resync_s=100.0)

    async def script() -> None:
        await asyncio.sleep(150)

    virtual_run(play(loop, script(), 0))
    assert {key for _, key in recorder.calls} == set(keys)
    assert len({at for at, _ in recorder.calls}) > 40
    assert loop.idle
