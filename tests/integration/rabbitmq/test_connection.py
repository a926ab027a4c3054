"""The AMQP connection on a real RabbitMQ, where the contract suite does not look."""

import asyncio
import ssl
from typing import Any

import pytest
from pamqp import commands

from eventing.back_end_settings import TlsMaterial
from eventing.errors import EventingError
from eventing_rabbitmq.connection import BrokerError, Connection, ConnectionLostError, NoAnswerError, connect
from eventing_rabbitmq.settings import RabbitmqSettings
from eventing_rabbitmq.url import read_url
from tests.support.ports import reserve_ports
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = pytest.mark.rabbitmq


class Handler:
    """Takes what comes."""

    def __init__(self) -> None:
        self.ends: list[EventingError] = []

    def delivered(self, *_: Any, **__: Any) -> None: ...

    def confirmed(self, *_: Any, **__: Any) -> None: ...

    def returned(self, *_: Any) -> None: ...

    def cancelled(self) -> None: ...

    def closed(self, error: EventingError) -> None:
        self.ends.append(error)


def settings(url: str) -> RabbitmqSettings:
    return RabbitmqSettings(**read_url(url))


async def opened(broker: RabbitmqBroker, port: int | None = None) -> Connection:
    return await connect(settings(broker.url_of(port=port)), "test")


async def test_a_call_that_is_not_answered_costs_its_channel_and_nothing_else(rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq.proxy() as proxy:
        connection = await opened(rabbitmq, proxy.port)
        handler, other = Handler(), Handler()
        hangs = await connection.channel(handler)
        lives = await connection.channel(other)
        proxy.half_open()
        with pytest.raises(NoAnswerError):
            await hangs.call(commands.Queue.Declare(queue="", exclusive=True), 0.2)
        assert len(handler.ends) == 1
        await proxy.resume()
        answer = await lives.call(commands.Queue.Declare(queue="", exclusive=True))
        assert isinstance(answer, commands.Queue.DeclareOk)
        async with asyncio.timeout(10):
            while hangs.number in connection.channels:
                await asyncio.sleep(0.01)
        assert not other.ends
        await connection.close()
        assert len(other.ends) == 1


async def test_the_answer_to_a_call_that_was_cancelled_is_not_the_next_ones(rabbitmq: RabbitmqBroker) -> None:
    connection = await opened(rabbitmq)
    channel = await connection.channel(Handler())
    given_up = asyncio.create_task(channel.call(commands.Queue.Declare(queue="", exclusive=True)))
    await asyncio.sleep(0)
    given_up.cancel()
    answer = await channel.call(commands.Basic.Qos(prefetch_count=1))
    assert isinstance(answer, commands.Basic.QosOk)
    opening = asyncio.create_task(connection.channel(Handler()))
    await asyncio.sleep(0)
    opening.cancel()
    await channel.call(commands.Basic.Qos(prefetch_count=2))
    async with asyncio.timeout(10):
        while len(connection.channels) > 1:
            await asyncio.sleep(0.01)
    await connection.close()


async def test_what_the_broker_refuses_closes_one_channel(rabbitmq: RabbitmqBroker) -> None:
    connection = await opened(rabbitmq)
    handler = Handler()
    channel = await connection.channel(handler)
    with pytest.raises(BrokerError) as refused:
        await channel.call(commands.Queue.Declare(queue="nowhere", passive=True))
    assert refused.value.code == 404
    assert handler.ends == [refused.value]
    with pytest.raises(BrokerError):
        await channel.call(commands.Basic.Qos(prefetch_count=1))
    await (await connection.channel(Handler())).close()
    await connection.close()
    with pytest.raises(ConnectionLostError):
        await connection.channel(Handler())


async def test_nodes_are_tried_until_one_serves(rabbitmq: RabbitmqBroker) -> None:
    absent = ",".join(f"127.0.0.1:{port}" for port in reserve_ports(3))
    url = rabbitmq.url.replace("@", f"@{absent},")
    for _ in range(5):
        connection = await connect(settings(url), "test")
        await connection.close()
    with pytest.raises(BrokerError):  # the node that is there has more to say than those that are not
        await connect(settings(url.replace("open%20sesame", "wrong")), "test")
    with pytest.raises(ConnectionRefusedError):
        await connect(settings(f"amqp://{absent}"), "test")


async def test_a_peer_that_is_silent_is_left_after_two_heartbeats(rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq.proxy() as proxy:
        url = rabbitmq.url_of(port=proxy.port) + "?heartbeat=1"
        connection = await connect(settings(url), "test")
        handler = Handler()
        await connection.channel(handler)
        proxy.half_open()
        async with asyncio.timeout(10):
            await connection.ended
        assert "no sign of life" in str(handler.ends[0])


async def test_what_is_not_rabbitmq_is_said() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ConnectionLostError):
            await connect(settings(f"amqp://u:p@127.0.0.1:{port}/"), "test")


async def test_events_go_through_tls_and_a_certificate_that_is_not_known_is_refused(rabbitmq: RabbitmqBroker) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(settings(rabbitmq.tls), "test")
    trusting = RabbitmqSettings(**read_url(rabbitmq.tls), tls=TlsMaterial(rabbitmq.authority.ca_cert.read_text()))
    connection = await connect(trusting, "test")
    channel = await connection.channel(Handler())
    large = "x" * 100_000
    answer = await channel.call(commands.Queue.Declare(queue="", exclusive=True, arguments={"x-note": large}))
    assert isinstance(answer, commands.Queue.DeclareOk)
    await connection.close()
