"""Fixtures for tests that talk to a real Kafka; such tests are marked `kafka`.

`kafka` is one broker for the whole session: use fresh topics, and leave it alive. `private_kafka` makes brokers for one test, which
may do to them what it likes; `private_kafka_cluster` is three that are one cluster.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import pytest

from tests.support.back_ends import USED
from tests.support.kafka.back_end import KAFKA
from tests.support.kafka.broker import KafkaBroker
from tests.support.kafka.cluster import KafkaCluster
from tests.support.reaper import Reaper

__all__ = ["kafka", "private_kafka", "private_kafka_cluster"]

_QUICKLY_BACK: Final = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}  # from 9 s and 2 s


@pytest.fixture(scope="session")
def kafka(reaper: Reaper, request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """The session's broker, serving."""
    made = _make(reaper, None)
    try:
        made.start()
        yield made
        # It says its version a moment after it serves.
        request.config.stash[USED].append(f"with Kafka {made.version} {made.back_end}")
    finally:
        made.remove()


@pytest.fixture
def private_kafka(reaper: Reaper) -> Iterator[Callable[..., KafkaBroker]]:
    """`private_kafka()` makes a broker that is not started yet; `private_kafka({"message.max.bytes": "1000"})` with properties of
    its own. It serves again some 5 s after `kill` and `start`: Kafka first lets the session of the dead one end."""
    brokers: list[KafkaBroker] = []

    def make(properties: Mapping[str, str] | None = None) -> KafkaBroker:
        brokers.append(_make(reaper, {**_QUICKLY_BACK, **(properties or {})}))
        return brokers[-1]

    try:
        yield make
    finally:
        for each in brokers:
            each.remove()


@pytest.fixture
def private_kafka_cluster(reaper: Reaper) -> Iterator[KafkaCluster]:
    """Three brokers, serving. What a killed one led is led by others some 4 s later, once its session has ended."""
    made = KafkaCluster(KAFKA.get(), reaper, _QUICKLY_BACK)
    try:
        made.start()
        yield made
    finally:
        made.remove()


def _make(reaper: Reaper, properties: Mapping[str, str] | None) -> KafkaBroker:
    return KafkaBroker(KAFKA.get(), reaper, properties=properties)
