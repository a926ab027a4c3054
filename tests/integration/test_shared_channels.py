"""Where did my event go, when several processes serve a channel, or another one than accepted it: each tells its part, and the
parts put together are the whole."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventing.errors import ChannelUnavailableError
from eventing.journal.documents import Match, Trace
from eventing.journal.failures import FailureLog
from eventing.journal.joined import joined_standing, joined_trace
from eventing.journal.standing import standing
from eventing.journal.story import trace
from eventing.journal.tail import Wanted, feed
from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.shared_log import SharedLog, SharedLogFactory


@asynccontextmanager
async def serving(log: SharedLog, *processes: str) -> AsyncIterator[tuple[list[DataPlaneRig], Sink]]:
    """A rig for each process, on one log, and a sink."""
    factory = SharedLogFactory(log)
    async with Sink() as sink, asyncio.timeout(30):
        rigs = [DataPlaneRig(process=process, factory=factory, workers=len(processes)) for process in processes]
        entered = [await rig.__aenter__() for rig in rigs]
        try:
            yield entered, sink
        finally:
            for rig in entered:
                await rig.__aexit__(None, None, None)


async def until(probe: Callable[[], Awaitable[Any]]) -> Any:
    while not (found := await probe()):
        await asyncio.sleep(0.005)
    return found


async def asked(query: str, *rigs: DataPlaneRig) -> Trace:
    return joined_trace([await trace(rig.journal, query) for rig in rigs])


async def states(query: str, *rigs: DataPlaneRig) -> dict[str, str]:
    return {each.uid: each.state for match in (await asked(query, *rigs)).matches for each in match.deliveries}


async def ended(query: str, *rigs: DataPlaneRig) -> Match:
    async def probe() -> Match | None:
        matches = (await asked(query, *rigs)).matches
        ends = matches and matches[0].deliveries and all(each.state != "pending" for each in matches[0].deliveries)
        return matches[0] if ends else None

    found: Match = await until(probe)
    return found


async def test_accepted_by_one_process_and_delivered_by_others() -> None:
    log = SharedLog()
    async with serving(log, "one", "two", "three") as ((one, two, three), sink):
        log.owners |= {"a": "one", "b": "two", "c": "three", "d": "three"}
        for rig in (one, two, three):
            rig.channel("orders", *(subscriber(uid, f"{sink.url}/{uid}", backoff_delay="PT0.01S") for uid in "abcd"))
        sink.script("/b", Answer(503, (("x-reason", "busy"),)))
        receipt = await one.accepted(make_event("1"))
        whole = await ended(receipt, one, two, three)
        assert (whole.receipt, whole.acceptance, whole.channel) == (receipt, "here", "default/orders")
        assert whole.from_.startswith("127.0.0.1:")
        assert {each.uid: (each.state, len(each.attempts)) for each in whole.deliveries} == {
            "a": ("delivered", 1), "b": ("delivered", 2), "c": ("delivered", 1), "d": ("delivered", 1),
        }  # fmt: skip
        # Each alone tells what it knows: the one that accepted it, to whom it was due; the others, what they did.
        assert await states(receipt, one) == {"a": "delivered", "b": "pending", "c": "pending", "d": "pending"}
        (part,) = (await asked(receipt, two)).matches
        assert (part.receipt, part.acceptance, part.from_, part.id) == (receipt, "elsewhere", "", "1")
        assert [(each.uid, each.state) for each in part.deliveries] == [("b", "delivered")]
        assert part.deliveries[0].attempts[0].response is not None
        assert part.deliveries[0].attempts[0].response.headers["x-reason"] == "busy"
        assert part.data.text == '{"n":1}'
        assert await states("1", three) == {"c": "delivered", "d": "delivered"}, "one story of both"
        assert whole == (await asked("1", three, one, two)).matches[0], "whoever is asked first, by whatever name"


async def test_tail_and_logs_name_the_receipt_that_the_producer_got(caplog: pytest.LogCaptureFixture) -> None:
    log = SharedLog()
    async with serving(log, "one", "two") as ((one, two), sink):
        log.owners["s"] = "two"
        sink.always("/", Answer(400))
        for rig in (one, two):
            rig.channel("orders", subscriber("s", sink.url))
        after = (await feed(two.journal, "", Wanted())).next
        receipt = await one.accepted(make_event("1"))
        await ended(receipt, one, two)
        entries = (await feed(two.journal, after, Wanted(type="com.example.order"))).entries
        assert [(each.kind, each.receipt, each.id) for each in entries] == [("attempt", receipt, "1")] * 2
        assert {vars(record).get("receipt") for record in caplog.records if record.message == "event dropped"} == {receipt}
        situations = [(rig, rig.table.situation("default/s")) for rig in (one, two)]
        stands = joined_standing([await standing(rig.journal, situation) for rig, situation in situations if situation])
        assert (stands.counts.accepted, stands.counts.dropped) == (1, {"NoDeadLetterSink": 1})
        assert stands.last_failure is not None
        assert (stands.last_failure.id, stands.last_failure.receipt) == ("1", receipt)


async def test_what_an_earlier_process_accepted_is_known_to_the_next(tmp_path: Any) -> None:
    """What it dropped before is on the disk, and the rest comes out of the channel again."""
    log = SharedLog()
    async with serving(log, "embedded") as ((first,), sink), asyncio.TaskGroup() as tasks:
        failures = FailureLog(tmp_path, first.journal)
        failures.open()
        failures.start(tasks)
        sink.always("/dropped", Answer(400))
        sink.always("/waits", Answer(503))
        first.channel(
            "orders",
            subscriber("dropped", f"{sink.url}/dropped"),
            subscriber("waits", f"{sink.url}/waits", retry=9, backoff_delay="PT300S"),
        )
        receipt = await first.accepted(make_event("1"))

        async def attempted() -> bool:
            (match,) = (await asked(receipt, first)).matches
            return [(each.state, bool(each.attempts)) for each in match.deliveries] == [("dropped", True), ("pending", True)]

        await until(attempted)
        await failures.aclose()
    async with serving(log, "embedded") as ((second,), sink):
        again = FailureLog(tmp_path, second.journal)
        second.channel("orders", subscriber("dropped", f"{sink.url}/"), subscriber("waits", f"{sink.url}/"))
        for query in (receipt, "1"):

            async def told(query: str = query) -> Match | None:
                matches = (await trace(second.journal, query, recorded=again.find)).matches
                assert len(matches) <= 1
                return (
                    matches[0] if matches and {each.state for each in matches[0].deliveries} == {"dropped", "delivered"} else None
                )

            match = await until(told)
            assert match.receipt == receipt
            assert match.kept == "memory"
            assert {each.uid: each.state for each in match.deliveries} == {"dropped": "dropped", "waits": "delivered"}


async def test_delivered_before_it_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel hands an event out before its producer's acknowledgement has come back."""
    monkeypatch.setattr("eventing.journal.tail.STORING_S", 60.0)  # however slow this machine is
    log = SharedLog()
    acknowledged = asyncio.Event()
    log.ack = acknowledged.wait
    async with serving(log, "embedded") as ((rig,), sink):
        rig.channel("orders", subscriber("s", sink.url))
        after = (await feed(rig.journal, "", Wanted())).next
        sent = asyncio.ensure_future(rig.publish(make_event("1")))
        await until(lambda: asyncio.sleep(0, len(sink.requests) == 1))
        assert not sent.done()
        assert (await feed(rig.journal, after, Wanted())).entries == [], "nothing is told of it before it has a name"
        acknowledged.set()
        receipt = (await sent).headers["eventing-receipt"]
        match = await ended(receipt, rig)
        assert match.acceptance == "here"
        assert [each.outcome for each in match.deliveries[0].attempts] == ["delivered"]
        assert match.received <= match.deliveries[0].attempts[0].started
        news = (await feed(rig.journal, after, Wanted(), wait_s=10)).entries
        assert [(each.kind, each.id) for each in news] == [("accepted", "1"), ("attempt", "1")]


@pytest.mark.parametrize("stored", [True, False])
async def test_the_channel_does_not_say_in_time_whether_it_is_stored(stored: bool) -> None:
    log = SharedLog()

    async def ack() -> None:
        if not stored:
            log.records.clear()
        raise ChannelUnavailableError("no acknowledgement within 10 s", maybe_stored=True)

    log.ack = ack
    async with serving(log, "embedded") as ((rig,), sink):
        log.owners["s"] = "" if not stored else "embedded"
        rig.channel("orders", subscriber("s", sink.url))
        assert (await rig.publish(make_event("1"))).status == 503

        async def told() -> Match | None:
            matches = (await asked("1", rig)).matches
            return matches[0] if matches and matches[0].deliveries[0].state == ("delivered" if stored else "unknown") else None

        match = await until(told)
        assert match.acceptance == "unconfirmed"
        assert match.deliveries[0].reason == ("" if stored else "Unconfirmed")
