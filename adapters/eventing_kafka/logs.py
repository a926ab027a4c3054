"""aiokafka's own loggers, bounded: a broker that is away makes each client write several lines per second.

A line that says the same again within half a minute is left out, and counted in the next one that is not.
"""

import logging
import time
from functools import cache
from typing import Final

__all__ = ["quieten"]

EVERY_S: Final = 30.0
_KNOWN_MAX: Final = 512
_LOGGERS: Final = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.consumer.subscription_state",
    "aiokafka.coordinator.assignors.range",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
    "aiokafka.producer.transaction_manager",
    "aiokafka.admin.client",
)


class Bounded(logging.Filter):
    """Lets one line of a kind through per EVERY_S."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}  # kind → when the last one went through, left out since

    def filter(self, record: logging.LogRecord) -> bool:
        kind = (record.name, record.msg if isinstance(record.msg, str) else type(record.msg).__name__)
        now = time.monotonic()
        last, left_out = self._kinds.get(kind, (0.0, 0))
        if last and now - last < EVERY_S:
            self._kinds[kind] = (last, left_out + 1)
            return False
        if len(self._kinds) >= _KNOWN_MAX:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.getMessage()} (and {left_out} more like it)"
            record.args = ()
        return True


@cache
def quieten() -> None:
    """Bound aiokafka's loggers, once; below WARNING nothing is of use to a user of the mesh."""
    bounded = Bounded()
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addFilter(bounded)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
