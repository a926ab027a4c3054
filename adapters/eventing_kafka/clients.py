"""What is done to aiokafka's clients from within, since they have no other way: starting and ending them without leaving a
connection behind, and taking what a consumer has fetched.

Whatever of aiokafka is cancelled while it opens a connection loses it. So nothing is cancelled before the connection that is
being opened is there, or has failed by its own time-out, and no other is begun meanwhile.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import AuthenticationFailedError, KafkaError

import eventing_kafka.connections  # noqa: F401 - changes what the clients connect with
from eventing_kafka.faults import words_of

__all__ = ["ended", "fetched", "let_linger", "start", "stop", "told"]

logger = logging.getLogger(__name__)

_HOLD_S: Final = 1.0


async def start(client: Any, startable: Any, within_s: float) -> None:
    """Start a consumer or producer (`startable`), of which `client` is the inner one.

    Raises KafkaError, OSError or TimeoutError."""
    task = asyncio.get_running_loop().create_task(startable.start())
    try:
        await asyncio.wait({task}, timeout=within_s)
    finally:
        if not task.done():
            async with _connecting_held(client, within_s):
                task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise TimeoutError
    try:
        task.result()
    except ValueError as error:  # SCRAM, where the other side does not know the password either
        raise AuthenticationFailedError(str(error)) from error


async def stop(client: Any, stoppable: Any, within_s: float) -> None:
    """Stop it; not longer than `within_s`, then its connections are closed under it."""
    until = asyncio.get_running_loop().time() + within_s
    async with _connecting_held(client, within_s):
        task = asyncio.get_running_loop().create_task(stoppable.stop())
        # Who needs a connection to say goodbye and has none gets one after that.
        await asyncio.wait({task}, timeout=min(_HOLD_S, within_s))
    if not task.done():
        await asyncio.wait({task}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
    if not task.done():
        task.cancel()
        await client.close()
        await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        if not isinstance(error, (KafkaError, OSError, TimeoutError)):
            raise error
        logger.debug("stopping a client of Kafka: %s", told(error))


def fetched(consumer: AIOKafkaConsumer, tp: TopicPartition, most: int) -> Sequence[Any]:
    """At most so many records of what the consumer has fetched of a partition and nobody has read yet; none where an error is
    next, which `getmany` raises.

    `getmany` without its coroutine, and without its ConsumerRecords: the client copies into one of them each record that its
    parser in C has made, which takes nearly as long as parsing it. Offset, timestamp, key, value and headers are there.
    """
    fetcher = consumer._fetcher
    result = fetcher._records.get(tp)
    if not isinstance(result, FetchResult):
        return ()
    if result._partition_records is not None:
        result._partition_records._consumer_record = _as_it_is
    records: list[Any] = result.getall(most)
    if not result.has_more():
        del fetcher._records[tp]
        fetcher._notify(fetcher._wait_consume_future)  # it fetches the next
    return records


def let_linger(consumer: AIOKafkaConsumer) -> None:
    """What is fetched by now and not read does not keep the consumer from fetching of other partitions.

    For a tenth of a second it does, which is right where it is about to be read: the next fetch, which may wait, is then of all
    partitions.
    """
    fetcher = consumer._fetcher
    for result in fetcher._records.values():
        result._backoff = 0.0
    fetcher._notify(fetcher._wait_consume_future)


def _as_it_is(_: TopicPartition, record: Any) -> Any:
    return record


@asynccontextmanager
async def _connecting_held(client: Any, within_s: float) -> AsyncIterator[None]:
    """Nobody opens a connection meanwhile. Waits for one that is being opened, but not longer than `within_s`."""
    lock = client._get_conn_lock
    held = False
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            held = await lock.acquire()
    try:
        yield
    finally:
        if held:
            lock.release()


def ended(task: "asyncio.Task[None]") -> None:
    """For `add_done_callback` of a task that runs as long as its client: it must not end without a word."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("%s: has ended by a fault of the mesh", task.get_name(), exc_info=error)


def told(error: Exception) -> str:
    """An error of the client in words."""
    return "no answer in time" if isinstance(error, TimeoutError) else words_of(error)
