"""Random schedules for a data plane in the test's own loop, from a seed; and the books that must balance afterwards."""

import asyncio
import copy
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvloop

from eventing.channels import ChannelHost
from eventing.journal import Decision, Rule
from eventing.resources.kinds import Object
from eventing.testing.clock import VirtualClock
from eventing.testing.ledger import Ledger
from eventing.testing.proxy import TcpProxy
from eventing.testing.sinks import Answer, Sink, failing_at_random
from tests.support.data_plane import DataPlaneRig, make_event, subscriber

__all__ = ["EXPECTED", "Schedule", "check", "on_uvloop", "scenario"]

# What a schedule may drop events for. Any other reason is a failure.
EXPECTED: Final = frozenset(
    {"NoDeadLetterSink", "DeadLetterFailed", "SubscriptionDeleted", "ChannelDeleted", "Overflow", "Shutdown"}
)
_ENDS: Final = frozenset({Decision.DELIVERED, Decision.DEAD_LETTERED, Decision.DROPPED})
_DELETED: Final = frozenset({"SubscriptionDeleted", "ChannelDeleted"})
# What is let go of when nothing may be waited for any more keeps no order.
_HASTY: Final = frozenset({Rule.SHUTDOWN, Rule.OVERFLOW, Rule.SUBSCRIPTION_DELETED, Rule.CHANNEL_DELETED})
_ELSEWHERE: Final = frozenset({Decision.DROPPED, Decision.BURYING, Decision.REPLYING})
_REPLY: Final = {"specversion": "1.0", "id": "r", "source": "/sub", "type": "reply"}


class Schedule:
    """Random subscriptions of channel `orders`, changed while events come in. Every other one has concurrency 1 for life."""

    def __init__(self, mesh: DataPlaneRig, base: str, rand: random.Random) -> None:
        self._mesh = mesh
        self._base = base
        self._rand = rand
        self._entries: dict[str, Object] = {}
        self._made = 0
        self._options: dict[str, Any] = {"overflow": "refuse"} if rand.random() < 0.3 else {}
        self.ordered: set[str] = set()

    def change(self) -> None:
        """One random change: a new subscription, an edit, a deletion, or a deletion and the same one again at once."""
        rand = self._rand
        what = rand.choice(["new", "new", "edit", "edit", "delete", "back"])
        if rand.random() < 0.05:  # a channel of the same name, deleted and made again
            self.ordered.clear()  # the last attempts of the old one and the first of the new one are side by side
            self._apply(recreated=True)
        if what == "new" or not self._entries:
            self._made += 1
            uid = f"s{self._made}"
            if self._made % 2:
                self.ordered.add(uid)
            self._entries[uid] = self._entry(uid)
        else:
            uid = rand.choice(sorted(self._entries))
            entry = self._entries.pop(uid)
            if what == "back":
                self._apply()
                self._entries[uid] = entry
                self.ordered.discard(uid)  # side by side, too
            elif what == "edit":
                self._entries[uid] = self._entry(uid)
        self._apply()

    def _entry(self, uid: str) -> Object:
        rand = self._rand
        options: dict[str, Any] = {
            "retry": rand.randint(0, 3),
            "backoff_delay": f"PT0.0{rand.randint(0, 3)}S",
            "timeout": "PT0.3S",
        }
        options["backoff_policy"] = rand.choice(["linear", "exponential"])
        options["retry_after_max"] = "PT0.05S"
        if rand.random() < 0.7:
            options["dead_letter"] = f"{self._base}/dead/{uid}"
        if rand.random() < 0.3:
            options["format"] = rand.choice(["json", "binary"])
        options["concurrency"] = 1 if uid in self.ordered else rand.choice([2, 10])
        reply = f"{self._base}/reply/{uid}" if rand.random() < 0.4 else None
        # An edit may lead to another origin, and another pool of connections, which ends at the same sink.
        base = rand.choice([self._base, self._base.replace("127.0.0.1", "localhost")])
        return subscriber(uid, f"{base}/{uid}", reply=reply, **options)

    def _apply(self, *, recreated: bool = False) -> None:
        self._mesh.channel("orders", *self._entries.values(), recreated=recreated, **self._options)


async def check(
    mesh: DataPlaneRig, sink: Sink, receipts: dict[int, str], *, ordered: set[str] | frozenset[str] = frozenset()
) -> Counter[str]:
    """Balance the books as soon as the last ends are in: the sink and closed connections have their own turns of the loop."""
    end = time.monotonic() + 5
    while True:
        try:
            return balance(mesh, sink, receipts, ordered=ordered)
        except AssertionError:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(0.01)


def balance(
    mesh: DataPlaneRig, sink: Sink, receipts: dict[int, str], *, ordered: set[str] | frozenset[str] = frozenset()
) -> Counter[str]:
    """The journal's own records against what the sink has accepted. Returns the ends by name; raises AssertionError.

    `ordered` are subscriptions that kept one delivery at a time all their lives: all that was tried there was tried in order.
    """
    journal = mesh.journal
    assert journal.attempts_kept_from == journal.acceptances_kept_from == 0
    ends: defaultdict[tuple[int, str], list[tuple[Decision, str]]] = defaultdict(list)
    tried: defaultdict[str, list[int]] = defaultdict(list)
    for record in journal.attempts(0, journal.attempts_written):
        entry = journal.entry(record.subscriber)
        assert entry is not None
        if record.decision in _ENDS:
            ends[record.receipt, entry.uid].append((record.decision, record.rule.reason))
        if record.decision not in _ELSEWHERE and record.rule not in _HASTY:
            tried[entry.uid].append(record.receipt)
    for uid in ordered:
        assert tried[uid] == sorted(tried[uid]), f"{uid} has concurrency 1 and was tried out of order"
    ledger = Ledger()
    counted: Counter[str] = Counter()
    for receipt, event_id in receipts.items():
        acceptance = journal.find(receipt)
        assert acceptance is not None
        due = [entry.uid for number in acceptance.due if (entry := journal.entry(number)) is not None]
        ledger.send(event_id, due)
        ledger.acknowledge(event_id)
        for uid in due:
            found = ends.pop((receipt, uid), [])
            assert len(found) == 1, f"event {event_id} at {uid} ended {len(found)} times: {found}"
            decision, reason = found[0]
            counted[decision.name if decision is not Decision.DROPPED else reason] += 1
            if decision is Decision.DELIVERED:
                assert event_id in sink.ids(f"/{uid}"), f"{event_id} is said to be delivered to {uid}"
            elif decision is Decision.DEAD_LETTERED:
                assert event_id in sink.ids(f"/dead/{uid}"), f"{event_id} is said to be dead-lettered by {uid}"
                ledger.dead_letter(uid, event_id)
            else:
                ledger.drop(uid, event_id, reason)
    # What comes in within the turn of the loop in which a subscription goes may still be counted to it, and dropped.
    foreign = {key: end for key, end in ends.items() if {reason for _, reason in end} - _DELETED}
    assert not foreign, f"ends of what was never due: {foreign}"
    for path, uid in {(received.path, received.path.rpartition("/")[2]) for received in sink.requests}:
        if path == f"/{uid}":
            for event_id in sink.ids(path):
                ledger.deliver(uid, event_id)
    ledger.check(drops=EXPECTED)
    return counted


def tighten(mesh: DataPlaneRig, events: int) -> None:
    """Channels that are opened from now on overflow when a subscription is so many events behind."""
    opened = mesh.factory.open

    def narrow(channel: Object, host: ChannelHost) -> Any:
        made: Any = opened(channel, host)
        made.max_events, made._clear_number, made._scan_number = events, events, events // 2
        return made

    mesh.factory = copy.copy(mesh.factory)  # the process has one
    mesh.factory.open = narrow  # type: ignore[method-assign]


async def scenario(seed: int, *, clock: VirtualClock | None = None, events: int = 120, proxy: bool = False) -> Counter[str]:
    """One round: sinks that fail at random, subscriptions that change, with `proxy` connections that are cut; then a stop."""
    rand = random.Random(seed)
    times: dict[str, Any] = {"clock": clock, "wall": clock.wall} if clock else {}
    async with Sink() as sink, DataPlaneRig(rand=rand.random, **times) as mesh, TcpProxy("127.0.0.1", sink.port) as before:
        failures = [
            Answer(500),
            Answer(503),
            Answer(404),
            Answer(400),
            Answer.cut(),
            Answer.cut(25),
            Answer.retry_after(429, "1"),
        ]
        sink.otherwise(failing_at_random(seed, 0.3, *failures, Answer.never(), Answer.garbage(), success=Answer()))
        for number in range(20):
            success = Answer.reply(_REPLY) if rand.random() < 0.4 else Answer(rand.choice([200, 202, 204]))
            sink.always(f"/s{number}", failing_at_random(seed + number, 0.3, *failures, success=success))
        if rand.random() < 0.4:
            tighten(mesh, rand.randint(10, 40))
        schedule = Schedule(mesh, f"http://127.0.0.1:{before.port}" if proxy else sink.url, rand)
        for _ in range(3):
            schedule.change()
        receipts = {}
        for number in range(events):
            answer = await mesh.publish(make_event(str(number), rand.randbytes(rand.choice([0, 10, 3000]))))
            if answer.status == 202:
                receipts[int(answer.headers["eventing-receipt"].rpartition("-")[2])] = str(number)
            else:
                assert answer.status == 503, answer  # the channel refuses on overflow
            chance = rand.random()
            if chance < 0.1:
                schedule.change()
            elif chance < 0.15:
                await asyncio.sleep(rand.random() * 0.05)
            elif proxy and chance < 0.2:
                before.cut()
            elif proxy and chance < 0.22:
                before.cut_after(rand.randint(1, 2000))
        if rand.random() < 0.5:  # else the stop comes in the middle of it
            await mesh.quiet(60, 0.05 if clock else 0.002)
            end = mesh.clock() + 5
            while mesh.table._ending and mesh.clock() < end:
                await asyncio.sleep(0.01)
        await mesh.stop(rand.random(), 0.5)
        return await check(mesh, sink, receipts, ordered=schedule.ordered)


def on_uvloop(main: Callable[[], Coroutine[Any, Any, Counter[str]]]) -> Counter[str]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
