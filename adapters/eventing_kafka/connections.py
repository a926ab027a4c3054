"""What aiokafka's clients lack for a Kafka of several brokers, one of which may hang or be away.

A broker that hangs is asked for metadata, and connected to, as often as any other, and each time nothing else happens until the
time-out of the longest request. So who does not answer is left alone for a moment, by all clients of the process. A leader that
is not there is asked for as fast as answers come. And why a batch is tried again is said in the client's log only.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiokafka.client
import aiokafka.conn
import aiokafka.producer.sender
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest

from eventing_kafka.faults import words_of

__all__ = ["refusal"]

_CONNECT_S: Final = 5.0  # for each step of connecting
_ANSWER_S: Final = 8.0  # for an answer: Kafka takes 9 s until another broker leads in the place of one that hangs
_LONG: Final = (JoinGroupRequest, SyncGroupRequest)  # wait for the other members, as long as the client lets them
_SHUNNED_S: Final = 3.0
_LEADERLESS_S: Final = 0.25  # between questions for a leader where there is none

_silent: dict[tuple[str, int], float] = {}  # servers that have not answered: until when nobody knocks there (monotonic)
# By the sending part of a client: what a broker last said against a batch of each partition, and when (monotonic).
_refusals: WeakKeyDictionary[Any, dict[TopicPartition, tuple[Exception, float]]] = WeakKeyDictionary()


def refusal(client: AIOKafkaProducer | None, topic: str, partition: int, within_s: float) -> str:
    """Why the client tries a batch of the partition again, if that was said so short a time ago; else ""."""
    told = _refusals.get(client._sender, {}) if client is not None else {}
    error, when = told.get(TopicPartition(topic, partition), (None, 0.0))
    return words_of(error) if error is not None and time.monotonic() - when < within_s else ""


class _Connection(AIOKafkaConnection):
    """A connection that breaks in the way that the client's tasks expect, whatever event loop it runs on.

    uvloop raises RuntimeError where something is written to a connection that was reset in the same turn of the loop. The
    consumer's fetching ends by that, silently and for good: nothing is delivered any more, and the member stays in its group.
    """

    _request_timeout: float

    async def connect(self) -> Any:
        with self._waiting(_CONNECT_S):
            return await super().connect()

    def send(self, request: Any, expect_response: bool = True) -> Any:
        try:
            with self._waiting(self._request_timeout if isinstance(request, _LONG) else _ANSWER_S):
                answer = super().send(request, expect_response)
        except KafkaError:  # a RuntimeError too
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error
        return self._answered(answer)

    async def _answered(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except TimeoutError:
            # What else waits there need not wait as long, and nobody knocks.
            _silent[self.host, self.port] = time.monotonic() + _SHUNNED_S
            self.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise

    @contextmanager
    def _waiting(self, at_most_s: float) -> Iterator[None]:
        """What is asked meanwhile is waited for so long."""
        whole = self._request_timeout
        self._request_timeout = min(whole, at_most_s)
        try:
            yield
        finally:
            self._request_timeout = whole


async def _connected(host: str, port: int, **options: Any) -> Any:
    """A connection, but not to who has just been silent."""
    if time.monotonic() < _silent.get((host, port), 0.0):
        raise KafkaConnectionError(f"{host}:{port} has not answered a moment ago")
    _silent.pop((host, port), None)
    try:
        return await create_conn(host, port, **options)
    except TimeoutError:
        _silent[host, port] = time.monotonic() + _SHUNNED_S
        raise


_update = AIOKafkaClient._metadata_update


async def _updated(client: Any, cluster: Any, topics: Any) -> Any:
    """Ask for metadata; not without a pause where a partition has no leader, which may be so for hours."""
    done = await _update(client, cluster, topics)
    if any(-1 in {each.leader for each in partitions.values()} for partitions in cluster._partitions.values()):
        await asyncio.sleep(_LEADERLESS_S)
    return done


class _Sending(SendProduceReqHandler):
    """Notes why a batch is tried again."""

    def _can_retry(self, error: Exception, batch: Any) -> Any:
        _refusals.setdefault(self._sender, {})[batch.tp] = error, time.monotonic()
        return super()._can_retry(error, batch)


# The client takes no other way to be given these.
aiokafka.conn.AIOKafkaConnection = _Connection
aiokafka.client.create_conn = _connected
AIOKafkaClient._metadata_update = _updated
aiokafka.producer.sender.SendProduceReqHandler = _Sending
# Where brokers make topics that somebody asks for, one that is deleted would be back at once, with one partition.
aiokafka.client.MetadataRequest = functools.partial(MetadataRequest, allow_auto_topic_creation=False)
