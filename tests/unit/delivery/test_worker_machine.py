"""Channel and worker against a model: whatever subscribers answer, users edit and clocks do, every event that is due has one end.

In virtual time and without sockets, so that hypothesis can try thousands of histories. A default run takes few, always the same;
`EVENTING_HISTORIES=2000 make test ARGS=tests/unit/delivery/test_worker_machine.py` takes many new ones.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventing.channels import Budget, Channel, channel_factories
from eventing.dataplane.table import ChannelTable
from eventing.delivery.connections import Connections
from eventing.delivery.engine import Engine
from eventing.delivery.policy import Policy, backoff, retriable
from eventing.ingress.routes import Routes
from eventing.journal import Decision, Journal, Rule
from eventing.testing.clock import VirtualClock, VirtualLoop
from tests.support.data_plane import make_event, subscriber
from tests.support.remote import Remote, Sent

HISTORIES = os.environ.get("EVENTING_HISTORIES")
BOUND = 8  # events that a subscription may lag
TIMEOUT_S = 30
ENDS = {Decision.DELIVERED, Decision.DEAD_LETTERED, Decision.DROPPED}
REPLY = "ce-specversion: 1.0\r\nce-id: r-{}\r\nce-type: t\r\nce-source: /s\r\n"
EXACT = 1e-6  # seconds that floating point may lose


@dataclass(eq=False)
class Due:
    """One event at one subscription, as the model sees it."""

    index: int
    receipt: int
    attempts: int = 0
    not_before: float = 0.0
    over: bool = False  # no further attempt may begin
    accepted: bool = False  # the subscriber answered 2xx
    replies: int = 0  # attempts of the reply to the present attempt
    reply_not_before: float = 0.0
    gone: bool = False  # its subscription was deleted before the last attempt
    again: bool = False  # the present attempt is sent once more: its connection was stale
    unseen: bool = False  # attempts may have ended without a connection, so their number is not known here
    letter_taken: bool = False
    letter_refused: bool = False
    end: tuple[Decision, Rule] | None = None


@dataclass(eq=False)
class Subscription:
    uid: str
    host: str
    number: int = 0
    version: int = 0
    retry: int = 0
    delay_s: float = 0.0
    linear: bool = False
    concurrency: int = 1
    dead_letter: bool = False
    reply: bool = False
    due: dict[str, Due] = field(default_factory=dict)
    deleted: bool = False
    hosts: set[str] = field(default_factory=set)  # all that it ever was at
    in_order: bool = True  # has been one at a time all its life
    last: int = -1  # index of the newest event attempted
    most: int = 1  # under way at the same time: an edit to fewer does not call any back
    lagged: bool = False  # has been at its bound

    @property
    def policy(self) -> Policy:
        return Policy(self.retry, TIMEOUT_S, "linear" if self.linear else "exponential", self.delay_s)

    @property
    def entry(self) -> dict[str, Any]:
        base = f"http://{self.host}/{self.uid}"
        return subscriber(
            self.uid,
            f"{base}/sub/{self.version}",
            reply=f"{base}/reply/{self.version}" if self.reply else None,
            dead_letter=f"{base}/dead/{self.version}" if self.dead_letter else None,
            retry=self.retry,
            backoff_delay=f"PT{self.delay_s}S",
            backoff_policy="linear" if self.linear else "exponential",
            timeout=f"PT{TIMEOUT_S}S",
            concurrency=self.concurrency,
        )


options = st.fixed_dictionaries(
    {
        "retry": st.integers(0, 3),
        "delay_s": st.sampled_from([0.0, 0.5, 7.0]),
        "linear": st.booleans(),
        "concurrency": st.sampled_from([1, 1, 2, 5]),
        "dead_letter": st.booleans(),
        "reply": st.booleans(),
    }
)
places = st.integers(0, 1000)  # which of those there are


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.loop = VirtualLoop(self.clock)
        self.faults: list[str] = []
        self.subscriptions: list[Subscription] = []
        self.published = 0
        self.stopped = False
        self.read = 0
        self.generous = False
        self.hurry = False
        self.remote = Remote(self.requested, self.abandoned, self.refused)

    # the world

    @initialize()
    def start(self) -> None:
        self.over = asyncio.Event()
        ready = asyncio.Event()
        self.main = self.loop.create_task(self._main(ready))
        self.loop.run_until_complete(ready.wait())

    async def _main(self, ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            self.journal = Journal(clock=self.clock, wall=self.clock.wall, attempts=1 << 14)
            self.connections = Connections(tasks, clock=self.clock, connector=self.remote.connect, per_origin=3)
            engine = Engine(
                journal=self.journal, connections=self.connections, tasks=tasks, clock=self.clock, wall=self.clock.wall,
                rand=lambda: 0.0,
            )  # fmt: skip
            self.table = ChannelTable(
                engine=engine, routes=Routes(), budget=Budget(1 << 30), clock=self.clock, stop_s=2 * TIMEOUT_S
            )
            self.apply()
            channel: Any = self.table._served["orders"].channel
            channel.max_events, channel._clear_number, channel._scan_number = BOUND, BOUND, BOUND // 2
            self.channel: Channel = channel
            ready.set()
            await self.over.wait()

    def apply(self) -> None:
        metadata = {"name": "orders", "namespace": "default", "uid": "u", "generation": 1}
        spec = {"subscribers": [each.entry for each in self.subscriptions if not each.deleted]}
        self.table.apply("orders", channel_factories()["memory"], {"metadata": metadata, "spec": spec})

    def do(self, action: Callable[[], None], seconds: float = 0.0) -> None:
        """Act within the loop, whose turn may have work of its own before, and let it settle."""

        async def acting() -> None:
            action()
            await asyncio.sleep(seconds)
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(acting())

    # what the remote side sees

    def find(self, sent: Sent) -> tuple[Subscription, str, int, Due]:
        _, uid, kind, version = sent.path.split("/")
        (subscription,) = (each for each in self.subscriptions if each.uid == uid)
        return subscription, kind, int(version), subscription.due[sent.event_id.removeprefix("r-")]

    def check(self, holds: bool, what: str, sent: Sent) -> None:
        if not holds:
            self.faults.append(f"{what}: {sent.path} {sent.event_id} at {self.clock.elapsed}")

    def requested(self, sent: Sent) -> None:
        subscription, kind, version, due = self.find(sent)
        now = self.clock()
        self.check(due.end is None, "sent after its end", sent)
        if kind == "dead":
            self.check(due.over or due.unseen or subscription.lagged or self.stopped, "buried alive", sent)
            self.check(not due.gone or due.unseen or subscription.lagged, "buried though it is to be dropped", sent)
        elif due.again:
            due.again = sent.reused = False  # it is not sent a third time
        elif kind == "reply":
            self.check(due.accepted, "a reply that nobody gave", sent)
            self.check(now >= due.reply_not_before - EXACT, "a reply too early", sent)
            due.replies += 1
        else:
            self.check(not due.over or due.unseen, "an attempt too many", sent)
            self.check(not subscription.deleted and not self.stopped, "begun after the end", sent)
            self.check(version == subscription.version, "an attempt at an old address", sent)
            self.check(sent.host == subscription.host, "an attempt at an old host", sent)
            self.check(now >= due.not_before - EXACT, "an attempt too early", sent)
            if subscription.in_order:
                self.check(due.index >= subscription.last, "out of order", sent)
            subscription.last = max(subscription.last, due.index)
            due.attempts += 1
            due.accepted = False
        if kind == "sub":
            under_way = [each for each in self.remote.outstanding if each.path.startswith(f"/{subscription.uid}/sub/")]
            self.check(len(under_way) <= subscription.most, "too many at a time", sent)
        if self.generous:
            self.loop.call_soon(self.accept, sent)

    def accept(self, sent: Sent) -> None:
        if sent in self.remote.outstanding:
            self.respond(sent, 202)

    def abandoned(self, sent: Sent) -> None:
        subscription, kind, _, due = self.find(sent)
        self.failed(subscription, kind, due, 0)

    def refused(self, host: str) -> None:
        for subscription in self.subscriptions:
            for due in subscription.due.values():
                due.unseen |= host in subscription.hosts and due.end is None

    def respond(self, sent: Sent, status: int, headers: str = "") -> None:
        subscription, kind, _, due = self.find(sent)
        if 200 <= status < 300:
            if kind == "sub":
                due.accepted = True
                if headers and subscription.reply:
                    due.replies, due.reply_not_before = 0, 0.0
            due.letter_taken |= kind == "dead"
        else:
            self.failed(subscription, kind, due, status, 3.0 if "retry-after" in headers else 0.0)
        self.remote.answer(sent, status, headers)

    def failed(self, subscription: Subscription, kind: str, due: Due, status: int, retry_after_s: float = 0.0) -> None:
        if kind == "dead":
            due.letter_refused = True
            return
        attempts = due.attempts if kind == "sub" else due.replies
        again = retriable(status) and attempts <= subscription.retry
        wait = max(backoff(max(attempts, 1), subscription.policy)[0], retry_after_s)
        if kind == "reply" and again:
            due.reply_not_before = self.clock() + wait
            return
        if kind == "reply":  # the whole delivery has failed
            again = retriable(status) and due.attempts <= subscription.retry
            wait = max(backoff(max(due.attempts, 1), subscription.policy)[0], retry_after_s)
            due.accepted = False
        due.not_before = self.clock() + wait
        due.over |= not again

    # what may happen

    @precondition(lambda self: len(self.subscriptions) < 4 and not self.stopped)
    @rule(chosen=options, host=st.sampled_from(["one", "two"]))
    def subscribe(self, chosen: dict[str, Any], host: str) -> None:
        subscription = Subscription(f"s{len(self.subscriptions)}", host, **chosen)
        subscription.in_order = subscription.concurrency == 1
        subscription.most = subscription.concurrency
        subscription.hosts.add(host)
        self.subscriptions.append(subscription)
        self.do(self.apply)
        subscription.number = self.table._served["orders"].workers[subscription.uid].number

    def living(self) -> list[Subscription]:
        return [each for each in self.subscriptions if not each.deleted]

    @precondition(lambda self: self.living() and not self.stopped)
    @rule(place=places, chosen=options, host=st.sampled_from(["one", "two"]))
    def edit(self, place: int, chosen: dict[str, Any], host: str) -> None:
        subscription = self.living()[place % len(self.living())]

        def edit() -> None:
            subscription.version += 1
            subscription.host = host
            subscription.hosts.add(host)
            for name, value in chosen.items():
                setattr(subscription, name, value)
            subscription.in_order &= subscription.concurrency == 1
            subscription.most = max(subscription.most, subscription.concurrency)
            self.apply()

        self.do(edit)

    @precondition(lambda self: self.living() and not self.stopped)
    @rule(place=places)
    def delete(self, place: int) -> None:
        subscription = self.living()[place % len(self.living())]

        def delete() -> None:
            subscription.deleted = True
            for due in subscription.due.values():
                due.gone = not due.over
            self.apply()

        self.do(delete)

    @precondition(lambda self: not self.stopped)
    @rule(number=st.integers(1, 6))
    def publish(self, number: int) -> None:
        def publish() -> None:
            for _ in range(number):
                self.published += 1
                event = make_event(str(self.published))
                event.receipt = self.journal.next_receipt()
                for subscription in self.living():
                    subscription.due[event.id] = Due(self.published, event.receipt)
                    worker = self.table._served["orders"].workers[subscription.uid]
                    subscription.lagged |= (worker.lag().events or 0) >= BOUND
                assert self.channel.publish([event]) is None

        self.do(publish)

    @precondition(lambda self: self.remote.outstanding)
    @rule(place=places, answer=st.sampled_from(["200", "202", "reply", "503", "404", "429", "400", "302", "cut", "stale"]))
    def answer(self, place: int, answer: str) -> None:
        sent = self.remote.outstanding[place % len(self.remote.outstanding)]
        subscription, kind, _, due = self.find(sent)

        def act() -> None:
            if sent not in self.remote.outstanding:
                return  # given up in this very turn
            if answer == "reply":
                self.respond(sent, 200, REPLY.format(sent.event_id) if kind == "sub" else "")
            elif answer == "429":
                self.respond(sent, 429, "retry-after: 3\r\n")
            elif answer == "stale" and sent.reused:
                due.again = kind != "dead"
                self.remote.cut(sent)
            elif answer in {"cut", "stale"}:
                self.failed(subscription, kind, due, 0)
                self.remote.cut(sent, b"HTTP/1.1 " if answer == "cut" else b"")
            else:
                self.respond(sent, int(answer))

        before = self.in_flight(subscription)
        self.do(act)
        if due.accepted and kind == "sub" and answer == "202":
            # One ended: no more may begin than the concurrency allows, which an edit may have lowered meanwhile.
            assert self.in_flight(subscription) <= max(subscription.concurrency, before - 1), subscription

    def in_flight(self, subscription: Subscription) -> int:
        worker = self.table._served["orders"].workers.get(subscription.uid)
        return worker.in_flight if worker is not None else 0

    @rule(seconds=st.sampled_from([0.05, 0.6, 3.5, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.do(lambda: None, seconds)

    @precondition(lambda self: not self.stopped)
    @rule(host=st.sampled_from(["one", "two"]))
    def go_away_or_come_back(self, host: str) -> None:
        self.remote.refusing ^= {host}

    @precondition(lambda self: not self.hurry)
    @rule()
    def end_in_a_hurry(self) -> None:
        self.hurry = True

    # what must hold

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert not self.faults, self.faults
        if not self.stopped:
            assert not self.main.done(), self.main.exception()

    @invariant()
    def every_event_has_at_most_one_end_and_it_is_true(self) -> None:
        for record in self.journal.attempts(self.read, 1 << 14):
            self.read += 1
            if record.decision not in ENDS:
                continue
            (subscription,) = (each for each in self.subscriptions if each.number == record.subscriber)
            (due,) = (each for each in subscription.due.values() if each.receipt == record.receipt)
            assert due.end is None, (subscription, due, record)
            due.end = record.decision, record.rule
            reason = record.rule.reason
            if record.decision is Decision.DELIVERED:
                assert due.accepted, (subscription, due)
            elif record.decision is Decision.DEAD_LETTERED:
                assert due.letter_taken, (subscription, due)
            else:
                true = {
                    "NoDeadLetterSink": True,
                    "DeadLetterFailed": due.letter_refused or due.unseen,
                    "Overflow": subscription.lagged,
                    "SubscriptionDeleted": subscription.deleted,
                    "Shutdown": self.stopped,
                }
                assert true[reason], (subscription, due, reason)

    @invariant()
    def what_has_no_end_is_pending(self) -> None:
        served = self.table._served.get("orders")
        for subscription in self.living():
            if served is not None and not self.stopped:
                worker = served.workers[subscription.uid]
                pending = [due for due in subscription.due.values() if due.end is None]
                assert worker.pending == len(pending), (subscription, worker.pending)
                assert (worker.lag().events or 0) <= BOUND

    def teardown(self) -> None:
        if not hasattr(self, "main"):
            return
        try:
            if not self.faults:
                self.finish()
        finally:
            self.do(self.over.set)
            self.loop.run_until_complete(self.main)
            self.loop.close()

    def finish(self) -> None:
        """Everything ends: by delivery where every host is there and takes everything from now on, else at the stop."""

        def be_generous() -> None:
            self.generous = True
            self.remote.refusing.clear()
            for sent in list(self.remote.outstanding):
                self.accept(sent)

        if not self.hurry:
            self.do(be_generous, 600.0)
            self.all_has_ended()
            assert self.connections.open_connections == 0, "idle connections are closed"
        self.stopped = True
        began = self.clock()
        self.loop.run_until_complete(self.table.aclose(began + 5.0, grace_s=2.0))
        assert self.clock() - began <= 7.0 + EXACT
        self.do(self.connections.close)
        self.all_has_ended()
        assert asyncio.all_tasks(self.loop) == {self.main}, "no task is left"

    def all_has_ended(self) -> None:
        self.nothing_went_wrong()
        self.every_event_has_at_most_one_end_and_it_is_true()
        for subscription in self.subscriptions:
            for due in subscription.due.values():
                assert due.end is not None, (subscription, due)
        assert self.remote.outstanding == []


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=int(HISTORIES or 60), stateful_step_count=40, deadline=None, derandomize=HISTORIES is None
)
