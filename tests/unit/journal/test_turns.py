"""A question to a journal that is full takes many short turns of the loop, never a long one.

Turns are measured in processor time of the loop's thread, so that a busy machine changes nothing.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from eventing.journal import Decision, Journal, Rule
from eventing.journal.acceptance_ring import RING_ACCEPTANCES
from eventing.journal.attempt_ring import RING_ATTEMPTS
from eventing.journal.failures import FailureLog
from eventing.journal.standing import Situation, standing
from eventing.journal.story import trace
from eventing.journal.tail import Wanted, feed
from tests.support.data_plane import make_event

TURN_S = 0.01  # measured: 0.3 ms to 1 ms
SUBSCRIBERS = 10


@pytest.fixture(scope="module")
def journal() -> Journal:
    """Full: every record of its rings is used, and some are overwritten."""
    full = Journal(clock=time.monotonic, wall=time.time)
    numbers = tuple(full.subscriber(f"default/s{n}", f"u{n}", "http://s/") for n in range(SUBSCRIBERS))
    place = full.place("default/orders", numbers)
    event = make_event("0")
    for number in range(RING_ACCEPTANCES + 1000):
        event.raw_id = b"%d" % number
        event.receipt = full.next_receipt()
        full.accepted(event, place, b"127.0.0.1:1")
        for subscriber in numbers[number % 9 : number % 9 + 2]:
            full.attempted(event.receipt, subscriber, 1, time.monotonic(), 0.001, 200, Decision.DELIVERED, Rule.ACCEPTED)
    assert full.attempts_kept_from
    assert full.acceptances_kept_from
    assert full.attempts_written > RING_ATTEMPTS
    return full


async def longest_turn(question: Awaitable[object]) -> tuple[float, float]:
    """Processor time of the longest turn while the question is answered, and of all of them. Garbage is not collected meanwhile:
    that of a whole test run takes longer than any turn."""
    gc.disable()
    try:
        return await _measured(question)
    finally:
        gc.enable()


async def _measured(question: Awaitable[object]) -> tuple[float, float]:
    began = time.thread_time()
    asked = asyncio.ensure_future(question)
    longest, last = 0.0, time.thread_time()
    while not asked.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    await asked
    return longest, time.thread_time() - began


SITUATION = Situation(
    number=3, channel="default/orders", pending=0, pending_bytes=0, oldest_s=None, in_flight=0, concurrency=10, retry=5,
    timeout_s=30.0, dead_letter_sink="",
)  # fmt: skip
QUESTIONS: dict[str, Callable[[Journal], Awaitable[Any]]] = {
    "an id that is not there": lambda journal: trace(journal, "nobody"),
    "the oldest event": lambda journal: trace(journal, journal.receipt_text(journal.accepted_events - RING_ACCEPTANCES + 10)),
    "how a subscription stands": lambda journal: standing(journal, SITUATION, window_s=1e6),
    "a feed that is behind": lambda journal: feed(
        journal, f"{journal.prefix}.{journal.accepted_events - 900}.{journal.attempts_written - 900}.0", Wanted()
    ),
    "a feed of what is not there": lambda journal: feed(
        journal, f"{journal.prefix}.{journal.accepted_events - 19_000}.{journal.attempts_written - 19_000}.0", Wanted(type="no")
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_no_turn_is_long(journal: Journal, name: str) -> None:
    longest, whole = await longest_turn(QUESTIONS[name](journal))
    assert longest < TURN_S, f"a turn of {longest * 1000:.1f} ms of {whole * 1000:.0f} ms in all"


@pytest.fixture
async def failures(tmp_path: Path) -> AsyncIterator[tuple[Journal, FailureLog]]:
    journal = Journal(clock=time.monotonic, wall=time.time)
    async with asyncio.TaskGroup() as tasks:
        log = FailureLog(tmp_path, journal)
        log.open()
        log.start(tasks)
        yield journal, log
        await log.aclose()


async def test_neither_writing_nor_finding_failures_takes_long_turns(failures: tuple[Journal, FailureLog]) -> None:
    journal, log = failures
    subscriber = journal.subscriber("default/a", "u", "http://s/")
    place = journal.place("default/orders", (subscriber,))

    async def fail() -> None:
        for number in range(2000):
            event = make_event(str(number), b"x" * 500)
            event.receipt = journal.next_receipt()
            journal.accepted(event, place, b"p")
            journal.ended(event, subscriber, time.monotonic(), 0.0, 0, Decision.DROPPED, Rule.OVERFLOW)
            if number % 10 == 9:
                await asyncio.sleep(0)
        while journal.failures_written < 2000:
            await asyncio.sleep(0.01)

    longest, _ = await longest_turn(fail())
    assert longest < TURN_S
    longest, _ = await longest_turn(log.find("1000"))
    assert longest < TURN_S
