"""What the Kafka client writes to the log, in bounds: of a broker that is away it speaks several times a second."""

import logging
import time
from collections.abc import Callable
from typing import Final

__all__ = ["bound_client_log"]

_NAME: Final = "aiokafka"
_EVERY_S: Final = 60.0
_KINDS: Final = 1000  # of messages that are told apart


class BoundedHandler(logging.Handler):
    """Hands warnings and errors on to the root logger, each kind once a minute, with the number of those held back.

    What is below a warning is left out: it names users, and at level DEBUG what is sent, passwords among it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        kind = (record.name, str(record.msg))
        now = self._clock()
        last, held_back = self._seen.get(kind, (-_EVERY_S, 0))
        if now - last < _EVERY_S:
            self._seen[kind] = (last, held_back + 1)
            return
        if len(self._seen) >= _KINDS:
            self._seen.clear()
        self._seen[kind] = (now, 0)
        if held_back:
            record.msg, record.args = f"{record.getMessage()} (and {held_back} times before)", None
        logging.getLogger().handle(record)


def bound_client_log() -> None:
    """Once per process, before the first client is made."""
    logger = logging.getLogger(_NAME)
    if not any(isinstance(handler, BoundedHandler) for handler in logger.handlers):
        logger.setLevel(logging.WARNING)
        logger.addHandler(BoundedHandler())
        logger.propagate = False
