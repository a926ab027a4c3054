"""How a delivery ends that does not simply succeed: dead letters, evicted events, replies.

These are rare and may take their time, so they are coroutines; the plain way of a delivery (`eventing.delivery.worker`) stays
free of them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, NamedTuple, Protocol

from eventing.bindings.http import LOOP, REASON_HEADER
from eventing.channels import Lease
from eventing.delivery.connections import Target
from eventing.delivery.dead_letters import dead_letter
from eventing.delivery.engine import Attempt, Delivery, Engine
from eventing.delivery.policy import Verdict, decide
from eventing.delivery.sender import Answer, Party, retry_after, send
from eventing.delivery.spans import with_context
from eventing.event import Event
from eventing.journal import Decision, Rule
from eventing.journal.details import ANSWERED
from eventing.journal.record import failure_code
from eventing.observe.metrics import SubscriptionMetrics
from eventing.wire.client import ResponseFailure
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


_Place = Callable[[], tuple[Target | None, Pool | None]]


class _Untaken(NamedTuple):
    """Why a dead letter was not taken: the rule, the last status, what was said."""

    rule: Rule
    status: int = 0
    note: str = ""
    head: str = ""


class Slots(Protocol):
    """The worker, as its endings see it."""

    number: int  # of the subscription, in the journal
    durable: bool  # whether the channel keeps an event, and its drop must be on the disk, until its lease is settled
    metrics: SubscriptionMetrics

    def settled(self, lease: Lease) -> None:
        """The event has an end: its lease goes back and its slot is free."""

    def delivered(self, attempt: Attempt, status: int) -> None:
        """Book a success and settle; the slot stays taken."""

    def unaccepted(self, attempt: Attempt, answer: Answer, reply_url: str) -> None:
        """The reply to the attempt could not be handed on; `answer` is what it met."""

    def slot_free(self) -> None: ...

    @property
    def discarding(self) -> Rule | None:
        """Why what is pending ends here; None: it stays due."""

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
        self._party = Party()

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
        worker = self._worker
        if self._given_up and worker.discarding is None:
            self._cut_short(lease.event, 0, answer.text)
            worker.slot_free()
            return
        if self._delivery.dead_letter is None or self._given_up:
            reason = rule if rule is Rule.LOOP else Rule.NO_DEAD_LETTER_SINK
            told = f"{rule.text}: {answer.text}"
            self._drop(lease, worker.discarding or reason, told=told)
            return
        self._start(self._bury(lease, destination, answer, rule))

    def _drop(self, lease: Lease, rule: Rule, *, status: int = 0, note: str = "", head: str = "", told: str = "") -> None:
        """Drop it, and settle: on a durable channel once that is on the disk, or a crash in between would lose it."""
        worker = self._worker
        then = partial(worker.settled, lease)
        if worker.durable:
            self.record(lease.event, 0, Decision.DROPPED, rule, status=status, note=note, head=head, told=told, then=then)
        else:
            self.record(lease.event, 0, Decision.DROPPED, rule, status=status, note=note, head=head, told=told)
            then()

    def hand_on(self, attempt: Attempt, reply: Event) -> None:
        """Send a reply on; the slot stays taken until it has gone."""
        self._start(self._hand_on(attempt, reply))

    def record(
        self,
        event: Event,
        attempt: int,
        decision: Decision,
        rule: Rule,
        *,
        status: int = 0,
        note: str = "",
        head: str = "",
        told: str = "",
        then: Callable[[], None] | None = None,
    ) -> None:
        """Book an end that no attempt brought. `told` is for the log, where the journal has it already from the attempts."""
        if decision is Decision.DROPPED:
            self._worker.metrics.dropped(rule.reason)
            self._engine.failure_lines.dropped(
                event.receipt, self._delivery.subscription, rule.reason, status=status, detail=note.partition(ANSWERED)[0] or told
            )
        self._journal.ended(
            event, self._worker.number, self._clock(), 0.0, status, decision, rule,
            attempt=attempt, note=note, head=head, then=then,
        )  # fmt: skip

    def give_up(self) -> None:
        """There is no more time: the events of replies and dead letters on their way end with the reason for it, or stay due."""
        self._given_up = True
        while self._evicted:
            self._cut_short(self._evicted.popleft()[0], 0, "")
        for task in self._tasks:
            task.cancel()

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = self._engine.tasks.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bury(self, lease: Lease, destination: str, answer: Answer, rule: Rule) -> None:
        untaken = await self._send_dead_letter(lease.event, destination, answer, rule)
        if untaken is None:
            self._worker.settled(lease)
        else:
            self._drop(lease, untaken.rule, status=untaken.status, note=untaken.note, head=untaken.head)

    async def _bury_evicted(self) -> None:
        while self._evicted:
            event, rule = self._evicted.popleft()
            answer = Answer(0, [], rule.text.encode())
            untaken = await self._send_dead_letter(event, self._delivery.subscriber.url, answer, rule)
            if untaken is not None:
                self.record(event, 0, Decision.DROPPED, untaken.rule, status=untaken.status, note=untaken.note, head=untaken.head)
        self._burying -= 1
        self._worker.burials_ended()

    async def _send_dead_letter(self, event: Event, destination: str, answer: Answer, rule: Rule) -> _Untaken | None:
        """None: it was taken, and that is booked. Else why not, and the event is to be dropped."""
        data = answer.body if answer.failure is None else answer.text.encode()
        letter = dead_letter(event, destination=destination, code=answer.status, data=data)
        started = self._clock()
        try:
            taken = await self._send_patiently(self._dead_letter_place, letter, event, Decision.BURYING)
        except asyncio.CancelledError:
            self._cut_short(event, 0, "the dead-letter sink did not answer in time")
            raise
        worker = self._worker
        if taken is None:
            return _Untaken(Rule.NO_DEAD_LETTER_SINK)
        url, answer = taken
        if not 200 <= answer.status < 300:
            return _Untaken(Rule.DEAD_LETTER_FAILED, answer.status, f"{url}: {answer.told}", answer.head)
        worker.metrics.dead_lettered += 1
        self._engine.failure_lines.dead_lettered(event.receipt, self._delivery.subscription, rule.reason, sink=url)
        self._journal.ended(
            event, worker.number, started, self._clock() - started, answer.status, Decision.DEAD_LETTERED, rule, note=url
        )
        return None

    async def _hand_on(self, attempt: Attempt, reply: Event) -> None:
        worker = self._worker
        try:
            taken = await self._send_patiently(self._reply_place, reply, attempt.lease.event, Decision.REPLYING)
        except asyncio.CancelledError:
            self._cut_short(attempt.lease.event, attempt.number, "its reply was not taken in time")
            raise
        if taken is None or 200 <= taken[1].status < 300:  # None: without a reply address replies are dropped
            worker.delivered(attempt, 200)
            worker.metrics.replied += taken is not None
            worker.slot_free()
            return
        url, answer = taken
        worker.unaccepted(attempt, answer, url)

    def _reply_place(self) -> tuple[Target | None, Pool | None]:
        return self._delivery.reply, self._reply_pool

    def _dead_letter_place(self) -> tuple[Target | None, Pool | None]:
        return self._delivery.dead_letter, self._dead_letter_pool

    async def _send_patiently(self, place: _Place, event: Event, about: Event, decision: Decision) -> tuple[str, Answer] | None:
        """Send until it is accepted, refused for good, or the attempts are used up: where to, and the last answer. None: there is
        no such address (any more). Each attempt goes by what the subscription says then; those that are made again are booked as
        `decision`, with the event `about` which it is."""
        engine = self._engine
        attempt = 0
        while True:
            target, pool = place()
            if target is None or pool is None:
                return None
            attempt += 1
            policy = self._delivery.policy
            started = self._clock()
            answer = await self._send_once(place, target, pool, event, attempt)
            verdict = decide(
                answer.status,
                attempt,
                policy,
                engine.rand(),
                retry_after_s=retry_after(answer.headers, engine.wall()),
                permanent=answer.failure is not None and answer.failure.kind == "AddressDenied",
            )
            if verdict.decision is not Decision.RETRYING or pool.closed:
                return target.url, answer
            self._again(about, attempt, started, answer, decision, verdict)
            await asyncio.sleep(verdict.wait_s)

    def _again(self, event: Event, attempt: int, started: float, answer: Answer, decision: Decision, verdict: Verdict) -> None:
        failure, policy = answer.failure, self._delivery.policy
        self._journal.attempted(
            event.receipt, self._worker.number, attempt, started, self._clock() - started, answer.status, decision, verdict.rule,
            limit=policy.retry, wait_s=verdict.wait_s, failure=failure_code(failure.kind) if failure else 0,
            note=failure.detail if failure else answer.excerpt, delay_s=policy.backoff_delay_s, head=answer.head,
        )  # fmt: skip

    async def _send_once(self, place: _Place, target: Target, pool: Pool, event: Event, attempt: int) -> Answer:
        engine = self._engine
        timeout_s = self._delivery.policy.timeout_s
        if engine.spans is None:
            return await send(pool, target.prefix, event, timeout_s, engine.clock, party=self._party)
        what = "reply" if place == self._reply_place else "dead-letter"
        span = engine.spans.begin(what, self._delivery.subscription, event, target, attempt, resent=attempt - 1)
        answer = Answer(0, [], b"", ResponseFailure("Cancelled", "there was no more time", 0))
        try:
            answer = await send(pool, target.prefix, with_context(event, span), timeout_s, engine.clock, party=self._party)
        finally:
            engine.spans.end(span, answer)
        return answer

    def _cut_short(self, event: Event, attempt: int, note: str) -> None:
        """There is no time for the event's end. On a durable channel it stays due, elsewhere this is its end."""
        rule = self._worker.discarding
        if rule is not None:
            self.record(event, attempt, Decision.DROPPED, rule, note=note)
            return
        self._journal.attempted(
            event.receipt, self._worker.number, attempt, self._clock(), 0.0, 0, Decision.RELEASED, Rule.SHUTDOWN, note=note
        )


def looped(answer: Answer) -> bool:
    """Whether an ingress refused the event because it goes in a circle (docs/decisions/0005-loops.md)."""
    return any(value == LOOP for name, value in answer.headers if name.lower == REASON_HEADER)
