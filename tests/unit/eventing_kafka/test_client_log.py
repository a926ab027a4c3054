"""What the Kafka client may write to the log: each kind of line once a minute, nothing that names users or passwords."""

import logging
from collections.abc import Iterator

import pytest

from eventing.testing.clock import VirtualClock
from eventing_kafka.client_log import BoundedHandler, bound_client_log

LOGGER = logging.getLogger("aiokafka.conn")


class Log(logging.Handler):
    """The log of the process, and the clock that its lines are bounded by."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.clock = VirtualClock()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[Log]:
    """With the client's logger as it was never used before."""
    root, client = logging.getLogger(), logging.getLogger("aiokafka")
    before = root.level, client.handlers, client.level, client.propagate
    made = Log()
    root.addHandler(made)
    root.setLevel(logging.DEBUG)
    client.handlers, client.propagate = [BoundedHandler(made.clock)], False
    client.setLevel(logging.WARNING)
    yield made
    root.removeHandler(made)
    root.setLevel(before[0])
    client.handlers, client.propagate = before[1], before[3]
    client.setLevel(before[2])


def test_each_kind_of_line_once_a_minute(log: Log) -> None:
    for number in range(50):
        LOGGER.error("Unable to connect to node %s", number)
    LOGGER.warning("something else")
    assert log.lines == ["Unable to connect to node 0", "something else"]
    log.clock.advance(61)
    LOGGER.error("Unable to connect to node %s", 50)
    assert log.lines[2:] == ["Unable to connect to node 50 (and 49 times before)"]


def test_what_is_below_a_warning_is_left_out(log: Log) -> None:
    LOGGER.debug("Request %s", "SaslAuthenticateRequest(b'secret')")
    LOGGER.info("Authenticated as %s via %s", "somebody", "PLAIN")
    assert log.lines == []


def test_it_is_set_up_once(log: Log) -> None:
    logging.getLogger("aiokafka").handlers = []
    bound_client_log()
    bound_client_log()
    LOGGER.error("once")
    assert log.lines == ["once"]
