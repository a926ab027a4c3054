"""Fixtures for tests that talk to a real RabbitMQ; such tests are marked `rabbitmq`, and run once with each version that is here.

`rabbitmq` is one broker for the whole session: use fresh names, and leave it alive. `private_rabbitmq` makes brokers for one test,
which may do to them what it likes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.back_ends import USED, BackEnd
from tests.support.rabbitmq.back_end import RABBITMQ, versions
from tests.support.rabbitmq.broker import RabbitmqBroker
from tests.support.reaper import Reaper

__all__ = ["private_rabbitmq", "rabbitmq", "rabbitmq_back_end", "session_rabbitmqs", "with_each_version"]


def with_each_version(metafunc: pytest.Metafunc) -> None:
    """Part of `pytest_generate_tests`."""
    if "rabbitmq_back_end" in metafunc.fixturenames:
        found = versions()
        metafunc.parametrize(
            "rabbitmq_back_end", list(found.values()) or [None], ids=list(found) or ["none"], indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def rabbitmq_back_end(request: pytest.FixtureRequest) -> BackEnd:
    """The version that the test runs with."""
    assert isinstance(request.param, BackEnd), f"such a test must be marked with pytest.mark.rabbitmq; {RABBITMQ.remedy}"
    return request.param


@pytest.fixture(scope="session")
def session_rabbitmqs(reaper: Reaper, request: pytest.FixtureRequest) -> Iterator[Callable[[BackEnd], RabbitmqBroker]]:
    """The session's broker of each version; it lives on while tests run with another."""
    made: dict[BackEnd, RabbitmqBroker] = {}

    def get(back_end: BackEnd) -> RabbitmqBroker:
        if back_end not in made:
            broker = made[back_end] = RabbitmqBroker(back_end, reaper)
            broker.start()
            request.config.stash[USED].append(f"with RabbitMQ {broker.version} {back_end}")
        return made[back_end]

    try:
        yield get
    finally:
        for each in made.values():
            each.remove()


@pytest.fixture
def rabbitmq(rabbitmq_back_end: BackEnd, session_rabbitmqs: Callable[[BackEnd], RabbitmqBroker]) -> RabbitmqBroker:
    """The session's broker, serving."""
    return session_rabbitmqs(rabbitmq_back_end)


@pytest.fixture
def private_rabbitmq(rabbitmq_back_end: BackEnd, reaper: Reaper) -> Iterator[Callable[..., RabbitmqBroker]]:
    """`private_rabbitmq()` makes a broker that is not started yet; `private_rabbitmq(properties={"consumer_timeout": "20000"},
    tick_ms=5000)` one with settings of its own."""
    brokers: list[RabbitmqBroker] = []

    def make(**settings: Any) -> RabbitmqBroker:
        brokers.append(RabbitmqBroker(rabbitmq_back_end, reaper, **settings))
        return brokers[-1]

    try:
        yield make
    finally:
        for each in brokers:
            each.remove()
