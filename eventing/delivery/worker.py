"""The delivery worker of one subscription: takes leases, attempts them, settles them.

Callback-driven: the connection's protocol object finishes an exchange and calls `SubscriptionWorker.responded`, which books the
result and sends the subscription's next event on the same connection. A delivery that succeeds costs no task, no future and no
timer (docs/decisions/0003-callbacks.md: worker coroutines cost 1.4 to 2.9 times the floor). Coroutines forward replies and dead
letters.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

from eventing.bindings.http import HeaderName, announces_event, decode_reply, event_head, in_format, take_along
from eventing.channels import Cursor, Lag, Lease
from eventing.delivery.endings import EVICTION_RULES, Endings, looped
from eventing.delivery.engine import Attempt, Delivery, Engine
from eventing.delivery.policy import Verdict, decide
from eventing.delivery.sender import CUT_OFF, FAIR_S, Answer, known_status, retry_after
from eventing.errors import InvalidEventError
from eventing.event import Event
from eventing.journal import Decision, Rule
from eventing.journal.record import failure_code
from eventing.observe.metrics import SubscriptionMetrics
from eventing.observe.trace_context import Headers, headers_of
from eventing.wire.client import Connection, ResponseFailure
from eventing.wire.pool import Pool

__all__ = ["Delivery", "Engine", "SubscriptionWorker", "attempts_made"]

_NOTE: Final = struct.Struct("<IQ")  # attempts made, journal receipt
# Enum members compared as the numbers that they are: a lookup of a global instead of one of an attribute, per delivery.
_DELIVERED: Final = int(Decision.DELIVERED)
_ACCEPTED: Final = int(Rule.ACCEPTED)
_GONE: Final = frozenset({"SubscriptionDeleted", "ChannelDeleted"})


class SubscriptionWorker:
    """One subscription in this process: consumer of its cursor, waiter at its pool, and the exchange of each of its attempts,
    of which the connection holds lease, number and start."""

    def __init__(self, engine: Engine, uid: str, delivery: Delivery, metrics: SubscriptionMetrics) -> None:
        self.uid = uid
        self.metrics = metrics
        self.engine = engine
        self._journal = engine.journal
        self._clock = engine.clock
        self._cursor: Cursor | None = None
        self._in_flight = 0  # leases taken and not finished, those that wait for a connection included
        self._ready: deque[Lease] = deque()
        self._waiting = False
        self._waiting_since = 0.0
        self._endings = Endings(engine, self)
        self._stopping = False
        self.durable = False
        self.detached = asyncio.Event()
        self._discard = ""  # what to do with what is pending when stopping; see `stop`
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.number = 0
        self.update(delivery)

    def update(self, delivery: Delivery) -> None:
        """Apply an edit: from the next attempt on."""
        connections = self.engine.connections
        self.delivery = delivery
        old_pool: Pool | None = getattr(self, "pool", None)
        self.pool = connections.pool(delivery.subscriber.origin)
        self.reply_pool = connections.pool(delivery.reply.origin) if delivery.reply else None
        dead_letter_pool = connections.pool(delivery.dead_letter.origin) if delivery.dead_letter else None
        self._endings.update(delivery, self.reply_pool, dead_letter_pool)
        self._prefix = delivery.subscriber.prefix
        self._timeout_s = delivery.policy.timeout_s
        self._concurrency = delivery.concurrency
        self._format = delivery.format
        if not self.number:
            self.number = self._journal.subscriber(delivery.subscription, self.uid, delivery.subscriber.url)
        else:
            self._journal.rename(self.number, delivery.subscription, self.uid, delivery.subscriber.url)
        if old_pool is not None and old_pool is not self.pool and self._waiting:
            # What waits at the old origin's pool is sent to the new one.
            old_pool.forget(self)
            self._waiting = False
            self._send_ready()
        if self._cursor is not None:
            self._cursor.reorder(delivery.order)
            self.pump()

    def start(self, cursor: Cursor, *, durable: bool = False) -> None:
        """`durable`: the channel keeps an event until its lease is settled."""
        self.durable = durable
        self._cursor = cursor
        self._settle = cursor.settle
        self._take = cursor.take
        self.pump()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    # Consumer

    def wake(self) -> None:
        self.pump()

    def lost(self, leases: Sequence[Lease]) -> None:
        lost = set(map(id, leases))
        kept = deque(lease for lease in self._ready if id(lease) not in lost)
        for _ in range(len(self._ready) - len(kept)):
            self.slot_free()
        self._ready = kept

    def evicted(self, lease: Lease, reason: str) -> None:
        self._endings.evict(lease.event, reason)

    def arrived(self, event: Event, origin: str) -> None:
        event.receipt = self._journal.adopted(event, self.number, origin)

    # Waiter

    def connected(self, connection: Connection) -> None:
        self._waiting = False
        lease = self._next()
        if lease is None:
            connection.pool.put(connection)
            return
        if connection.pool is not self.pool:
            connection.pool.put(connection)
            self._ready.appendleft(lease)
            self._send_ready()
            return
        self._send(lease, connection)
        if self._ready:
            self._wait()

    @property
    def under_way(self) -> int:
        return self._in_flight - len(self._ready)

    def starving(self, now: float) -> bool:
        return not self.under_way and now - self._waiting_since > FAIR_S

    def overdue(self, now: float) -> bool:
        if self.under_way:
            self._waiting_since = now  # those under way took the time, and one of them will be done
        return now - self._waiting_since > self._timeout_s

    def unconnected(self, failure: ResponseFailure) -> None:
        self._waiting = False
        ready, self._ready = self._ready, deque()
        now = self._clock()
        for lease in ready:
            self.unaccepted(Attempt(lease, attempts_made(lease) + 1, now), Answer(0, [], b"", failure))

    # Exchange

    def responded(self, connection: Connection, status: int, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None:
        if 200 <= status < 300:
            if headers and status == 200 and self.reply_pool is not None:
                for name, value in headers:
                    # A content type alone is no event; a `ce-` header or the structured format is.
                    if name.line.startswith(b"ce-") or value[:22].lower() == b"application/cloudevent":
                        self.replied(_ended(connection), connection, headers, body)
                        return
            lease = connection.lease
            started = connection.started
            now = self._clock()
            self._journal.attempted(
                lease.event.receipt, self.number, connection.number, started, now - started, status, _DELIVERED, _ACCEPTED
            )
            metrics = self.metrics
            metrics.attempted(status, now - started)
            metrics.delivered += 1
            self._settle(lease)
            # The slot and its connection are free: the next event takes both, unless somebody else waits for the connection.
            pool = connection.pool
            if pool.waiting or pool is not self.pool or connection.transport is None:
                self._in_flight -= 1
                pool.put(connection)
                self.pump()
            else:
                if self._ready:
                    lease = self._ready.popleft()
                elif self._in_flight <= self._concurrency and not self._stopping and (leases := self._take(1)):
                    lease = leases[0]
                else:
                    self._in_flight -= 1
                    pool.put(connection)
                    if not self._in_flight:
                        self._check_quiet()
                    return
                self._send(lease, connection)  # one ended, one begins: as many in flight as before
                return
            if not self._in_flight:
                self._check_quiet()
            return
        attempt = _ended(connection)
        connection.pool.put(connection)
        self.unaccepted(attempt, Answer(status, headers, body))

    def failed(self, connection: Connection, failure: ResponseFailure) -> None:
        attempt = _ended(connection)
        if failure.kind in CUT_OFF and 200 <= failure.status < 300:
            if failure.status == 200 and self.reply_pool is not None and announces_event(connection.headers):
                # Half a reply is a broken one: to take the event for delivered would lose the other half without a word.
                self.unaccepted(attempt, _broken_reply(failure.detail))
                return
            self.delivered(attempt, failure.status)
            self.slot_free()
            return
        status = known_status(failure)
        self.unaccepted(attempt, Answer(status, connection.headers if status else [], b"", failure))

    # the way of a delivery

    def pump(self) -> None:
        """Take what may be taken and send it, as far as concurrency and connections go."""
        room = self._concurrency - self._in_flight
        cursor = self._cursor
        if room <= 0 or cursor is None or self._stopping:
            return
        leases = cursor.take(room)
        if not leases:
            return
        if not self._in_flight:
            self._quiet.clear()
        self._in_flight += len(leases)
        self._ready += leases
        self._send_ready()

    def _send_ready(self) -> None:
        ready, pool = self._ready, self.pool
        idle = pool.idle
        while ready:
            if idle and not pool.waiting:
                connection = pool.take()
                if connection is not None:
                    self._send(ready.popleft(), connection)
                    continue
            self._wait()
            return

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._waiting_since = self._clock()
            self.pool.wait(self, len(self._ready))

    def _next(self) -> Lease | None:
        if self._ready:
            return self._ready.popleft()
        cursor = self._cursor
        if cursor is None or self._stopping or self._in_flight >= self._concurrency:
            return None
        leases = cursor.take(1)
        if not leases:
            return None
        if not self._in_flight:
            self._quiet.clear()
        self._in_flight += 1
        lease: Lease = leases[0]
        return lease

    def _send(self, lease: Lease, connection: Connection) -> None:
        event = lease.event
        if self._format:
            event = in_format(event, self._format)
        connection.lease = lease
        connection.number = attempts_made(lease) + 1 if lease.note else 1
        connection.started = now = self._clock()
        structured = event.structured
        connection.send(
            self,
            self._prefix,
            event.wire or event_head(event),
            event.data if structured is None else structured,
            now + self._timeout_s,
        )

    def delivered(self, attempt: Attempt, status: int) -> None:
        """Book a success and settle; the slot is still taken."""
        lease = attempt.lease
        duration = self._clock() - attempt.started
        self._journal.attempted(
            lease.event.receipt, self.number, attempt.number, attempt.started, duration, status,
            Decision.DELIVERED, Rule.ACCEPTED,
        )  # fmt: skip
        self.metrics.attempted(status, duration)
        self.metrics.delivered += 1
        assert self._cursor is not None
        self._cursor.settle(lease)

    def settled(self, lease: Lease) -> None:
        """The event has an end: its lease goes back and its slot is free."""
        assert self._cursor is not None
        self._cursor.settle(lease)
        self.slot_free()

    def slot_free(self) -> None:
        """A slot is free."""
        self._in_flight -= 1
        self.pump()
        if not self._in_flight:
            self._check_quiet()

    @property
    def discarding(self) -> Rule | None:
        """Why what is pending ends here; None: it stays due."""
        return EVICTION_RULES.get(self._discard)

    def burials_began(self) -> None:
        self._quiet.clear()

    def burials_ended(self) -> None:
        self._check_quiet()

    def _check_quiet(self) -> None:
        if not self._in_flight and not self._endings.burying:
            self._quiet.set()

    def unaccepted(self, attempt: Attempt, answer: Answer, reply_url: str = "") -> None:
        """An attempt was not accepted: retry later, or the end.

        With `reply_url`: the subscriber did accept it, but `answer` is what its reply met there, after retries of its own. The
        delivery as a whole is tried again where that may help (Knative's control-plane specification, "Event Delivery", 4.1)."""
        now = self._clock()
        duration = now - attempt.started
        failure = answer.failure
        policy = self.delivery.policy
        verdict = decide(
            answer.status,
            attempt.number,
            policy,
            self.engine.rand(),
            retry_after_s=retry_after(answer.headers, self.engine.wall()),
            permanent=failure is not None and failure.kind == "AddressDenied",
        )
        if verdict.decision is Decision.RETRYING and self._discard:
            verdict = Verdict(Decision.FAILED, EVICTION_RULES[self._discard])
        elif looped(answer):
            verdict = Verdict(Decision.FAILED, Rule.LOOP)
        elif reply_url and verdict.decision is Decision.FAILED:
            verdict = Verdict(Decision.FAILED, Rule.REPLY_FAILED)
        told, status = failure, answer.status
        if reply_url:
            told, status = ResponseFailure("ReplyFailed", f"{reply_url}: {answer.told}"), 200
        lease = attempt.lease
        self._journal.attempted(
            lease.event.receipt,
            self.number,
            attempt.number,
            attempt.started,
            duration,
            status,
            verdict.decision,
            verdict.rule,
            limit=policy.retry,
            wait_s=verdict.wait_s,
            failure=failure_code(told.kind) if told else 0,
            note=told.detail if told else answer.excerpt,
            delay_s=policy.backoff_delay_s,
            head=answer.head,
        )
        self.metrics.attempted(status, duration)
        assert self._cursor is not None
        if verdict.decision is Decision.RETRYING:
            if self._stopping:
                self._cursor.release(lease)
            else:
                self._cursor.defer(lease, now + verdict.wait_s, _NOTE.pack(attempt.number, lease.event.receipt))
                self.metrics.retried += 1
            self.slot_free()
        elif self._discard in _GONE:
            self._endings.record(lease.event, 0, Decision.DROPPED, EVICTION_RULES[self._discard])
            self.settled(lease)
        else:
            self._endings.fail(lease, reply_url or self.delivery.subscriber.url, answer, verdict.rule)

    def replied(self, attempt: Attempt, connection: Connection, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None:
        """The subscriber answered 200 with an event: it goes to the reply address; the slot stays taken until it has gone."""
        connection.pool.put(connection)
        try:
            reply = decode_reply(headers, body)
        except InvalidEventError as error:
            # A broken event in a reply is a broken answer (as Knative's broker has it: 502), so it is tried again.
            self.unaccepted(attempt, _broken_reply(str(error)))
            return
        if reply is None:
            self.delivered(attempt, 200)
            self.slot_free()
            return
        if self._endings.given_up:
            self._endings.fail(attempt.lease, self.delivery.subscriber.url, Answer(200, [], b""), Rule.SHUTDOWN)
            return
        event = attempt.lease.event
        # It comes from the same channel, and belongs to the trace of the event that it answers unless it says otherwise.
        take_along(reply, event.hops, () if headers_of(reply.headers) else self._trace_of(event))
        self._endings.hand_on(attempt, reply)

    def _trace_of(self, event: Event) -> Headers:
        """The trace context of a reply that brings none: it belongs to the event that it answers."""
        return headers_of(event.headers)

    # the end

    def lag(self) -> Lag:
        """How far the subscription is behind."""
        return self._cursor.lag() if self._cursor is not None else Lag(0, 0, None)

    @property
    def pending(self) -> int:
        """Events due to this subscription that have no end yet, as far as this process knows."""
        return (self.lag().events or 0) + self._endings.pending

    def leave(self, discard: str) -> None:
        """From now on nothing is begun here; `stop` follows and says what `discard` is."""
        self._stopping, self._discard = True, discard
        while self._ready and self._cursor is not None:
            self._cursor.release(self._ready.popleft())
            self._in_flight -= 1
        self._check_quiet()

    async def stop(self, discard: str, deadline: float, *, grace_s: float = 0.0) -> None:
        """Take nothing more; finish what is in flight until `deadline` (of the clock); let the cursor go.

        `discard` SubscriptionDeleted, ChannelDeleted: what is pending is dropped with it, at once. Shutdown: what is pending at
        the deadline goes to the dead-letter sink, which has `grace_s` seconds for it, or is dropped with it. "": it stays due.
        What is without an end then is dropped with Shutdown; what is still being attempted, as soon as its connection is closed.
        """
        self.leave(discard)
        cursor = self._cursor
        if cursor is None:
            return
        if discard not in _GONE:
            await self._wait_quiet(deadline)
        await cursor.detach(deadline, discard=discard)
        self.detached.set()
        await self._wait_quiet(deadline + grace_s)
        self.give_up()

    def give_up(self) -> None:
        """There is no more time: replies and dead letters on their way are dropped with Shutdown, and so is what is being
        attempted as soon as its connection is closed."""
        self._endings.give_up()
        self._quiet.set()

    async def _wait_quiet(self, deadline: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                await self._quiet.wait()
        except TimeoutError:
            return


def _broken_reply(why: str) -> Answer:
    return Answer(0, [], b"", ResponseFailure("InvalidReply", why, 200))


def _ended(connection: Connection) -> Attempt:
    return Attempt(connection.lease, connection.number, connection.started)


def attempts_made(lease: Lease) -> int:
    """How often the event was attempted before, as far as the lease knows."""
    if not lease.note:
        return 0
    attempts: int = _NOTE.unpack(lease.note)[0]
    return attempts
