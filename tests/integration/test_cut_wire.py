"""The wire cut by a TCP proxy, before the ingress and before a subscriber: at every place of a request and its answer, at random,
for a while. What was acknowledged is delivered, what did not come whole is not accepted, and nothing is altered."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventing.bindings.http import event_head, payload
from eventing.testing.clock import VirtualClock
from eventing.testing.ledger import Ledger
from eventing.testing.proxy import TcpProxy
from eventing.testing.sinks import Sink
from eventing.wire.server import ServerLimits
from tests.support.data_plane import DataPlaneRig, make_event, read_response, subscriber

BODY = b'{"n":1, "text":"0123456789"}'
# Retried soon and often: the wire is cut once or for a while, the subscriber is well.
SOON: dict[str, Any] = {"retry": 20, "backoff_policy": "linear", "backoff_delay": "PT0.01S"}


@pytest.fixture
async def mesh() -> AsyncIterator[DataPlaneRig]:
    async with DataPlaneRig() as mesh:
        yield mesh


def request_of(identity: str) -> bytes:
    event = make_event(identity, BODY)
    return b"POST /default/orders HTTP/1.1\r\nhost: x\r\n" + event_head(event) + payload(event)


async def post(port: int, sent: bytes) -> bool:
    """Send over a connection of its own; whether it was acknowledged. A cut connection is no answer."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        return (await read_response(reader)).status == 202
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()
            await asyncio.sleep(0)


def book(ledger: Ledger, sink: Sink) -> None:
    for received in sink.requests:
        assert received.body == BODY
        assert received.event_id is not None
        ledger.deliver("s", received.event_id)


async def test_before_the_ingress_at_every_place_of_the_request_and_its_answer(mesh: DataPlaneRig, sink: Sink) -> None:
    mesh.channel("orders", subscriber("s", sink.url + "/"))
    ledger = Ledger()
    async with TcpProxy("127.0.0.1", mesh.port) as proxy:
        length = len(request_of("000"))
        answer = 90  # bytes at least, of the answer to it
        for place in range(length + answer):
            identity = f"{place:03}"
            ledger.send(identity, ["s"])
            before = mesh.journal.accepted_events
            proxy.cut_after(place)
            assert not await post(proxy.port, request_of(identity))
            if place < length:
                assert mesh.journal.accepted_events == before, "a request that did not come whole was accepted"
            # A producer that has no answer sends it again.
            assert await post(proxy.port, request_of(identity))
            ledger.acknowledge(identity)
        await mesh.quiet()
        book(ledger, sink)
        ledger.check(duplicates_at_most=answer)
        assert ledger.duplicates == answer, "what was accepted and not acknowledged came twice"
    async with asyncio.timeout(10):
        while mesh.server.connections:
            await asyncio.sleep(0.01)


async def test_before_a_subscriber_at_every_place_of_the_request_and_its_answer(mesh: DataPlaneRig, sink: Sink) -> None:
    async with TcpProxy("127.0.0.1", sink.port) as proxy:
        mesh.channel("orders", subscriber("s", f"http://127.0.0.1:{proxy.port}/", **SOON))
        ledger = Ledger()
        await mesh.accepted(make_event("first", BODY))
        await mesh.quiet()
        up, down = proxy.up_bytes, proxy.down_bytes
        sink.requests.clear()
        for place in range(0, up + down, 2):
            identity = f"{place:05}"
            ledger.send(identity, ["s"])
            proxy.cut()  # so that the next one needs a new connection too
            proxy.cut_after(place)
            await mesh.accepted(make_event(identity, BODY))
            ledger.acknowledge(identity)
            await mesh.quiet()
            assert await mesh.ended(identity) == ("delivered", "")
        book(ledger, sink)
        ledger.check(duplicates_at_most=down // 2 + 1)
        assert proxy.connections <= 1
    async with asyncio.timeout(10):
        while mesh.connections.open_connections:
            await asyncio.sleep(0.01)


async def test_cut_at_random_on_both_sides(mesh: DataPlaneRig, sink: Sink) -> None:
    rand = random.Random(20)
    ledger = Ledger()
    async with TcpProxy("127.0.0.1", mesh.port) as near, TcpProxy("127.0.0.1", sink.port) as far:
        mesh.channel("orders", subscriber("s", f"http://127.0.0.1:{far.port}/", **SOON))

        async def produce(number: int) -> None:
            for at in range(40):
                identity = f"{number}-{at}"
                ledger.send(identity, ["s"])
                for _ in range(50):
                    if await post(near.port, request_of(identity)):
                        ledger.acknowledge(identity)
                        break

        async def cut() -> None:
            while True:
                await asyncio.sleep(0.005)
                for proxy in (near, far):
                    chosen = rand.random()
                    if chosen < 0.3:
                        proxy.cut()
                    elif chosen < 0.8:
                        proxy.cut_after(rand.randint(0, 2000))

        cutting = asyncio.create_task(cut())
        await asyncio.gather(*(produce(number) for number in range(5)))
        cutting.cancel()
        await far.resume()
        await mesh.quiet(within=30)
        book(ledger, sink)
        assert len(ledger.acknowledged) == 200
        ledger.check()


async def test_a_subscriber_that_cannot_be_reached_for_a_while(mesh: DataPlaneRig, sink: Sink) -> None:
    async with TcpProxy("127.0.0.1", sink.port) as proxy:
        mesh.channel(
            "orders",
            subscriber("s", f"http://127.0.0.1:{proxy.port}/", retry=200, backoff_policy="linear", backoff_delay="PT0.01S"),
        )
        await mesh.accepted(make_event("0", BODY))
        await mesh.quiet()
        proxy.cut()
        await proxy.refuse()
        await mesh.accepted(make_event("1", BODY))
        async with asyncio.timeout(10):
            while len((await mesh.deliveries("1"))["s"]["attempts"]) < 3:
                await asyncio.sleep(0.005)
        assert (await mesh.deliveries("1"))["s"]["state"] == "pending"
        await proxy.resume()
        assert await mesh.ended("1") == ("delivered", "")
        assert sorted(sink.ids("/")) == ["0", "1"]


def test_a_subscriber_behind_a_half_open_connection_is_tried_again_over_another() -> None:
    """F12: nothing comes back and nothing says so; the time-out does, and the connection is not used again."""
    clock = VirtualClock()

    async def main() -> None:
        async with Sink() as sink, TcpProxy("127.0.0.1", sink.port) as proxy, DataPlaneRig(clock=clock.now) as mesh:
            url = f"http://127.0.0.1:{proxy.port}/"
            mesh.channel("orders", subscriber("s", url, retry=3, timeout="PT5S", backoff_policy="linear", backoff_delay="PT1S"))
            await mesh.accepted(make_event("0", BODY))
            await mesh.quiet(step=0.05)
            proxy.half_open()
            began = clock.now()
            await mesh.accepted(make_event("1", BODY))
            while len((await mesh.deliveries("1"))["s"]["attempts"]) < 1:
                await asyncio.sleep(0.1)
            assert 5 <= clock.now() - began < 5.5
            await proxy.resume()
            assert await mesh.ended("1", within=60, step=0.1) == ("delivered", "")
            assert proxy.accepted >= 2
            ids = [received.event_id for received in sink.requests]
            assert set(ids) == {"0", "1"}

    clock.run(main())


def test_a_client_behind_a_half_open_connection_is_let_go() -> None:
    """F11, F12 before the ingress: half a request, then nothing, for ever."""
    clock = VirtualClock()

    async def main() -> None:
        limits = ServerLimits(head_s=10, body_s=60, idle_s=75)
        async with DataPlaneRig(clock=clock.now, server_limits=limits) as mesh, TcpProxy("127.0.0.1", mesh.port) as proxy:
            mesh.channel("orders")
            whole = request_of("1")
            writers = []
            for part in (whole[:20], whole[:-5], whole):
                _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(part)
                writers.append(writer)
            while proxy.up_bytes < len(whole) * 2 + 15 or not mesh.journal.accepted_events:
                await asyncio.sleep(0.01)
            proxy.half_open()
            for after, left in ((5, 3), (15, 2), (70, 1), (95, 0)):
                while clock.elapsed < after:
                    await asyncio.sleep(0.5)
                assert len(mesh.server.connections) == left, after
            assert mesh.journal.accepted_events == 1
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0)

    clock.run(main())


async def test_latency_costs_time_and_nothing_else(mesh: DataPlaneRig, sink: Sink) -> None:
    async with TcpProxy("127.0.0.1", sink.port) as far, TcpProxy("127.0.0.1", mesh.port) as near:
        mesh.channel("orders", subscriber("s", f"http://127.0.0.1:{far.port}/"))
        far.delay_s = near.delay_s = 0.05
        for number in range(5):
            assert await post(near.port, request_of(str(number)))
        await mesh.quiet()
        assert sorted(received.event_id or "" for received in sink.requests) == ["0", "1", "2", "3", "4"]
