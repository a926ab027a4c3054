"""Publishing to a real RabbitMQ when something is wrong: what is said, how soon, and that it comes right by itself."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from eventing.channels import Channel
from eventing.errors import ChannelError, ChannelFullError, ChannelUnavailableError, EventTooLargeError
from eventing.event import Event
from eventing.testing.channel_harness import event, ids, stored
from eventing_rabbitmq import publisher
from eventing_rabbitmq.names import queue_of
from tests.contract.rabbitmq_harness import RabbitmqHarness, through_a_proxy
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = pytest.mark.rabbitmq

WITHIN_S = 20.0


@pytest.fixture
async def harness(rabbitmq: RabbitmqBroker) -> AsyncIterator[RabbitmqHarness]:
    harness = RabbitmqHarness(rabbitmq.url)
    await harness.start()
    yield harness
    await harness.aclose()


async def in_the_end(channel: Channel, what: Event) -> float:
    """Publish until it is stored; how long the longest refusal took."""
    longest = 0.0
    async with asyncio.timeout(WITHIN_S):
        while True:
            began = time.monotonic()
            try:
                await stored(channel, what)
            except ChannelUnavailableError as error:
                assert error.retriable
                longest = max(longest, time.monotonic() - began)
                await asyncio.sleep(0.02)
            else:
                return longest


async def refused(channel: Channel, *events: Event) -> ChannelError:
    """The reason for which the batch is refused, as soon as it is."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                await stored(channel, *events)
            except ChannelUnavailableError as error:
                return error
            await asyncio.sleep(0.02)


async def test_events_that_no_queue_takes_are_stored_where_nobody_is_subscribed(harness: RabbitmqHarness) -> None:
    harness.spies = False
    channel = await harness.open()
    await stored(channel, event("1"), event("2"))


async def test_a_binding_that_is_gone_is_known_and_made_again(harness: RabbitmqHarness) -> None:
    harness.spies = False
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, event("before"))
    queue = await harness.amqp.get_queue(queue_of(harness.channel, "uid-1"))
    for routing_key in ("", queue.name):  # a binding for each: which of the two there is makes no difference
        await queue.unbind(harness.exchange, routing_key)
    error = await refused(channel, event("during"))
    assert "bound" in str(error)
    await in_the_end(channel, event("after"))
    assert ids(await subscriber.taken(2)) == ["before", "after"]


async def test_a_missing_exchange_fails_its_own_channel_only_and_is_made_again(
    harness: RabbitmqHarness, rabbitmq: RabbitmqBroker
) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    other = RabbitmqHarness(rabbitmq.url)
    await other.start()
    try:
        quiet = await other.open()
        await stored(channel, event("before"))
        await stored(quiet, event("before"))
        await harness.amqp.exchange_delete(harness.exchange)
        pending = [channel.publish([event("a")]), quiet.publish([event("b")]), quiet.publish([event("c")])]
        results = await asyncio.gather(*(future for future in pending if future is not None), return_exceptions=True)
        assert isinstance(results[0], ChannelUnavailableError)
        assert results[1:] == [None, None]
        await in_the_end(channel, event("after"))
        assert ids(await subscriber.taken(2)) == ["before", "after"]
    finally:
        await other.aclose()


async def test_an_alarm_is_said_at_once_and_holds_up_nobody_who_consumes(
    harness: RabbitmqHarness, rabbitmq: RabbitmqBroker
) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, event("before"))
    try:
        await asyncio.to_thread(rabbitmq.memory_alarm)
        began = time.monotonic()
        # The broker says that it blocks a connection when it publishes, so the first one may have to wait for that.
        error = await refused(channel, event("during"))
        assert time.monotonic() - began < publisher.PUBLISH_TIMEOUT_S - 1
        assert "memory" in str(error)
        with pytest.raises(ChannelUnavailableError, match="memory"):
            channel.publish([event("again")])
        (lease,) = await subscriber.taken(1)
        assert subscriber.settle(lease)
    finally:
        await asyncio.to_thread(rabbitmq.end_of_memory_alarm)
    await in_the_end(channel, event("after"))
    seen = set()
    while "after" not in seen:
        seen |= {*ids(await subscriber.taken(1))}
    assert "before" not in seen, "it was acknowledged while the alarm was on"


async def test_what_hangs_fails_at_the_deadline_and_the_connection_is_made_again(
    rabbitmq: RabbitmqBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "PUBLISH_TIMEOUT_S", 1.0)
    async with through_a_proxy(rabbitmq) as (proxy, _, channel):
        await stored(channel, event("before"))
        proxy.half_open()
        began = time.monotonic()
        with pytest.raises(ChannelUnavailableError) as hung:
            await stored(channel, event("during"))
        assert 1.0 <= time.monotonic() - began < 8
        assert hung.value.maybe_stored
        await proxy.resume()
        proxy.cut()
        await in_the_end(channel, event("after"))


async def test_a_queue_that_confirms_nothing_is_asked_anew(
    harness: RabbitmqHarness, rabbitmq: RabbitmqBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is alive, and the queue does not answer, as one without a leader: another AMQP channel may find one."""
    monkeypatch.setattr(publisher, "PUBLISH_TIMEOUT_S", 1.0)
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    await stored(channel, event("before"))
    process = f"'%2F_{queue_of(harness.channel, 'uid-1')}'"
    await asyncio.to_thread(rabbitmq.ctl, "eval", f"sys:suspend({process}).")
    try:
        for _ in range(3):
            error = await refused(channel, event("during"))
            assert isinstance(error, ChannelUnavailableError)
            assert error.maybe_stored
    finally:
        await asyncio.to_thread(rabbitmq.ctl, "eval", f"sys:resume({process}).")
    assert caplog.text.count("confirmed nothing for 1 s, so that its AMQP channel is opened anew") == 1
    await in_the_end(channel, event("after"))
    seen: set[str] = set()
    while "after" not in seen:
        for lease in await subscriber.taken(1):
            seen.add(lease.event.id)
            assert subscriber.settle(lease)
    assert "before" in seen


async def test_a_connection_that_is_cut_fails_what_is_under_way_at_once(rabbitmq: RabbitmqBroker) -> None:
    async with through_a_proxy(rabbitmq) as (proxy, _, channel):
        await stored(channel, event("before"))
        proxy.half_open()
        pending = channel.publish([event("during")])
        assert pending is not None
        proxy.cut()
        async with asyncio.timeout(5):
            with pytest.raises(ChannelUnavailableError) as lost:
                await pending
        assert lost.value.maybe_stored
        await proxy.resume()
        await in_the_end(channel, event("after"))


async def test_a_channel_closes_by_its_deadline_though_nobody_answers(rabbitmq: RabbitmqBroker) -> None:
    """C-25."""
    async with through_a_proxy(rabbitmq) as (proxy, harness, channel):
        subscriber = await harness.subscribe(channel)
        await stored(channel, event("1"))
        await subscriber.taken(1)
        proxy.half_open()
        pending = channel.publish([event("2")])
        assert pending is not None
        began = time.monotonic()
        await channel.aclose(began + 1.0)
        assert time.monotonic() - began < 8, "a second for the deadline, and one for each goodbye"
        with pytest.raises(ChannelUnavailableError):
            await pending


@pytest.mark.timeout(120)
async def test_a_broker_that_is_absent_at_the_start_is_said_and_found_when_it_comes(
    private_rabbitmq: Callable[..., RabbitmqBroker],
) -> None:
    broker = private_rabbitmq()
    harness = RabbitmqHarness(broker.url)
    harness.unprovisioned = True
    channel = await harness.open()
    try:
        error = await refused(channel, event("early"))
        assert f"127.0.0.1:{broker.port}" in str(error)
        with pytest.raises(ChannelUnavailableError):
            channel.publish([event("early")])  # at once: nothing waits for a broker that is known to be away
        await asyncio.to_thread(broker.start)
        await in_the_end(channel, event("1"))
    finally:
        await channel.aclose(time.monotonic() + 5)


@pytest.mark.parametrize("what", ["password", "vhost"])
async def test_a_wrong_way_is_said_without_a_secret_and_left_when_the_settings_change(
    rabbitmq: RabbitmqBroker, what: str
) -> None:
    secret = "not the one"
    wrong = rabbitmq.url_of(password=secret) if what == "password" else rabbitmq.url_of(vhost="elsewhere")
    harness = RabbitmqHarness(rabbitmq.url, through=wrong)
    await harness.start()
    channel = await harness.open()
    try:
        subscriber = await harness.subscribe(channel)
        error = await refused(channel, event("early"))
        assert secret not in str(error) + repr(error)
        assert ("ACCESS_REFUSED" if what == "password" else "elsewhere") in str(error)
        harness.flow_settings.change({"auth.secret.ref.name": "r"}, {"url": rabbitmq.url.encode()}, "knative-eventing/r")
        await in_the_end(channel, event("1"))
        assert ids(await subscriber.taken(1)) == ["1"]
    finally:
        await harness.aclose()


async def test_bytes_that_wait_for_confirms_are_bounded(harness: RabbitmqHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = await harness.open()
    await stored(channel, event("before"))
    monkeypatch.setattr(publisher, "UNCONFIRMED_MAX", 10_000)
    first = channel.publish([event("1", data=b"x" * 20_000)])
    with pytest.raises(ChannelFullError):
        channel.publish([event("2")])
    assert first is not None
    await first
    await stored(channel, event("3"))


async def test_attributes_that_do_not_fit_a_frame_are_refused(harness: RabbitmqHarness) -> None:
    channel = await harness.open()
    attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "ext": "x" * 140_000}
    with pytest.raises(EventTooLargeError):
        channel.publish([Event(attributes)])


async def test_large_data_travels_in_several_frames(harness: RabbitmqHarness) -> None:
    channel = await harness.open()
    subscriber = await harness.subscribe(channel)
    data = bytes(range(256)) * 4096
    await stored(channel, event("large", data=data), event("empty", data=b""))
    large, empty = await subscriber.taken(2)
    assert (large.event.data, empty.event.data) == (data, b"")


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_an_event_that_one_queue_refuses_is_not_accepted_and_the_others_go_on(
    rabbitmq: RabbitmqBroker, queue_type: str
) -> None:
    """The broker answers Nack where any of the queues does not take it (here: a policy bounds one). The others have it all the same,
    and the producer, who is told to send it again, is not told otherwise."""
    harness = RabbitmqHarness(rabbitmq.url, queue_type)
    harness.spies = False
    await harness.start()
    channel = await harness.open()
    name = uuid.uuid4().hex
    bounded = queue_of(harness.channel, "bounded").replace(".", "\\.")
    policy = '{"max-length": 1, "overflow": "reject-publish"}'
    try:
        free = await harness.subscribe(channel, "free")
        bounding = await harness.subscribe(channel, "bounded", annotations={"eventing-mesh.dev/concurrency": "1"})
        await asyncio.to_thread(rabbitmq.ctl, "set_policy", name, f"^{bounded}$", policy, "--apply-to", "queues")
        accepted: list[str] = []
        error: ChannelUnavailableError | None = None
        async with asyncio.timeout(WITHIN_S):
            while error is None:  # what the process has fetched does not count, and the bound is not exact
                try:
                    await stored(channel, event(str(len(accepted))))
                except ChannelUnavailableError as refusal:
                    error = refusal
                else:
                    accepted.append(str(len(accepted)))
        refused_id = str(len(accepted))
        assert error.retriable
        assert error.retry_after
        assert error.maybe_stored, "the other queue has it"
        assert "full" in str(error)
        assert ids(await free.taken(len(accepted) + 1)) == [*accepted, refused_id]
        with pytest.raises(ChannelUnavailableError):
            await stored(channel, event("refused"), event("too"))
        for lease in await bounding.taken(len(accepted)):
            assert bounding.settle(lease)
        await in_the_end(channel, event("after"))
        after = ids(await bounding.taken(1))
        assert after == ["after"], "nothing of what was refused is in the queue that refused it"
        assert "after" in ids(await free.taken(3))
        await refused(channel, event("again"))
        await asyncio.to_thread(rabbitmq.ctl, "clear_policy", name)
        await in_the_end(channel, event("unbounded"))
    finally:
        await harness.aclose()  # a policy that is left behind is for a queue that is gone
