"""How a delivery ends that does not simply succeed: dead letters, evicted events, replies.

These are rare and may take their time, so they are coroutines; the plain way of a delivery (`eventing.delivery.worker`) stays
free of them.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Final, Protocol

from eventing.bindings.http import LOOP, REASON_HEADER
from eventing.channels import Lease
from eventing.delivery.connections import Target
from eventing.delivery.dead_letters import dead_letter
from eventing.delivery.engine import Attempt, Delivery, Engine
from eventing.delivery.sender import Answer, send_with_retry
from eventing.event import Event
from eventing.journal import Decision, Rule
from eventing.observe.metrics import SubscriptionMetrics
from eventing.wire.pool import Pool

__all__ = ["BURYING_MAX", "EVICTED_MAX", "EVICTION_RULES", "Endings", "looped"]

# Overflowed events on their way to a dead-letter sink, per subscription. A sink that is slower than the overflow must not make
# the mesh hold what the channel has just let go of.
EVICTED_MAX: Final = 100
BURYING_MAX: Final = 16  # of them at a time
EVICTION_RULES: Final = {
    "Overflow": Rule.OVERFLOW,
    "SubscriptionDeleted": Rule.SUBSCRIPTION_DELETED,
    "ChannelDeleted": Rule.CHANNEL_DELETED,
    "Shutdown": Rule.SHUTDOWN,
}


class Slots(Protocol):
    """The worker, as its endings see it."""

    number: int  # of the subscription, in the journal
    metrics: SubscriptionMetrics

    def settled(self, lease: Lease) -> None:
        """The event has an end: its lease goes back and its slot is free."""

    def delivered(self, attempt: Attempt, status: int) -> None:
        """Book a success and settle; the slot stays taken."""

    def slot_free(self) -> None: ...

    @property
    def discarding(self) -> bool:
        """What has no end yet gets none here any more."""

    def burials_began(self) -> None:
        """Something is under way that takes no slot."""

    def burials_ended(self) -> None: ...


class Endings:
    """Of one subscription. Owns the tasks of its replies and dead letters."""

    def __init__(self, engine: Engine, worker: Slots) -> None:
        self._engine = engine
        self._worker = worker
        self._journal = engine.journal
        self._clock = engine.clock
        self._evicted: deque[tuple[Event, Rule]] = deque()  # they go to the dead-letter sink
        self._burying = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up = False

    def update(self, delivery: Delivery, reply_pool: Pool | None, dead_letter_pool: Pool | None) -> None:
        """Apply an edit: from the next attempt on."""
        self._delivery = delivery
        self._reply_pool = reply_pool
        self._dead_letter_pool = dead_letter_pool

    @property
    def burying(self) -> int:
        """Coroutines that bring evicted events to the dead-letter sink."""
        return self._burying

    @property
    def pending(self) -> int:
        """Evicted events that have no end yet."""
        return len(self._evicted) + self._burying

    @property
    def given_up(self) -> bool:
        return self._given_up

    def evict(self, event: Event, reason: str) -> None:
        """The channel has let go of an event that was due: to the dead-letter sink, or dropped with the reason."""
        rule = EVICTION_RULES[reason]
        wanted = rule in {Rule.OVERFLOW, Rule.SHUTDOWN} and self._delivery.dead_letter is not None
        if not wanted or (rule is Rule.OVERFLOW and self.pending >= EVICTED_MAX):
            self.record(event, 0, Decision.DROPPED, rule)
            return
        self._evicted.append((event, rule))
        if self._burying < BURYING_MAX:
            self._burying += 1
            self._worker.burials_began()
            self._start(self._bury_evicted())

    def fail(self, lease: Lease, destination: str, answer: Answer, rule: Rule) -> None:
        """No more attempts: to the dead-letter sink, or dropped with the reason. The slot stays taken until that is known."""
        if self._delivery.dead_letter is None or self._given_up:
            reason = Rule.SHUTDOWN if self._worker.discarding else rule if rule is Rule.LOOP else Rule.NO_DEAD_LETTER_SINK
            self.record(lease.event, 0, Decision.DROPPED, reason)
            self._worker.settled(lease)
            return
        self._start(self._bury(lease, destination, answer, rule))

    def hand_on(self, attempt: Attempt, reply: Event) -> None:
        """Send a reply on; the slot stays taken until it has gone."""
        self._start(self._hand_on(attempt, reply))

    def record(self, event: Event, attempt: int, decision: Decision, rule: Rule, *, status: int = 0, note: str = "") -> None:
        """Book an end that no attempt brought."""
        if decision is Decision.DROPPED:
            self._worker.metrics.dropped(rule.reason)
        self._journal.ended(event, self._worker.number, self._clock(), 0.0, status, decision, rule, attempt=attempt, note=note)

    def give_up(self) -> None:
        """There is no more time: replies and dead letters on their way are dropped with Shutdown."""
        self._given_up = True
        while self._evicted:
            self.record(self._evicted.popleft()[0], 0, Decision.DROPPED, Rule.SHUTDOWN)
        for task in self._tasks:
            task.cancel()

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = self._engine.tasks.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bury(self, lease: Lease, destination: str, answer: Answer, rule: Rule) -> None:
        await self._send_dead_letter(lease.event, destination, answer, rule)
        self._worker.settled(lease)

    async def _bury_evicted(self) -> None:
        while self._evicted:
            event, rule = self._evicted.popleft()
            await self._send_dead_letter(event, self._delivery.subscriber.url, Answer(0, [], rule.text.encode()), rule)
        self._burying -= 1
        self._worker.burials_ended()

    async def _send_dead_letter(self, event: Event, destination: str, answer: Answer, rule: Rule) -> None:
        sink, pool = self._delivery.dead_letter, self._dead_letter_pool
        if sink is None or pool is None:  # an edit took it away meanwhile
            self.record(event, 0, Decision.DROPPED, Rule.NO_DEAD_LETTER_SINK)
            return
        data = answer.body if answer.failure is None else answer.text.encode()
        letter = dead_letter(event, destination=destination, code=answer.status, data=data)
        started = self._clock()
        try:
            taken = await self._send_patiently(pool, sink, letter)
        except asyncio.CancelledError:
            self.record(event, 0, Decision.DROPPED, Rule.SHUTDOWN, note="the dead-letter sink did not answer in time")
            raise
        worker = self._worker
        if 200 <= taken.status < 300:
            worker.metrics.dead_lettered += 1
            self._journal.ended(
                event, worker.number, started, self._clock() - started, taken.status, Decision.DEAD_LETTERED, rule, note=sink.url
            )
        else:
            self.record(event, 0, Decision.DROPPED, Rule.DEAD_LETTER_FAILED, status=taken.status, note=taken.text)

    async def _hand_on(self, attempt: Attempt, reply: Event) -> None:
        target, pool, worker = self._delivery.reply, self._reply_pool, self._worker
        if target is None or pool is None:  # an edit took the reply address away meanwhile
            worker.delivered(attempt, 200)
            worker.slot_free()
            return
        event = attempt.lease.event
        try:
            answer = await self._send_patiently(pool, target, reply)
        except asyncio.CancelledError:
            self.record(event, attempt.number, Decision.DROPPED, Rule.SHUTDOWN, note="its reply was not taken in time")
            raise
        if 200 <= answer.status < 300:
            worker.delivered(attempt, 200)
            worker.metrics.replied += 1
            worker.slot_free()
            return
        # Control-plane contract: an undeliverable reply is an undeliverable event; the original goes to the dead-letter sink
        # with the reply address as the place of the error (CDP-32).
        rule = Rule.LOOP if looped(answer) else Rule.REPLY_FAILED
        self._journal.attempted(
            event.receipt, worker.number, attempt.number, attempt.started, self._clock() - attempt.started, 200,
            Decision.FAILED, rule, note=f"{target.url}: {answer.text}",
        )  # fmt: skip
        self.fail(attempt.lease, target.url, answer, rule)

    async def _send_patiently(self, pool: Pool, target: Target, event: Event) -> Answer:
        engine = self._engine
        return await send_with_retry(
            pool, target.prefix, event, self._delivery.policy, rand=engine.rand, clock=engine.clock, wall=engine.wall
        )


def looped(answer: Answer) -> bool:
    """Whether an ingress refused the event because it goes in a circle (docs/decisions/0005-loops.md)."""
    return any(value == LOOP for name, value in answer.headers if name.lower == REASON_HEADER)
