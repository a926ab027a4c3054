"""Publishing to Kafka when something is wrong with it, on a real one behind a proxy that fails on demand."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from eventing.channels import Budget, Channel, ChannelHost
from eventing.errors import ChannelError, ChannelFullError, ChannelUnavailableError, EventTooLargeError
from eventing.testing.channel_harness import WITHIN_S, event, ids, stored
from tests.contract.kafka_harness import KafkaHarness, through_a_proxy, until
from tests.support.kafka.broker import PASSWORD, USER, KafkaBroker

pytestmark = pytest.mark.kafka


@pytest.fixture
async def harness(kafka: KafkaBroker) -> AsyncIterator[KafkaHarness]:
    harness = KafkaHarness(kafka.bootstrap, 2)
    await harness.start()
    yield harness
    await harness.aclose()


def impatient(channel: Channel, timeout_s: float) -> None:
    """Have it give up after so long; nobody who tests wants to wait for ten seconds."""
    channel._producer.timeout_s = timeout_s  # type: ignore[attr-defined]


def our_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the mesh itself wrote. The client's own lines are bounded behind what pytest listens to."""
    return [record.getMessage() for record in caplog.records if not record.name.startswith("aiokafka")]


async def refusal(channel: Channel, *events: Any) -> ChannelError:
    """What becomes of a batch that is not stored."""
    try:
        pending = channel.publish(events)
        assert pending is not None
        async with asyncio.timeout(WITHIN_S):
            await pending
    except ChannelError as error:
        return error
    raise AssertionError("it was stored")


async def works(channel: Channel) -> None:
    """Wait until the channel stores an event again."""
    async with asyncio.timeout(3 * WITHIN_S):
        while True:
            try:
                pending = channel.publish([event("again")])
                assert pending is not None
                return await pending
            except ChannelUnavailableError as error:
                await asyncio.sleep(min(error.retry_after or 0.1, 0.1))


async def test_a_broker_that_does_not_answer_costs_one_time_out_and_then_nothing(
    harness: KafkaHarness, kafka: KafkaBroker
) -> None:
    """C-05: the connection stays open and nobody answers."""
    async with through_a_proxy(harness, kafka) as (proxy, channel):
        await stored(channel, event("before"))
        impatient(channel, 1.0)
        proxy.half_open()
        began = time.monotonic()
        pending = [channel.publish([event(str(number))]) for number in range(8)]
        for each in pending:
            assert each is not None
            with pytest.raises(ChannelUnavailableError, match="acknowledge") as unknown:
                await each
            assert unknown.value.maybe_stored
        assert time.monotonic() - began < 8.0, "they wait side by side"
        # From now on it is known to be away: refused at once, in every partition, by its key and without one.
        for key in ("", "a", "b", "c"):
            with pytest.raises(ChannelUnavailableError) as refused:
                channel.publish([event("refused", key=key)])
            assert not refused.value.maybe_stored
            assert refused.value.retry_after
        await proxy.resume()
        await works(channel)
        # What failed may be stored, what was refused is not, and nothing is stored twice.
        found = await harness.stored()
        assert "refused" not in found
        assert len(set(found) - {"again"}) == len([id_ for id_ in found if id_ != "again"])
        await channel.aclose(time.monotonic() + WITHIN_S)


async def test_a_connection_that_is_cut_under_load_loses_nothing_acknowledged_and_stores_nothing_twice(
    harness: KafkaHarness, kafka: KafkaBroker
) -> None:
    async with through_a_proxy(harness, kafka) as (proxy, channel):
        await stored(channel, event("before"))
        pending = {}
        for number in range(600):
            if number % 200 == 50:
                proxy.cut()
            pending[str(number)] = channel.publish([event(str(number), key=str(number % 7))])
            if number % 20 == 0:
                await asyncio.sleep(0.01)
        outcomes = await asyncio.gather(*(each for each in pending.values() if each is not None), return_exceptions=True)
        acknowledged = [id_ for id_, outcome in zip(pending, outcomes, strict=True) if outcome is None]
        assert len(acknowledged) == 600, "the client tries again by itself"
        found = [id_ for id_ in await harness.stored() if id_ != "before"]
        assert sorted(found) == sorted(acknowledged)
        for key in range(7):
            assert [int(id_) for id_ in await harness.stored() if id_ != "before" and int(id_) % 7 == key] == list(
                range(key, 600, 7)
            ), "the order of a key is kept"
        await channel.aclose(time.monotonic() + WITHIN_S)


async def test_where_no_broker_is_a_publish_is_refused_and_the_log_stays_short(
    harness: KafkaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.settings.change({"bootstrap.servers": "127.0.0.1:9"}, None, "")  # the port of discard, where nobody is
    channel = harness.factory.open(harness.channel, ChannelHost(harness.budget, time.monotonic, settings=harness.settings))
    subscriber = harness.attach(channel)
    error = await refusal(channel, event("1"))
    assert isinstance(error, ChannelUnavailableError)
    assert not error.maybe_stored
    assert "127.0.0.1:9" in str(error)
    began = time.process_time(), time.monotonic()
    with caplog.at_level(logging.INFO):
        caplog.clear()
        while time.monotonic() - began[1] < 2.0:
            with pytest.raises(ChannelUnavailableError) as refused:
                channel.publish([event("2")])
            assert refused.value.retry_after
            await asyncio.sleep(0.05)
        assert len(our_lines(caplog)) < 3
    assert time.process_time() - began[0] < 1.5, "no hot loop"
    assert subscriber.take() == []
    before = time.monotonic()
    await channel.aclose(before + WITHIN_S)
    assert time.monotonic() - before < WITHIN_S


async def test_wrong_credentials_are_said_and_right_ones_taken_up(
    harness: KafkaHarness, kafka: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"bootstrap.servers": kafka.sasl, "auth.secret.ref.name": "login"}
    secret = {"protocol": b"SASL_PLAINTEXT", "sasl.mechanism": b"SCRAM-SHA-256", "user": USER.encode()}
    channel = await harness.open()
    await stored(channel, event("before"))
    await harness.subscribe(channel)
    harness.settings.change(config, secret | {"password": b"not this one"}, "login")
    with caplog.at_level(logging.INFO):
        error = None
        async with asyncio.timeout(WITHIN_S):
            while error is None:
                try:
                    pending = channel.publish([event("unauthenticated")])
                    assert pending is not None
                    await pending
                except ChannelUnavailableError as found:
                    error = found
        assert "not this one" not in caplog.text
        assert len(our_lines(caplog)) < 10
    harness.settings.change(config, secret | {"password": PASSWORD.encode()}, "login")
    await works(channel)


async def test_a_topic_that_is_missing_is_said_to_be_and_disturbs_no_other_channel(
    harness: KafkaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """C-08, C-09."""
    channel = await harness.open()
    await stored(channel, event("before"))
    other = dict(harness.channel, metadata={"name": "nobody-made-it", "namespace": "default", "uid": "u"})
    missing = harness.factory.open(
        other, ChannelHost(harness.budget, time.monotonic, settings=harness.settings, process="first", receipts="first")
    )
    error = await refusal(missing, event("1"))
    assert isinstance(error, ChannelUnavailableError)
    assert "nobody-made-it" in str(error)
    with caplog.at_level(logging.INFO):
        caplog.clear()
        for number in range(20):
            with pytest.raises(ChannelUnavailableError, match="does not exist"):
                missing.publish([event(str(number))])
            await stored(channel, event(str(number)))
        assert len(our_lines(caplog)) < 3
    await missing.aclose(time.monotonic() + WITHIN_S)
    assert len(await harness.stored()) == 21


async def test_a_topic_deleted_underneath_is_refused_and_works_again_when_it_is_back(harness: KafkaHarness) -> None:
    channel = await harness.open()
    await stored(channel, event("old"))
    impatient(channel, 3.0)
    await harness.admin.delete_topics([harness.topic])
    async with asyncio.timeout(3 * WITHIN_S):
        while True:
            try:
                pending = channel.publish([event("lost")])
                assert pending is not None
                await pending
            except ChannelUnavailableError:
                break
    await harness.provisioner.ensure(dict(harness.channel, status={}))
    await works(channel)
    assert "again" in await harness.stored()


async def test_no_client_of_ours_brings_a_deleted_topic_back(private_kafka: Callable[..., KafkaBroker]) -> None:
    """Kafka's default is to make what somebody asks for."""
    broker = private_kafka({"auto.create.topics.enable": "true"})
    await asyncio.to_thread(broker.start)
    harness = KafkaHarness(broker.bootstrap, 2)
    await harness.start()
    try:
        channel = await harness.open()
        subscriber = await harness.subscribe(channel)
        await stored(channel, event("1"))
        await subscriber.taken(1)
        await harness.admin.delete_topics([harness.topic])
        impatient(channel, 1.0)
        told = ""
        async with asyncio.timeout(3 * WITHIN_S):
            while "does not exist" not in told:  # at first it may only have taken too long
                try:
                    await stored(channel, event("lost"))
                except ChannelError as error:
                    told = str(error)
                    await asyncio.sleep(0.05)
        asked = channel._producer._client.client  # type: ignore[attr-defined]
        for _ in range(3):
            await asked.force_metadata_update()
            await subscriber.cursor.member._consumer._client.force_metadata_update()  # type: ignore[attr-defined]
        assert harness.topic not in await harness.admin.list_topics()
    finally:
        await harness.aclose()


async def test_the_topics_own_limit_is_known_and_one_that_falls_later_is_met(harness: KafkaHarness) -> None:
    await harness.provisioner.ensure(harness.channel)
    await harness.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, harness.topic, {"max.message.bytes": "20000"})])
    channel = await harness.open()
    await stored(channel, event("fits", data=b"x" * 15_000))
    assert channel.capabilities.max_event_bytes < 20_000
    with pytest.raises(EventTooLargeError):
        channel.publish([event("large", data=b"x" * 20_000)])

    await harness.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, harness.topic, {"max.message.bytes": "5000"})])
    error: ChannelError | None = None
    async with asyncio.timeout(WITHIN_S):
        while not isinstance(error, EventTooLargeError):  # not every broker knows at once
            try:
                await stored(channel, event("now too large", data=b"x" * 15_000))
            except ChannelError as found:
                error = found
    await stored(channel, event("small"))
    await until(lambda: channel.capabilities.max_event_bytes < 5_000, "the new limit")
    assert "large" not in await harness.stored()


async def test_what_waits_for_the_broker_is_bounded(harness: KafkaHarness, kafka: KafkaBroker) -> None:
    async with through_a_proxy(harness, kafka) as (proxy, channel):
        await stored(channel, event("before"))
        proxy.half_open()
        pending: list[Any] = []
        full = False
        while not full:
            assert len(pending) < 60
            try:
                pending.append(channel.publish([event("x", data=b"x" * 500_000)]))
            except ChannelFullError:
                full = True
        assert len(pending) > 10
        assert harness.budget.used > 10_000_000
        await proxy.resume()
        await asyncio.gather(*pending)
        assert harness.budget.used == 0
        await channel.aclose(time.monotonic() + WITHIN_S)


async def test_a_close_waits_for_what_is_under_way(harness: KafkaHarness) -> None:
    channel = await harness.open()
    pending = [channel.publish([event(str(number))]) for number in range(50)]
    await channel.aclose(time.monotonic() + WITHIN_S)
    assert all(each is not None and each.done() and each.exception() is None for each in pending)
    assert len(await harness.stored()) == 50


async def test_a_future_that_nobody_looks_at_makes_no_noise(harness: KafkaHarness, caplog: pytest.LogCaptureFixture) -> None:
    channel = harness.factory.open(
        harness.channel, ChannelHost(Budget(1 << 30), time.monotonic, settings=harness.settings, process="p", receipts="p")
    )
    channel.publish([event("1")])
    await channel.aclose(time.monotonic())
    import gc

    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_batch_of_events_over_several_partitions_is_stored_when_all_of_it_is(harness: KafkaHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, *(event(str(number), key=str(number)) for number in range(20)))
    records = await harness.records()
    assert {record.partition for record in records} == {0, 1}
    assert all(record.key == dict(record.headers)["ce_partitionkey"] for record in records)
    assert sorted(map(int, ids(await subscriber.taken(20)))) == list(range(20))
