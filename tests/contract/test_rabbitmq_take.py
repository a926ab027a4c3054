"""Taking and settling on a real RabbitMQ: waits of every length, what comes again, and what happens when something is wrong."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest

from eventing.channels import Lease, Order
from eventing.testing.channel_harness import WITHIN_S, RecordingConsumer, Subscriber, event, ids, stored, subscription
from eventing_rabbitmq import consuming, delays
from eventing_rabbitmq.names import delay_queue, queue_of
from tests.contract.rabbitmq_harness import RabbitmqHarness, through_a_proxy
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(params=["quorum", "classic"])
async def harness(rabbitmq: RabbitmqBroker, request: pytest.FixtureRequest) -> AsyncIterator[RabbitmqHarness]:
    harness = RabbitmqHarness(rabbitmq.url, request.param)
    await harness.start()
    yield harness
    await harness.aclose()


async def until(what: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.01)


async def depth(harness: RabbitmqHarness, queue: str) -> int:
    """How many messages of a queue are not handed out; 0 where there is no such queue."""
    amqp = await harness.connection.channel()
    try:
        return (await amqp.declare_queue(queue, passive=True)).declaration_result.message_count or 0
    except Exception:  # noqa: BLE001 - whatever aio-pika makes of a 404
        return 0
    finally:
        if not amqp.is_closed:
            await amqp.close()


async def test_what_waits_long_waits_in_the_broker_and_comes_again_with_its_note(
    harness: RabbitmqHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-18: also where the wait is not that of a delay queue, and after a restart of the process."""
    monkeypatch.setattr(delays, "DELAYS_S", (1, 2))
    monkeypatch.setattr(consuming, "_POLL_S", 0.05)
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, event("1", data=b"\x00data"), event("2"))
    first, second = await subscriber.taken(2)
    until_ = time.monotonic() + 3.5
    assert subscriber.cursor.defer(first, until_, b"\x00note\xff")
    assert not subscriber.cursor.settle(first)
    assert subscriber.settle(second)
    queue = queue_of(harness.channel, "uid-1")
    async with asyncio.timeout(WITHIN_S):
        while not await depth(harness, delay_queue(queue, 2)):
            await asyncio.sleep(0.05)
    await until(lambda: not subscriber.cursor._known)  # type: ignore[attr-defined]
    await until(lambda: subscriber.cursor.lag().events == 1)
    assert subscriber.cursor.lag().oldest_s is not None, "it waits, and people ask for how long"
    await channel.aclose(time.monotonic() + WITHIN_S)

    channel = await harness.open("second")
    consumer = RecordingConsumer()
    subscriber = Subscriber(channel.attach(subscription("uid-1"), consumer), consumer)
    (again,) = await subscriber.taken(1)
    assert time.monotonic() >= until_ - 0.01
    assert (again.event.id, again.event.data, again.note) == (first.event.id, first.event.data, b"\x00note\xff")
    assert again.event.attributes == first.event.attributes
    assert again.deliveries >= 1
    assert subscriber.settle(again)


async def test_many_that_wait_hold_nobody_back(harness: RabbitmqHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-18, in order `none`: far more than are attempted at a time, most of them in the process."""
    monkeypatch.setattr(delays, "DELAYS_S", (60,))
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    for batch in range(10):
        await stored(channel, *(event(f"{batch}-{number}") for number in range(50)))
    await stored(channel, event("last"))
    later = time.monotonic() + 600
    soon = time.monotonic() + 59
    last: list[Lease] = []
    taken = 0
    async with asyncio.timeout(30):
        while not last:
            for lease in await subscriber.taken(1, most=1):
                if lease.event.id == "last":
                    last.append(lease)
                else:
                    taken += 1
                    assert subscriber.cursor.defer(lease, later if taken % 10 == 0 else soon)
    assert taken == 500


async def test_a_wait_outlives_the_connection_in_the_process(rabbitmq: RabbitmqBroker) -> None:
    async with through_a_proxy(rabbitmq) as (proxy, harness, channel):
        subscriber = await harness.subscribe(channel)
        await stored(channel, event("waits"), event("out"))
        leases = {lease.event.id: lease for lease in await subscriber.taken(2)}
        assert subscriber.cursor.defer(leases["out"], time.monotonic(), b"once")
        (leases["out"],) = await subscriber.taken(1)
        until_ = time.monotonic() + 3
        assert subscriber.cursor.defer(leases["waits"], until_, b"note")
        proxy.cut()
        await until(lambda: leases["out"].lost)
        assert ids(subscriber.consumer.gone) == ["out"]
        assert not subscriber.cursor.settle(leases["out"])
        (out,) = await subscriber.taken(1)
        assert (out.event.id, out.note) == ("out", b"once")
        assert out.deliveries >= 1
        assert subscriber.settle(out)
        (waited,) = await subscriber.taken(1)
        assert time.monotonic() >= until_ - 0.01
        assert (waited.event.id, waited.note) == ("waits", b"note")
        assert subscriber.settle(waited)


@pytest.mark.timeout(120)
async def test_a_lease_is_given_back_before_the_broker_takes_all(
    private_rabbitmq: Callable[..., RabbitmqBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-19, where the broker means it: it would close the AMQP channel, and take every lease."""
    monkeypatch.setattr(delays, "DELAYS_S", (1, 2))
    broker = private_rabbitmq(properties={"consumer_timeout": "8000"}, tick_ms=500)
    await asyncio.to_thread(broker.start)
    # It is told less than the broker means: a busy machine takes the difference.
    harness = RabbitmqHarness(broker.url, config={"consumer.timeout": "PT5S"})
    await harness.start()
    channel = await harness.open()
    try:
        subscribers = [
            await harness.subscribe(channel, order.value, order, {"eventing-mesh.dev/order": order.value})
            for order in (Order.NONE, Order.SUBSCRIPTION)
        ]
        paused = await harness.subscribe(channel, "paused")
        paused.cursor.pause()
        await until(lambda: all(each.cursor.lag().events is not None for each in (*subscribers, paused)))
        await stored(channel, event("slow"))
        channels = [each.cursor._consuming.amqp for each in (*subscribers, paused)]  # type: ignore[attr-defined]
        slow = [(await each.taken(1))[0] for each in subscribers]
        await until(lambda: all(lease.lost for lease in slow))
        # The one without order waits in the broker, the other here: for longer than the broker would let it.
        until_ = time.monotonic() + 9
        for each, gone in zip(subscribers, slow, strict=True):
            assert ids(each.consumer.gone) == ["slow"]
            assert not each.settle(gone)
            (lease,) = await each.taken(1)
            assert each.cursor.defer(lease, until_, b"note")
        for each in subscribers:
            while not (again := each.take(1)):
                assert time.monotonic() < until_ + WITHIN_S
                await asyncio.sleep(0.01)
            assert time.monotonic() >= until_ - 0.01
            (lease,) = again
            assert (lease.event.id, lease.note) == ("slow", b"note")
            assert each.settle(lease)
        paused.cursor.resume()
        assert ids(await paused.taken(1)) == ["slow"]
        after = [each.cursor._consuming.amqp for each in (*subscribers, paused)]  # type: ignore[attr-defined]
        assert after == channels, "the AMQP channels have lived through all that"
        assert "delivery acknowledgement on channel" not in broker.log()
    finally:
        await harness.aclose()


async def test_one_process_at_a_time_gets_what_is_in_order_and_the_next_goes_on(harness: RabbitmqHarness) -> None:
    """C-20, C-12 over two processes."""
    annotations = {"eventing-mesh.dev/order": "subscription"}
    first = await harness.open("first")
    one = await harness.subscribe(first, order=Order.SUBSCRIPTION, annotations=annotations)
    await until(lambda: one.cursor.lag().events is not None)
    second = await harness.open("second")
    consumer = RecordingConsumer()
    two = Subscriber(second.attach(subscription("uid-1", annotations), consumer, order=Order.SUBSCRIPTION), consumer)
    await until(lambda: two.cursor.lag().events is not None)
    await stored(first, *(event(str(number)) for number in range(6)))
    seen = []
    for _ in range(3):
        (lease,) = await one.taken(1)
        assert one.take() == []
        assert two.take() == []
        seen.append(lease.event.id)
        if lease.event.id != "2":
            assert one.settle(lease)
    await first.aclose(time.monotonic() + WITHIN_S)
    for _ in range(4):
        (lease,) = await two.taken(1)
        seen.append(lease.event.id)
        assert two.settle(lease)
    assert seen == ["0", "1", "2", "2", "3", "4", "5"]


async def test_a_deleted_queue_is_made_again_and_what_is_here_is_kept(harness: RabbitmqHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, event("out"), event("waits"))
    out, waits = await subscriber.taken(2)
    assert subscriber.cursor.defer(waits, time.monotonic() + 1)
    await harness.amqp.queue_delete(queue_of(harness.channel, "uid-1"))
    await until(lambda: subscriber.cursor._consuming.tag == "")  # type: ignore[attr-defined]
    await until(lambda: subscriber.cursor._consuming.tag)  # type: ignore[attr-defined]
    await stored(channel, event("new"))
    assert ids(await subscriber.taken(2)) == ["new", "waits"]
    assert subscriber.settle(out)


async def test_a_message_that_is_no_event_is_delivered_as_one(harness: RabbitmqHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await harness.produce(b"\xffdata", headers={"shop": "berlin", "count": 3, "nested": {"a": 1}}, message_id="m-1")
    (lease,) = await subscriber.taken(1)
    assert (lease.event.id, lease.event.type, lease.event.data) == ("m-1", "dev.knative.rabbitmq.event", b"\xffdata")
    assert lease.event.attributes["rabbitmqheadercount"] == "3"
    assert subscriber.consumer.arrivals == [("m-1", "")]
    assert subscriber.settle(lease)


async def test_an_event_of_another_producer_is_read(harness: RabbitmqHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    headers = {"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents:source": "/s", "cloudEvents:type": "t"}
    await harness.produce(b"{}", headers=headers, content_type="application/json")
    (lease,) = await subscriber.taken(1)
    assert lease.event.attributes == {
        "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "datacontenttype": "application/json"
    }  # fmt: skip


async def test_lag_counts_what_is_in_the_queue_and_what_is_here(
    harness: RabbitmqHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-23; each of two processes counts its share of what is in the queue."""
    monkeypatch.setattr(consuming, "_POLL_S", 0.1)
    first = await harness.open("first")
    few = {"eventing-mesh.dev/concurrency": "1", "eventing-mesh.dev/order": "none"}
    one = await harness.subscribe(first, annotations=few)
    second = await harness.open("second")
    consumer = RecordingConsumer()
    two = Subscriber(second.attach(subscription("uid-1", few), consumer), consumer)
    await stored(first, *(event(str(number)) for number in range(101)))

    def together() -> int:
        return sum(each.cursor.lag().events or 0 for each in (one, two))

    await until(lambda: together() in {101, 102})
    for each in (one, two):
        for lease in await each.taken(5, most=5):
            assert each.settle(lease)
    await until(lambda: together() in {91, 92})
    lag = one.cursor.lag()
    assert lag.oldest_s is not None
    assert 0 <= lag.oldest_s < 60
    assert lag.bytes is None
    assert time.monotonic() - lag.as_of < 15


@pytest.mark.parametrize("harness", ["quorum"], indirect=True)  # a classic queue counts all its consumers
async def test_the_process_that_does_not_have_an_ordered_queue_counts_nothing_and_stays_calm(
    harness: RabbitmqHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C-23. RabbitMQ hands it nothing for as long as the other one lives, and does not say so."""
    monkeypatch.setattr(consuming, "_POLL_S", 0.1)
    first = await harness.open("first")
    ordered = {"eventing-mesh.dev/concurrency": "1"}
    one = await harness.subscribe(first, annotations=ordered, order=Order.SUBSCRIPTION)
    await stored(first, *(event(str(number)) for number in range(20)))
    (lease,) = await one.taken(1)
    second = await harness.open("second")
    consumer = RecordingConsumer()
    two = Subscriber(second.attach(subscription("uid-1", ordered), consumer, order=Order.SUBSCRIPTION), consumer)
    with caplog.at_level(logging.INFO):
        await until(lambda: caplog.text.count("opened anew") == 4)
    at = [each.created for each in caplog.records if "opened anew" in each.message]
    assert at[3] - at[2] > 0.75, "it asks again less and less often: 8 times what it first waits"
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    await until(lambda: (one.cursor.lag().events, two.cursor.lag().events) == (20, 0))
    assert one.settle(lease)
    await first.aclose(time.monotonic() + 10)
    assert ids(await two.taken(1)) == ["1"]
    await until(lambda: two.cursor.lag().events == 19)


async def test_other_concurrency_and_order_apply_to_what_comes(harness: RabbitmqHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, *(event(str(number)) for number in range(10)))
    early = await subscriber.taken(3)
    subscriber.cursor.reorder(Order.SUBSCRIPTION)
    assert subscriber.take() == [], "three are out"
    for lease in early:
        assert subscriber.settle(lease)
    seen = ids(early)
    for _ in range(7):
        (lease,) = await subscriber.taken(1)
        assert subscriber.take() == []
        seen.append(lease.event.id)
        assert subscriber.settle(lease)
    assert seen == [str(number) for number in range(10)]


async def test_a_deleted_delay_queue_is_made_again(harness: RabbitmqHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no event is acknowledged that has not got there."""
    monkeypatch.setattr(delays, "DELAYS_S", (1,))
    monkeypatch.setattr(consuming, "_POLL_S", 0.05)
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, event("1"), event("2"))
    first, second = await subscriber.taken(2)
    assert subscriber.cursor.defer(first, time.monotonic() + 1)
    assert len(await subscriber.taken(1)) == 1
    await harness.amqp.queue_delete(delay_queue(queue_of(harness.channel, "uid-1"), 1))
    assert subscriber.cursor.defer(second, time.monotonic() + 1)
    assert ids(await subscriber.taken(1)) == ["2"]
    await stored(channel, event("3"))
    assert ids(await subscriber.taken(1)) == ["3"]
