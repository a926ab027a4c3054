"""Connections that stay: made again whenever they end, and shared by all channels of the process that reach RabbitMQ in the
same way.

What publishes and what consumes has a connection of its own, since RabbitMQ stops reading from one that publishes while it has an
alarm: acknowledgements would not get through either.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from eventing_rabbitmq.connection import BrokerError, Connection, ConnectionLostError, connect
from eventing_rabbitmq.settings import RabbitmqSettings

__all__ = ["Line", "lease_line"]

logger = logging.getLogger(__name__)

_BACKOFF_S: Final = (0.2, 5.0)  # between attempts to connect: from, to
_USERS_MAX: Final = 500  # of one connection; each has up to three AMQP channels, RabbitMQ allows 2047

_lines: dict[tuple[asyncio.AbstractEventLoop, RabbitmqSettings, str], list["Line"]] = {}


def lease_line(settings: RabbitmqSettings, name: str) -> "Line":
    """A line of this loop for these settings; `name` is what RabbitMQ shows its connections as. `release` it when done."""
    lines = _lines.setdefault((asyncio.get_running_loop(), settings, name), [])
    for line in lines:
        if line.users < _USERS_MAX:
            break
    else:
        line = Line(settings, name)
        lines.append(line)
    line.users += 1
    return line


class Line:
    """`connection` is the one that is up, None while there is none. `failure` says why it cannot be had; "" while it is up, and
    while that is not known yet. What is in `told` is called whenever either changes."""

    def __init__(self, settings: RabbitmqSettings, name: str) -> None:
        self.users = 0
        self.standing_by = 0  # cursors that wait for their turn
        self.failure = ""
        self.connection: Connection | None = None
        self.told: list[Callable[[], None]] = []
        self._settings = settings
        self._name = name
        self._up = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._stay(), name=f"rabbitmq {name}")

    async def connected(self) -> Connection:
        """The connection, as soon as it is up."""
        while self.connection is None:
            await self._up.wait()
        return self.connection

    async def release(self) -> None:
        """One user less; with the last one it ends."""
        self.users -= 1
        if self.users:
            return
        key = (self._loop, self._settings, self._name)
        lines = _lines[key]
        lines.remove(self)
        if not lines:
            del _lines[key]
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()

    async def _stay(self) -> None:
        backoff = _BACKOFF_S[0]
        while True:
            try:
                connection = await connect(self._settings, self._name)
            except (OSError, TimeoutError, BrokerError, ConnectionLostError) as error:
                self._failed(_told(error))
            else:
                if self.failure:
                    logger.info("RabbitMQ at %s is reached again", self._settings.where)
                backoff, self.failure = _BACKOFF_S[0], ""
                self.connection = connection
                connection.on_blocked.append(self._tell)
                self._up.set()
                self._tell()
                await asyncio.wait([connection.ended])  # not itself: that would be cancelled with this task
                self._up.clear()
                self.connection = None
                self._failed(connection.why)
            await asyncio.sleep(backoff * random.uniform(0.8, 1.2))  # noqa: S311 - a spread, no secret
            backoff = min(backoff * 2, _BACKOFF_S[1])

    def _failed(self, why: str) -> None:
        if not self.failure:
            logger.warning("RabbitMQ at %s is not reached, and is tried again: %s", self._settings.where, why)
        self.failure = f"RabbitMQ at {self._settings.where} is not reached: {why}"
        self._tell()

    def _tell(self) -> None:
        for told in list(self.told):
            told()


def _told(error: BaseException) -> str:
    """An error of connecting, in words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error.code} {error}" if isinstance(error, BrokerError) else str(error)
