"""Fixtures for tests that talk to a real RabbitMQ; such tests are marked `rabbitmq`.

`rabbitmq` is one broker for the whole session: use fresh names, and leave it alive. `private_rabbitmq` makes brokers for one test,
which may do to them what it likes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.back_ends import USED
from tests.support.rabbitmq.back_end import RABBITMQ
from tests.support.rabbitmq.broker import RabbitmqBroker
from tests.support.reaper import Reaper

__all__ = ["private_rabbitmq", "rabbitmq"]


@pytest.fixture(scope="session")
def rabbitmq(reaper: Reaper, request: pytest.FixtureRequest) -> Iterator[RabbitmqBroker]:
    """The session's broker, serving."""
    made = RabbitmqBroker(RABBITMQ.get(), reaper)
    try:
        made.start()
        request.config.stash[USED].append(f"with RabbitMQ {made.version} {made.back_end}")
        yield made
    finally:
        made.remove()


@pytest.fixture
def private_rabbitmq(reaper: Reaper) -> Iterator[Callable[..., RabbitmqBroker]]:
    """`private_rabbitmq()` makes a broker that is not started yet; `private_rabbitmq(properties={"consumer_timeout": "20000"},
    tick_ms=5000)` one with settings of its own."""
    brokers: list[RabbitmqBroker] = []

    def make(**settings: Any) -> RabbitmqBroker:
        brokers.append(RabbitmqBroker(RABBITMQ.get(), reaper, **settings))
        return brokers[-1]

    try:
        yield make
    finally:
        for each in brokers:
            each.remove()
