"""Exchanges and queues of one RabbitMQ, made, looked at and deleted. Every call ends within a deadline."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from pamqp import commands

from eventing.errors import EventingError
from eventing_rabbitmq.connection import AmqpChannel, BrokerError, Connection, ConnectionLostError, connect
from eventing_rabbitmq.faults import RabbitmqError, of_call, of_connecting
from eventing_rabbitmq.settings import RabbitmqSettings

__all__ = ["Administration"]

_CALL_S: Final = 10.0
_AGAIN_S: Final = 3.0  # after a failure to connect, its reason is the answer to all who ask
_NAME: Final = "eventing-mesh controller"


class Administration:
    """Connects when first needed and again when it must. All calls raise RabbitmqError, and one at a time is under way: one that
    RabbitMQ refuses closes the AMQP channel that it was made on."""

    def __init__(self, settings: RabbitmqSettings) -> None:
        self.settings = settings
        self._connection: Connection | None = None
        self._channel: AmqpChannel | None = None
        self._lock = asyncio.Lock()
        self._failed: RabbitmqError | None = None
        self._failed_at = 0.0

    async def version(self) -> tuple[int, ...]:
        """The broker's, as numbers."""
        async with self._lock:
            connection = await self._connected()
        return tuple(int(part) for part in connection.version.split("-")[0].split("+")[0].split(".") if part.isdigit())

    async def declare_exchange(self, name: str) -> None:
        """A durable fanout exchange; code 406 where there is another one of that name."""
        await self._call(commands.Exchange.Declare(exchange=name, exchange_type="fanout", durable=True))

    async def declare_queue(self, name: str, arguments: Mapping[str, Any]) -> None:
        """A durable queue; code 406 where there is another one of that name."""
        await self._call(commands.Queue.Declare(queue=name, durable=True, arguments=dict(arguments)))

    async def bind(self, queue: str, exchange: str) -> None:
        """Code 404 where either is missing."""
        await self._call(commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=""))

    async def delete_queue(self, name: str) -> None:
        """With what is in it. It need not exist."""
        await self._call(commands.Queue.Delete(queue=name))

    async def delete_exchange(self, name: str) -> None:
        """It need not exist."""
        await self._call(commands.Exchange.Delete(exchange=name))

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _call(self, method: Any) -> Any:
        async with self._lock:
            connection = await self._connected()
            try:
                channel = self._channel
                if channel is None or channel.connection is not connection or channel.ended.done():
                    channel = self._channel = await connection.channel(_Silent())
                return await channel.call(method, _CALL_S)
            except (BrokerError, ConnectionLostError) as error:
                raise of_call(error) from error

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.ended.done():
            return self._connection
        now = asyncio.get_running_loop().time()
        if self._failed is not None and now - self._failed_at < _AGAIN_S:
            raise self._failed
        try:
            self._connection = await connect(self.settings, _NAME)
        except (OSError, BrokerError, ConnectionLostError) as error:  # TimeoutError is an OSError
            self._failed, self._failed_at = of_connecting(error, self.settings), asyncio.get_running_loop().time()
            raise self._failed from error
        self._failed = None
        return self._connection


class _Silent:
    """On an AMQP channel for one call nothing else happens."""

    def closed(self, error: EventingError) -> None:
        """The call says so."""

    def delivered(self, tag: int, header: bytes, body: bytes, *, again: bool, direct: bool) -> None:
        """Nothing is consumed."""

    def confirmed(self, tag: int, *, multiple: bool, stored: bool) -> None:
        """Nothing is published."""

    def returned(self, code: int, routing_key: bytes) -> None:
        """Nothing is published."""

    def cancelled(self) -> None:
        """Nothing is consumed."""
