"""Taking and settling on a real Kafka: order, what is committed, and what happens when something is wrong."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from eventing.channels import Channel, Lease, Order
from eventing.testing.channel_harness import WITHIN_S, Subscriber, event, ids, stored, subscription
from eventing_kafka.offsets import AHEAD_MAX, Offsets
from tests.contract.kafka_harness import KafkaHarness, through_a_proxy, until
from tests.support.kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka


@pytest.fixture
async def harness(kafka: KafkaBroker) -> AsyncIterator[KafkaHarness]:
    harness = KafkaHarness(kafka.bootstrap, 3)
    await harness.start()
    yield harness
    await harness.aclose()


@pytest.fixture
async def single(kafka: KafkaBroker) -> AsyncIterator[KafkaHarness]:
    """One partition, so that offsets are what the test says."""
    harness = KafkaHarness(kafka.bootstrap, 1)
    await harness.start()
    yield harness
    await harness.aclose()


async def committed(harness: KafkaHarness, partition: int = 0, uid: str = "uid-1") -> Offsets:
    """What Kafka has of the subscription's place."""
    group = f"kafka.default.{harness.channel['metadata']['name']}.{uid}"
    found = await harness.admin.list_consumer_group_offsets(group)
    return Offsets(*found[TopicPartition(harness.topic, partition)])


async def crash(subscriber: Subscriber) -> None:
    """End the cursor's client as if the process had been killed, but for the group, which it leaves: nothing is committed."""
    member = subscriber.cursor.member  # type: ignore[attr-defined]
    member._task.cancel()
    await asyncio.wait({member._task})


async def test_settled_events_are_recorded_within_a_second_also_beyond_unsettled_ones(single: KafkaHarness) -> None:
    """C-16."""
    channel = await single.open()
    subscriber = await single.subscribe(channel)
    await stored(channel, *(event(str(number)) for number in range(10)))
    leases = {lease.event.id: lease for lease in await subscriber.taken(10)}
    for id_ in ("1", "9", "4"):
        assert subscriber.settle(leases[id_])
    began = time.monotonic()
    while (place := await committed(single)).position == 0 and not place.settled_beyond:
        assert time.monotonic() - began < WITHIN_S
        await asyncio.sleep(0.01)
    assert [offset for offset in range(10) if place.arrived(offset)] == [0, 2, 3, 5, 6, 7, 8]
    assert subscriber.settle(leases["0"])
    async with asyncio.timeout(WITHIN_S):
        while (await committed(single)).position != 2:
            await asyncio.sleep(0.01)

    # What was settled after the last commit comes again after a crash; what was before it does not.
    await crash(subscriber)
    assert subscriber.settle(leases["2"])
    again = single.attach(await single.open("second"))
    assert ids(await again.taken(6)) == ["2", "3", "5", "6", "7", "8"]
    assert again.take() == []


async def test_partitions_go_on_side_by_side_and_each_in_its_order(harness: KafkaHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel, order=Order.PARTITION)
    await stored(channel, *(event(f"{number}", key=f"key-{number % 12}") for number in range(120)))
    partitions = {dict(record.headers)["ce_id"].decode(): record.partition for record in await harness.records()}
    assert len(set(partitions.values())) == 3
    leases = await subscriber.taken(3)
    assert sorted(partitions[lease.event.id] for lease in leases) == [0, 1, 2], "one of each, and no more"
    assert subscriber.take() == []
    stuck, *_ = leases
    assert subscriber.cursor.defer(stuck, time.monotonic() + 3600)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    rest = sum(partition != partitions[stuck.event.id] for partition in partitions.values())
    leases = leases[1:]
    while sum(map(len, seen.values())) < rest:
        for lease in leases:
            seen[partitions[lease.event.id]].append(int(lease.event.id))
            assert subscriber.settle(lease)
        leases = await subscriber.taken(1) if sum(map(len, seen.values())) < rest else []
    assert seen[partitions[stuck.event.id]] == []
    assert all(order == sorted(order) for order in seen.values())
    assert subscriber.take() == []


async def test_keys_go_on_side_by_side_and_each_in_its_order(harness: KafkaHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel, order=Order.KEY)
    await stored(channel, *(event(f"{number}", key=f"key-{number % 12}") for number in range(60)), event("keyless"))
    first = await subscriber.taken(13)
    assert sorted(ids(first)) == sorted([*(str(number) for number in range(12)), "keyless"])
    assert subscriber.take() == []
    deferred = next(lease for lease in first if lease.event.id == "5")
    assert subscriber.cursor.defer(deferred, time.monotonic() + 3600)
    seen = [lease for lease in first if lease is not deferred]
    for lease in seen:
        assert subscriber.settle(lease)
    while len(seen) < 61 - 5:
        for lease in await subscriber.taken(1):
            assert subscriber.settle(lease)
            seen.append(lease)
    assert {int(lease.event.id) % 12 for lease in seen if lease.event.id != "keyless"} == set(range(12)) - {5}
    for key in range(12):
        of_key = [int(id_) for id_ in ids(seen) if id_ != "keyless" and int(id_) % 12 == key]
        assert of_key == sorted(of_key)
    assert subscriber.take() == []


async def test_the_order_may_change_while_events_are_out_and_deferred(single: KafkaHarness) -> None:
    channel = await single.open()
    subscriber = await single.subscribe(channel, order=Order.NONE)
    await stored(channel, *(event(str(number), key=str(number % 2)) for number in range(12)))
    first = await subscriber.taken(4)
    assert ids(first) == ["0", "1", "2", "3"]
    assert subscriber.cursor.defer(first[1], time.monotonic() + 0.05)
    subscriber.cursor.reorder(Order.PARTITION)
    assert subscriber.settle(first[0])
    assert subscriber.settle(first[2])
    assert subscriber.settle(first[3])
    assert subscriber.take() == [], "one of the partition is deferred"
    again = await subscriber.taken(1)
    assert ids(again) == ["1"]
    assert subscriber.take() == []
    subscriber.cursor.reorder(Order.KEY)
    other_key = await subscriber.taken(1)
    assert ids(other_key) == ["4"]
    assert subscriber.take() == []
    for lease in (*again, *other_key):
        assert subscriber.settle(lease)
    subscriber.cursor.reorder(Order.NONE)
    assert ids(await subscriber.taken(7)) == [str(number) for number in range(5, 12)]
    with pytest.raises(ValueError, match="nonsense"):
        subscriber.cursor.reorder(type("NoOrder", (), {"value": "nonsense"})())


async def test_records_that_are_no_events_are_delivered_as_such_and_hold_nothing_up(single: KafkaHarness) -> None:
    channel = await single.open()
    subscriber = await single.subscribe(channel, order=Order.PARTITION)
    plain = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/elsewhere"), ("ce_type", b"t")]
    await single.produce(b"no event", [("X-Foo", b"bar")], key=b"k\xff")
    await single.produce(None, key=b"tombstone")
    await single.produce(b"x", [*plain[:3], ("ce_type", b"\xff")])
    await single.produce(
        b'{"specversion":"1.0","id":"json","source":"/s","type":"t"}', [("content-type", b"application/cloudevents+json")]
    )
    await single.produce(b"data", plain)
    await stored(channel, event("own"))
    seen = []
    for _ in range(6):
        (lease,) = await subscriber.taken(1)
        seen.append(lease.event)
        assert subscriber.settle(lease)
    assert [each.id for each in seen] == [*(f"partition:0/offset:{offset}" for offset in range(3)), "json", "1", "own"]
    assert [each.data for each in seen[:3]] == [b"no event", b"", b"x"]
    assert seen[0].attributes["kafkaheaderxfoo"] == "bar"
    assert seen[0].source.endswith(f"/kafkachannels/{single.channel['metadata']['name']}#{single.topic}")
    async with asyncio.timeout(WITHIN_S):
        while (await committed(single)).position != 6:
            await asyncio.sleep(0.01)
    assert [origin for _, origin in subscriber.consumer.arrivals] == [""] * 5


async def test_what_retention_takes_away_is_reported_and_passed_over(
    single: KafkaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """C-26: the broker's retention is the bound."""
    channel = await single.open()
    subscriber = await single.subscribe(channel)
    await stored(channel, *(event(str(number)) for number in range(10)))
    leases = await subscriber.taken(10)
    assert subscriber.settle(leases[0])
    await channel.aclose(time.monotonic() + WITHIN_S)
    await single.admin.delete_records({TopicPartition(single.topic, 0): RecordsToDelete(before_offset=6)})
    with caplog.at_level(logging.WARNING):
        reopened = await single.open("second")
        again = single.attach(reopened)
        assert ids(await again.taken(4)) == ["6", "7", "8", "9"]
    assert [record.levelname for record in caplog.records if "retention" in record.getMessage()] == ["WARNING"]
    assert "offsets 1 to 5" in caplog.text
    assert again.cursor.lag().events == 4


async def test_a_topic_made_anew_under_the_same_name_is_read_from_its_beginning(single: KafkaHarness) -> None:
    channel = await single.open()
    subscriber = await single.subscribe(channel)
    await stored(channel, *(event(f"old-{number}") for number in range(5)))
    held, *others = await subscriber.taken(5)
    for lease in others:
        assert subscriber.settle(lease)
    await single.admin.delete_topics([single.topic])
    await until(lambda: held.lost, "the loss of what is of the old topic")
    assert not subscriber.settle(held)
    assert ids(subscriber.consumer.gone) == [held.event.id]
    await single.provisioner.ensure(dict(single.channel, status={}))
    fresh = await single.open("second")
    await stored(fresh, *(event(f"new-{number}") for number in range(3)))
    async with asyncio.timeout(3 * WITHIN_S):
        leases: list[Lease] = []
        while len(leases) < 3:
            leases += subscriber.take()
            await asyncio.sleep(0.01)
    assert ids(leases) == ["new-0", "new-1", "new-2"]


async def test_a_member_that_comes_and_goes_takes_and_brings_back_and_nothing_is_lost(harness: KafkaHarness) -> None:
    """C-21: what is kept through a rebalance is not lost, and what is read after it is not thrown away."""
    first, second = await harness.open("first"), await harness.open("second")
    one = await harness.subscribe(first)
    await stored(first, event("warm-up"))
    assert one.settle((await one.taken(1))[0])
    published = 0
    ended: set[str] = set()

    async def publish_and_settle(count: int, *subscribers: Subscriber) -> None:
        nonlocal published
        expected = {f"{published + number}" for number in range(count)}
        await stored(first, *(event(id_, key=id_) for id_ in sorted(expected)))
        published += count
        async with asyncio.timeout(3 * WITHIN_S):
            while not expected <= ended:
                for subscriber in subscribers:
                    for lease in subscriber.take():
                        if subscriber.settle(lease):
                            ended.add(lease.event.id)
                await asyncio.sleep(0.01)

    async def visit() -> None:
        await publish_and_settle(20, one)
        two = harness.attach(second)
        await publish_and_settle(20, one, two)
        cursor: Any = two.cursor
        await until(lambda: cursor.partitions and not cursor.in_doubt, "its share")
        await publish_and_settle(20, one, two)
        await cursor.detach(time.monotonic() + WITHIN_S)

    await visit()
    await visit()
    await publish_and_settle(20, one)
    assert not one.consumer.reentered
    await until(lambda: one.cursor.lag().events == 0, "an empty backlog")


async def test_a_connection_that_is_cut_costs_no_lease(harness: KafkaHarness, kafka: KafkaBroker) -> None:
    async with through_a_proxy(harness, kafka) as (proxy, channel):
        subscriber = await harness.subscribe(channel)
        await stored(channel, *(event(str(number), key=str(number)) for number in range(10)))
        leases = await subscriber.taken(10)
        proxy.cut()
        await stored(channel, *(event(f"new-{number}", key=str(number)) for number in range(10)))
        new = await subscriber.taken(10)
        assert all(id_.startswith("new") for id_ in ids(new))
        assert all(subscriber.settle(lease) for lease in [*leases, *new])
        await channel.aclose(time.monotonic() + WITHIN_S)


async def test_a_client_whose_reading_has_ended_is_replaced(harness: KafkaHarness) -> None:
    """Its reading is a task of its own, of whose end it says nothing."""
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, event("1", key="1"), event("2", key="2"))
    one, two = await subscriber.taken(2)
    assert subscriber.settle(one)
    consumer = subscriber.cursor.member._consumer  # type: ignore[attr-defined]
    consumer._fetcher._fetch_task.cancel()
    await stored(channel, event("3"))
    assert ids(await subscriber.taken(1)) == ["3"]
    assert subscriber.settle(two), "its partition came back, and nobody else had it"


async def test_where_no_broker_is_at_first_events_come_when_it_is_there(harness: KafkaHarness, kafka: KafkaBroker) -> None:
    settings = harness.settings.config
    await stored(channel := await harness.open(), event("before"))
    await (await harness.subscribe(channel)).cursor.detach(time.monotonic() + WITHIN_S)
    await stored(channel, event("due"))
    harness.settings.change({"bootstrap.servers": "127.0.0.1:9"}, None, "")
    later = await harness.open("second")
    subscriber = harness.attach(later)
    await asyncio.sleep(0.1)
    assert subscriber.take() == []
    harness.settings.change(settings, None, "")
    assert ids(await subscriber.taken(1)) == ["due"]


async def test_the_way_to_kafka_may_change_and_nothing_is_lost(harness: KafkaHarness, kafka: KafkaBroker) -> None:
    async with kafka.proxy() as proxy:
        channel = await harness.open()
        subscriber = await harness.subscribe(channel)
        await stored(channel, *(event(str(number)) for number in range(10)))
        leases = await subscriber.taken(10)
        for lease in leases[:6]:
            assert subscriber.settle(lease)
        pending = channel.publish([event("under way")])
        harness.settings.change({"bootstrap.servers": f"127.0.0.1:{proxy.port}"}, None, "")
        assert pending is not None
        await pending
        await stored(channel, event("after"))
        rest = {lease.event.id for lease in leases[6:]} | {"under way", "after"}
        assert set(ids(await subscriber.taken(6))) == rest
        assert proxy.accepted > 0
        await channel.aclose(time.monotonic() + WITHIN_S)


async def test_an_event_that_waits_for_long_lets_so_many_pass_and_no_more(single: KafkaHarness) -> None:
    """C-18: what may be settled beyond it fits the commit's metadata."""
    channel = await single.open()
    subscriber = await single.subscribe(channel)
    total = AHEAD_MAX + 50
    for begin in range(0, total, 1000):
        await stored(channel, *(event(str(number)) for number in range(begin, min(begin + 1000, total))))
    (first,) = await subscriber.taken(1)
    assert subscriber.cursor.defer(first, time.monotonic() + 3600)
    passed = await subscriber.taken(AHEAD_MAX - 1)
    for lease in passed:
        assert subscriber.settle(lease)
    await asyncio.sleep(0.2)
    assert subscriber.take() == []
    assert subscriber.cursor.lag().events == 51
    async with asyncio.timeout(WITHIN_S):
        while (await committed(single)).settled_beyond != AHEAD_MAX - 1:
            await asyncio.sleep(0.05)
    await channel.aclose(time.monotonic() + WITHIN_S)
    again = single.attach(await single.open("second"))
    assert ids(leases := await again.taken(1)) == ["0"]
    assert again.settle(leases[0])
    assert ids(await again.taken(50)) == [str(number) for number in range(AHEAD_MAX, total)]


async def test_what_is_read_ahead_is_bounded_and_the_lag_counts_the_rest(single: KafkaHarness) -> None:
    """C-13, C-23."""
    channel = await single.open()
    subscriber = await single.subscribe(channel)
    data = b"x" * 10_000
    for _ in range(10):
        await stored(channel, *(event(str(number), data=data) for number in range(50)))
    await until(lambda: subscriber.cursor.lag().events == 500, "the whole lag")
    (partition,) = subscriber.cursor.partitions.values()  # type: ignore[attr-defined]
    await until(lambda: partition.unread_bytes, "some of it")  # the end of a partition may be known before anything of it is read
    assert partition.unread_bytes < 1_000_000
    lag = subscriber.cursor.lag()
    assert lag.oldest_s is not None
    assert 0 <= lag.oldest_s < 60
    assert lag.bytes is None, "nobody knows what is not read yet"
    for _ in range(500):
        assert subscriber.settle((await subscriber.taken(1))[0])
    assert subscriber.cursor.lag().events == 0


async def test_a_backlog_in_one_partition_does_not_wait_for_the_others(harness: KafkaHarness) -> None:
    """What is read ahead is gone faster than Kafka answers for partitions in which there is nothing."""
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    total = 5_000
    for begin in range(0, total, 500):
        await stored(channel, *(event(str(number), key="k", data=b"x" * 300) for number in range(begin, begin + 500)))
    began = time.monotonic()
    ended = 0
    while ended < total:
        leases = subscriber.take(50)
        for lease in leases:
            assert subscriber.settle(lease)
        ended += len(leases)
        await asyncio.sleep(0.02)
        assert time.monotonic() - began < 1.5 * WITHIN_S, f"{ended} of {total}"


async def test_a_group_that_is_named_is_the_subscriptions(single: KafkaHarness) -> None:
    channel = await single.open()
    name = f"{single.channel['metadata']['name']}-named"
    annotations = {"group.id": name}
    subscriber = await single.subscribe(channel, "uid-1", annotations=annotations)
    await stored(channel, event("1"), event("2"))
    leases = await subscriber.taken(2)
    assert subscriber.settle(leases[0])
    await subscriber.cursor.detach(time.monotonic() + WITHIN_S)
    found = await single.admin.list_consumer_group_offsets(name)
    assert found[TopicPartition(single.topic, 0)].offset == 1
    resumed = await single.subscribe(channel, "uid-2", annotations=annotations)
    assert ids(await resumed.taken(1)) == ["2"]


@pytest.mark.parametrize(
    ("annotations", "order"),
    [
        ({}, Order.PARTITION),
        ({"kafka.eventing.knative.dev/delivery.order": "unordered"}, Order.NONE),
        ({"kafka.eventing.knative.dev/delivery.order": "ordered"}, Order.PARTITION),
        ({"eventing-mesh.dev/order": "key", "kafka.eventing.knative.dev/delivery.order": "unordered"}, Order.KEY),
        ({"eventing-mesh.dev/order": "none"}, Order.NONE),
        ({"eventing-mesh.dev/order": "subscription"}, Order.PARTITION),
        ({"eventing-mesh.dev/concurrency": "1"}, Order.PARTITION),
    ],
)
async def test_the_order_is_what_the_annotations_ask_for(
    harness: KafkaHarness, annotations: dict[str, str], order: Order
) -> None:
    channel: Channel = await harness.open()
    assert channel.order(subscription("uid-1", annotations)) is order
