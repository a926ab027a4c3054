"""Faults that last, and faults of the world around: outages of hours, clocks set wrong, names without an address, events that
nobody can digest, a thousand subscriptions. In virtual time.
"""

import asyncio
import base64
import socket
import time
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventing.delivery.resolver import Resolver
from eventing.testing.clock import VirtualClock
from eventing.testing.sinks import Answer, Received, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run, waits

HOUR = 3600


@pytest.mark.parametrize("concurrency", [1, 10])
def test_a_subscriber_that_fails_for_ten_minutes_and_recovers(concurrency: int) -> None:
    """F16: the schedule is followed, the backlog drains no faster than the concurrency allows, in order where that is asked for."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        began = mesh.clock()
        most = 0

        def answer(_received: Received) -> Answer:
            nonlocal most
            most = max(most, mesh.worker("s").under_way)
            return Answer(200 if mesh.clock() - began > 600 else 500)

        sink.otherwise(answer)
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=12, backoff_delay="PT1S", concurrency=concurrency))
        receipts = [await mesh.accepted(make_event(str(number))) for number in range(20)]
        for receipt in receipts:
            assert await mesh.ended(receipt, within=HOUR, step=10) == ("delivered", "")
        first = [received for received in sink.requests if received.event_id == "0"]
        assert waits(first) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
        assert most <= concurrency
        if concurrency == 1:
            ids = [received.event_id for received in sink.requests]
            assert list(dict.fromkeys(ids)) == [str(number) for number in range(20)]

    run(test)


@pytest.mark.parametrize("jump", [-2 * HOUR, 2 * HOUR])
def test_a_calendar_that_jumps_moves_no_retry(jump: int) -> None:
    """F14: waits are of monotonic time. Only a date in Retry-After is judged by the calendar, and capped."""
    clock = VirtualClock()

    async def main() -> None:
        async with Sink() as sink, DataPlaneRig(clock=clock, wall=clock.wall, rand=lambda: 0.0) as mesh:
            sink.otherwise(Answer(500))
            mesh.channel("orders", subscriber("s", sink.url + "/", retry=3, backoff_delay="PT1M"))
            receipt = await mesh.accepted(make_event())
            await sink.received(1)
            clock.jump_wall(jump)
            assert await mesh.ended(receipt, within=HOUR, step=1) == ("dropped", "NoDeadLetterSink")
            assert waits(sink.requests) == [60, 120, 240]

    clock.run(main())


@pytest.mark.parametrize(
    ("code", "said"),
    [(socket.EAI_NONAME, "Name or service not known"), (socket.EAI_AGAIN, "Temporary failure in name resolution")],
)
def test_a_name_without_an_address_ends_with_what_the_system_says(code: int, said: str) -> None:
    """F20."""

    def lookup(_host: str) -> Sequence[str]:
        raise socket.gaierror(code, said)

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", "http://nowhere.example/", retry=1, dead_letter=sink.url + "/dead"))
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, step=0.1) == ("dead-lettered", "Exhausted")
        attempts = (await mesh.deliveries(receipt))["s"]["attempts"]
        assert [attempt["error"] for attempt in attempts[:2]] == [f"NameNotResolved: [Errno {code}] {said}"] * 2
        (letter,) = sink.at("/dead")
        assert said in base64.b64decode(letter.attributes["knativeerrordata"]).decode()

    run(test, resolver=Resolver(lookup))


def test_a_name_that_moves_is_asked_for_again() -> None:
    """An address that nobody listens on any more costs an attempt, not the subscription."""
    addresses = [["127.0.0.2"]]

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", f"http://moving.example:{sink.port}/", backoff_delay="PT10S"))
        receipt = await mesh.accepted(make_event())
        while not (await mesh.deliveries(receipt))["s"]["attempts"]:
            await asyncio.sleep(0.1)
        addresses[0] = ["127.0.0.1"]
        assert await mesh.ended(receipt, within=100, step=0.5) == ("delivered", "")
        assert sink.requests[0].header("host") == f"moving.example:{sink.port}"

    run(test, resolver=Resolver(lambda _host: addresses[0]))


def test_an_event_that_nobody_can_digest_holds_up_no_other() -> None:
    """F21."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        def answer(received: Received) -> Answer:
            return Answer(500) if received.event_id == "3" else Answer(202)

        sink.always("/", answer)
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=3, backoff_delay="PT1M", dead_letter=sink.url + "/dead"))
        began = mesh.clock()
        receipts = [await mesh.accepted(make_event(str(number))) for number in range(50)]
        await sink.received(49 + 1, "/")
        assert mesh.clock() - began < 5, "long before the poisonous one has ended"
        assert await mesh.ended(receipts[3], within=HOUR, step=1) == ("dead-lettered", "Exhausted")
        assert [letter.event_id for letter in sink.at("/dead")] == ["3"]
        assert len([received for received in sink.at("/") if received.event_id == "3"]) == 4

    run(test)


def test_a_thousand_subscriptions_of_one_channel_one_of_them_bad() -> None:
    """F31: they are there within seconds, each gets its event, and the bad one spoils it for nobody."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        entries = [subscriber(f"s{number}", f"{sink.url}/{number}", retry=0) for number in range(1000)]
        entries[500] = subscriber("s500", "gopher://nowhere/", retry=0)
        began = time.process_time()
        mesh.channel("orders", *entries)
        assert time.process_time() - began < 10
        receipt = await mesh.accepted(make_event())
        await mesh.quiet(60)
        deliveries = await mesh.deliveries(receipt)
        assert deliveries["s500"]["attempts"][0]["error"].startswith("AddressDenied: 'gopher://nowhere/': the scheme must be")
        states = [delivery["state"] for uid, delivery in deliveries.items() if uid != "s500"]
        assert states == ["delivered"] * 999
        assert {received.path for received in sink.requests} == {f"/{number}" for number in range(1000)} - {"/500"}
        assert mesh.connections.open_connections <= 64

    run(test)


urls = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}://{}{}".format, st.sampled_from(["http", "https"]), st.text(max_size=8), st.text("/?#%@:[]\\\0\r\n ü.", max_size=8)
    ),
)


@given(urls, urls, urls, st.text(max_size=40))
@settings(max_examples=40, deadline=None, derandomize=True)
@example("http://x/\ud800", "http://\ud800/", "http://x/\ud800", "\ud800")
@example("http://a\0b/", "https://.x/", "http://[::1%eth0]/", "-----BEGIN CERTIFICATE-----\nü\n-----END CERTIFICATE-----")
def test_whatever_stands_for_a_url_the_event_has_an_end(url: str, reply: str, dead: str, authority: str) -> None:
    """Admission lets few of these through; the data plane must outlive the others too."""

    def lookup(host: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"no such name: {host}")

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        odd = subscriber("odd", url, reply=reply, dead_letter=dead, retry=0) | {"subscriberCACerts": authority}
        replying = subscriber("replying", sink.url + "/", reply=reply, retry=0, dead_letter=sink.url + "/dead")
        buried = subscriber("buried", url, dead_letter=sink.url + "/dead", retry=0)
        mesh.channel("orders", odd, replying, buried)
        sink.always("/", Answer.reply(REPLY))
        receipt = await mesh.accepted(make_event())
        for uid in ("odd", "replying", "buried"):
            assert (await mesh.ended(receipt, uid, within=200, step=0.1))[0] in {"dead-lettered", "dropped", "delivered"}
        assert await mesh.ended(receipt, "buried") == await mesh.ended(receipt, "buried")

    run(test, resolver=Resolver(lookup))
