"""The one producer of a process for each way to Kafka: connects and connects again, hands batches to aiokafka, judges what fails.

aiokafka's idempotent producer retries for as long as it takes and has no time-out (docs/decisions/0002-channel-port.md, C-05),
so the deadline is kept here: what is not acknowledged within `timeout_s` fails with `maybe_stored`, and its partition refuses
until the client is done with it. An error that breaks the idempotent sequence (whatever the broker refused for good) ends the
client: a new one takes over at the next batch.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest

from eventing.channels import Budget
from eventing_kafka import clients
from eventing_kafka.client_log import bound_client_log
from eventing_kafka.connections import refusal
from eventing_kafka.settings import KafkaSettings
from eventing_kafka.topic import BATCH_BYTES, MAX_MESSAGE_BYTES, Batch, Topic

__all__ = ["PUBLISH_TIMEOUT_S", "Producer", "lease_producer"]

logger = logging.getLogger(__name__)

PUBLISH_TIMEOUT_S: Final = 10.0
REQUEST_TIMEOUT_MS: Final = 8_000
_REPLICAS_MS: Final = 5_000
_SWEEP_S: Final = 0.5
_START_S: Final = 2 * REQUEST_TIMEOUT_MS / 1000
_BACKOFF_S: Final = (0.2, 5.0)  # between attempts to connect: from, to
_LOOK_S: Final = 300.0  # between looks at a topic's partitions and largest message
_LOOK_AGAIN_S: Final = (0.1, 2.0)  # while it is missing: from, to
_PATIENCE_S: Final = 3.0  # a topic that has just been made is not known to every broker at once
_TOPIC_RESOURCE: Final = 2
_MAX_REQUEST: Final = 64 << 20


_producers: dict[tuple[asyncio.AbstractEventLoop, KafkaSettings, str, str], "Producer"] = {}


def lease_producer(settings: KafkaSettings, client_id: str, receipts: str, clock: Callable[[], float]) -> "Producer":
    """The producer of this loop for these settings; `release` it when done."""
    key = (asyncio.get_running_loop(), settings, client_id, receipts)
    producer = _producers.get(key)
    if producer is None:
        producer = _producers[key] = Producer(settings, client_id, receipts, clock, lambda: _producers.pop(key, None))
    producer.users += 1
    return producer


class Producer:
    """Shared by the channels that reach Kafka in the same way. `failure` says why it cannot be reached; "" while it can, or while
    that is not known yet."""

    def __init__(
        self,
        settings: KafkaSettings,
        client_id: str,
        receipts: str,
        clock: Callable[[], float],
        forget: Callable[[], object] = lambda: None,
        *,
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> None:
        bound_client_log()
        self.users = 0
        self.clock = clock
        self.receipts = receipts.encode()
        self.timeout_s = timeout_s
        self.failure = ""
        self.silent = ""  # why nothing is sent although the client believes to be connected; "" while it is heard of
        self.confirmed = 0.0  # when a batch was last acknowledged
        self.retry_after = 1.0
        self._settings = settings
        self._client_id = client_id
        self._forget = forget
        self._client: AIOKafkaProducer | None = None
        self._topics: dict[str, Topic] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._ends: set[asyncio.Task[Any]] = set()  # what ends by itself, and is waited for at the end
        self._homeless: set[Any] = set()  # partitions without a leader at the last look
        self._sweep: asyncio.TimerHandle | None = None
        self._up = asyncio.Event()
        self._broken = asyncio.Event()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._stay_connected(), name=f"kafka producer {client_id}")
        self._task.add_done_callback(clients.ended)

    # channels

    def open(self, name: str, budget: Budget) -> Topic:
        """The writing side of a topic. Whether it exists is found out in the background."""
        topic = self._topics[name] = Topic(self, name, budget)
        self._begin_look(topic)
        return topic

    def _begin_look(self, topic: Topic) -> None:
        task = self._looks[topic.name] = self._loop.create_task(self._look_after(topic), name=f"kafka topic {topic.name}")
        task.add_done_callback(clients.ended)

    def look(self, topic: Topic) -> None:
        """Look at the topic again: it may have other partitions or another limit now."""
        if self._topics.get(topic.name) is topic:
            self._looks.pop(topic.name).cancel()
            self._begin_look(topic)

    async def close(self, topic: Topic, deadline: float) -> None:
        """Wait for what is under way until `deadline` (of the clock), fail the rest."""
        while topic.pending and self.clock() < deadline:
            await asyncio.sleep(0.01)
        if self._topics.get(topic.name) is topic:
            del self._topics[topic.name]
            self._looks.pop(topic.name).cancel()
            self._track()
        topic.expire(float("inf"), "the channel was closed before Kafka acknowledged")

    async def release(self, deadline: float) -> None:
        """One user less; the last one ends it, by `deadline` (of the clock)."""
        self.users -= 1
        if self.users:
            return
        self._forget()
        self._closed = True
        self._broken.set()
        await asyncio.wait({self._task}, timeout=max(0.0, deadline - self.clock()))
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._sweep is not None:
            self._sweep.cancel()
        if self._client is not None:
            self._end(self._client, max(0.1, deadline - self.clock()))
            self._client = None
        if self._ends:
            await asyncio.wait(self._ends)

    # batches

    @property
    def current(self) -> object | None:
        """The client that takes batches now; None while there is none."""
        return self._client

    def builder(self) -> Any:
        """An empty batch of records."""
        # A batch bounds itself by its own count of bytes; the client's bound would be one for all topics.
        from aiokafka.producer.message_accumulator import BatchBuilder

        return BatchBuilder(_MAX_REQUEST, 0)

    def send(self, topic: str, partition: int, builder: Any) -> "asyncio.Future[Any]":
        """Hand a batch to the client; the future is done when the broker has acknowledged it, however long that takes."""
        client = self._client
        assert client is not None
        try:
            if client.client.cluster.partitions_for_topic(topic) is None:
                raise UnknownTopicOrPartitionError(topic)
            # The metadata is there and no batch of this partition is queued, so there is nothing to wait for.
            return _at_once(client.send_batch(builder, topic, partition=partition))
        except (KafkaError, AssertionError) as error:
            failed: asyncio.Future[Any] = self._loop.create_future()
            failed.set_exception(error if isinstance(error, KafkaError) else UnknownTopicOrPartitionError(topic))
            return failed

    def failed(self, topic: Topic, batch: Batch, error: Exception, client: object) -> None:
        """The client (`current` at the time) has given a batch up: tell those who wait, and have the next one succeed."""
        retriable = bool(getattr(error, "retriable", False))
        if isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError)):
            if batch.count == 1:
                topic.too_large(batch, topic.max_event_bytes)
            elif not batch.overdue:
                topic.end(batch, f"the topic {topic.name} takes smaller messages than it did; try again", maybe_stored=False)
            self.look(topic)
        elif isinstance(error, (UnknownTopicOrPartitionError, TopicAuthorizationFailedError)) or (
            client is self._client and self._leaderless(topic)
        ):
            text = _about(error, topic.name)
            if not batch.overdue:
                topic.end(batch, text, maybe_stored=not isinstance(error, TopicAuthorizationFailedError))
            topic.unknown(text)
            self.look(topic)
        elif not batch.overdue:
            topic.end(batch, f"Kafka at {self._settings.where} failed: {clients.told(error)}", maybe_stored=True)
        if not retriable and client is self._client and self._client is not None:
            # Its sequence numbers have a gap now: whatever it sent next would be refused. Other partitions' batches may end.
            self._end(self._client, REQUEST_TIMEOUT_MS / 1000)
            self._client = None
            self._up.clear()
            self._broken.set()

    def _leaderless(self, topic: Topic) -> bool:
        return self._client is not None and self._client.client.cluster.partitions_for_topic(topic.name) is None

    def overdue(self, topic: str, partition: int, since: float) -> str:
        """A batch has waited since then, and in vain: what the brokers said against it, "" where nothing."""
        why = refusal(self._client, topic, partition, self.timeout_s)
        if self.confirmed < since:
            self.silent = f"Kafka at {self._settings.where} {f'stores nothing: {why}' if why else 'does not answer'}"
        return why

    def watch(self) -> None:
        """Something is waited for: keep its deadline."""
        if self._sweep is None and not self._closed:
            self._sweep = self._loop.call_later(_SWEEP_S, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        self._end_homeless()
        due = self.clock() - self.timeout_s
        if sum([topic.expire(due) for topic in self._topics.values()]):
            self.watch()

    def _end_homeless(self) -> None:
        """End batches whose topic has vanished: the client asks for it as fast as it gets an answer until their time-out."""
        client = self._client
        if client is None:
            return
        accumulator = client._message_accumulator  # noqa: SLF001 - the client itself does this, but only after its time-out
        queued = accumulator._batches  # noqa: SLF001 - it tells nobody what it has
        homeless = {tp for tp in queued if client.client.cluster.leader_for_partition(tp) is None}
        for tp in homeless & self._homeless:  # for two looks: not only between two answers
            accumulator._pop_batch(tp).failure(UnknownTopicOrPartitionError(tp.topic))  # noqa: SLF001 - one at a time is queued
        self._homeless = homeless

    # the connection

    async def _stay_connected(self) -> None:
        """Connect, and again when the client has broken; the topics' queues wait meanwhile."""
        backoff = _BACKOFF_S[0]
        while not self._closed:
            self._broken.clear()
            client = self._made()
            try:
                await clients.start(client.client, client, _START_S)
            except (KafkaError, OSError, TimeoutError) as error:
                self._unreachable(error, backoff)
                self._end(client, 1.0)
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff * random.uniform(0.8, 1.2)):  # noqa: S311 - a spread, no secret
                        await self._broken.wait()
                backoff = min(backoff * 2, _BACKOFF_S[1])
                continue
            except asyncio.CancelledError:
                self._end(client, 1.0)
                raise
            if self.failure:
                logger.info("Kafka at %s is reached again", self._settings.where)
            backoff, self.failure = _BACKOFF_S[0], ""
            self._client = client
            self._track()
            self._up.set()
            for topic in self._topics.values():
                if topic.partitions:
                    await client.client.force_metadata_update()
                topic.flush()
            await self._broken.wait()

    def _made(self) -> AIOKafkaProducer:
        client = AIOKafkaProducer(
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=_MAX_REQUEST,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=60_000,
            **self._settings.client_options(),
        )
        # What waits for other replicas is answered before the broker itself is taken for one that does not answer.
        client._sender._request_timeout_ms = _REPLICAS_MS  # noqa: SLF001 - it has one time for both
        return client

    def _unreachable(self, error: Exception, backoff: float) -> None:
        failure = f"Kafka at {self._settings.where} cannot be reached: {clients.told(error)}"
        if not self.failure:
            logger.warning("%s; trying again", failure)
        self.failure = failure
        self.retry_after = max(1.0, backoff)
        for topic in self._topics.values():
            topic.fail_queued(failure)

    def _end(self, client: AIOKafkaProducer, within_s: float) -> None:
        task = self._loop.create_task(_stop(client, within_s), name=f"kafka producer {self._client_id} ends")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    # topics

    def _track(self) -> None:
        """Have the client follow the metadata of the topics that are there, and of no other: a missing one makes it noisy."""
        if self._client is not None:
            there = {name for name, topic in self._topics.items() if topic.partitions and not topic.refused}
            if there:
                self._client.client.set_topics(there)

    async def _look_after(self, topic: Topic) -> None:
        """Find out whether the topic is there, how many partitions it has and what it takes; now and then again."""
        again, missing_since = _LOOK_AGAIN_S[0], None
        while True:
            await self._up.wait()
            client = self._client
            if client is None:
                continue
            try:
                limit = await self._uncancelled(self._limit(client, topic.name))
                async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                    await client.client.add_topic(topic.name)
                    while (partitions := client.client.cluster.partitions_for_topic(topic.name)) is None:
                        await asyncio.sleep(0.1)
                        await client.client.force_metadata_update()
            except (KafkaError, OSError, TimeoutError) as error:
                text = clients.told(error)
                if isinstance(error, (UnknownTopicOrPartitionError, TopicAuthorizationFailedError)):
                    text = _about(error, topic.name)
                    missing_since = missing_since or self.clock()
                    if not topic.refused and self.clock() - missing_since > _PATIENCE_S:
                        logger.warning("%s", text)
                        topic.unknown(text)
                        self._track()
                topic.failure = text
                await asyncio.sleep(again)
                again = min(again * 1.5, _LOOK_AGAIN_S[1])
                continue
            again, missing_since = _LOOK_AGAIN_S[0], None
            if topic.refused:
                logger.info("the topic %s is there", topic.name)
            topic.known(len(partitions), limit)
            topic.flush()
            await asyncio.sleep(_LOOK_S * random.uniform(0.9, 1.1))  # noqa: S311 - a spread, no secret

    async def _uncancelled(self, asking: Coroutine[Any, Any, int]) -> int:
        """Ask without being cancelled on the way, which would lose a connection that is being opened for it."""
        task = self._loop.create_task(asking)
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may be gone
        return await asyncio.shield(task)

    async def _limit(self, client: AIOKafkaProducer, topic: str) -> int:
        """The largest message that the topic takes. Asking for it makes no topic, as asking for metadata may."""
        node = client.client.get_random_node()
        answer = await client.client.send(node, DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, ["max.message.bytes"])], False))
        for code, _, _, _, entries in answer.resources:
            error = for_code(code)
            if error is TopicAuthorizationFailedError:
                return MAX_MESSAGE_BYTES  # to write is allowed or not, which the first batch shows
            if code:
                raise error(topic)
            for entry in entries:
                return int(entry[1])
        return MAX_MESSAGE_BYTES


async def _stop(client: AIOKafkaProducer, within_s: float) -> None:
    """Stop a client, with what it has under way, but within a time."""
    accumulator = client._message_accumulator  # noqa: SLF001 - there is no other way to let go of what it retries for ever
    sending = client._sender.sender_task  # noqa: SLF001 - nor to stop it before it has sent all
    if sending is not None and not sending.done():
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s / 2):
                await accumulator.flush()
        # The first has it wait for the requests under way, the second has it not.
        for _ in range(2):
            sending.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({sending})
    accumulator.fail_all(KafkaError("the client has been closed"))
    await clients.stop(client.client, client, max(1.0, within_s / 2))


def _at_once(coroutine: Coroutine[Any, Any, "asyncio.Future[Any]"]) -> "asyncio.Future[Any]":
    """The result of a coroutine that has nothing to wait for: without a task."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: asyncio.Future[Any] = end.value
        return result
    coroutine.close()
    raise KafkaError("the client is busy with this partition")


def _about(error: Exception, topic: str) -> str:
    if isinstance(error, TopicAuthorizationFailedError):
        return f"Kafka does not allow to write to the topic {topic}"
    return f"the topic {topic} does not exist in Kafka"
