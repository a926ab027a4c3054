"""Sinks that fail at random, in every way there is: the books balance, and nothing is left open. In virtual time, from seeds."""

import asyncio
import tracemalloc
from collections import defaultdict

import pytest

from eventing.testing.ledger import Ledger
from eventing.testing.sinks import Answer, Sink, failing_at_random
from eventing.wire.client import ClientLimits
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run

FAILURES = (
    Answer(500, (), b"no"),
    Answer(503),
    Answer(404),
    Answer(409),
    Answer.retry_after(429, "3"),
    Answer.retry_after(503, "Fri, 01 Jan 2100 00:00:00 GMT"),
    Answer(400, (), b"never"),
    Answer(302, (("location", "/elsewhere"),)),
    Answer.cut(),
    Answer.cut(30),
    Answer.never(),
    Answer(silent_after=40, body=b"x" * 100),
    Answer.slow(),
    Answer.huge(1 << 24),
    Answer(500, padding=1 << 24),
    Answer.endless_headers(),
    Answer.garbage(),
    Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense", close=True),
    Answer.reply({**REPLY, "specversion": "9"}),
)
LIMITS = ClientLimits(body_bytes=4096, header_bytes=4096)
DROPS = {"NoDeadLetterSink", "DeadLetterFailed"}


@pytest.mark.parametrize("seed", range(4))
def test_the_books_balance_and_nothing_is_left_open(seed: int) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        ledger = Ledger()
        success = Answer.reply(REPLY) if seed % 2 else Answer(202)
        for number in range(4):
            sink.always(f"/{number}", failing_at_random(10 * seed + number, 0.5, *FAILURES, success=success))
            sink.always(f"/{number}/reply", failing_at_random(20 * seed + number, 0.3, *FAILURES))
            sink.always(f"/{number}/dead", failing_at_random(30 * seed + number, 0.2, *FAILURES))
        names = [f"s{number}" for number in range(4)]
        mesh.channel(
            "orders",
            *(
                subscriber(
                    name, f"{sink.url}/{number}", reply=f"{sink.url}/{number}/reply" if number < 2 else None,
                    dead_letter=f"{sink.url}/{number}/dead" if number % 2 else None, concurrency=(1, 3, 10, 10)[number],
                    retry=number, timeout="PT2S", retry_after_max="PT10S",
                )
                for number, name in enumerate(names)
            ),
        )  # fmt: skip
        tasks = len(asyncio.all_tasks())
        receipts = {}
        for number in range(40):
            ledger.send(str(number), names)
            receipts[str(number)] = await mesh.accepted(make_event(str(number)))
            ledger.acknowledge(str(number))
        await mesh.quiet(10_000, step=1.0)
        came: defaultdict[str, set[str | None]] = defaultdict(set)
        for received in sink.requests:
            came[received.path[1:]].add(received.event_id)
        for id_, receipt in receipts.items():
            for name, delivery in (await mesh.deliveries(receipt)).items():
                if delivery["state"] == "delivered":
                    ledger.deliver(name, id_)
                    assert id_ in came[name[1:]]
                elif delivery["state"] == "dead-lettered":
                    ledger.dead_letter(name, id_)
                    assert id_ in came[name[1:] + "/dead"]
                elif delivery["state"] == "dropped":
                    ledger.drop(name, id_, delivery["reason"])
                for attempt in delivery["attempts"]:
                    assert attempt["duration_ms"] < 60_000, "also with all attempts that its reply had"
        ledger.check(drops=DROPS)
        await asyncio.sleep(200)  # idle connections are closed
        assert mesh.connections.open_connections == 0
        async with asyncio.timeout(100):
            while sink.open_connections or len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0.1)

    run(test, client_limits=LIMITS)


def test_answers_without_end_cost_no_memory() -> None:
    """F18: a thousand times 16 MiB, or as much as would come, of which the limits take a few KiB."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", failing_at_random(1, 1.0, Answer(500, padding=1 << 24), Answer.endless_headers(), Answer.huge()))
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=1, backoff_delay="PT0S"))
        await mesh.accepted(make_event("first"))
        await mesh.quiet(1000)
        tracemalloc.start()
        for number in range(30):
            await mesh.accepted(make_event(str(number)))
        await mesh.quiet(1000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 << 20

    run(test, client_limits=LIMITS)
