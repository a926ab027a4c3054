"""The broker that the other tests lean on: it lets in whom it should, and it comes back as it was."""

import asyncio
import ssl
from collections.abc import Callable

import aio_pika
import aiormq
import pytest

from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = pytest.mark.rabbitmq

PERSISTENT = aiormq.spec.Basic.Properties(delivery_mode=2)


async def _put(url: str, queue: str, body: bytes) -> None:
    async with aiormq.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        # Not a quorum queue, which a kill within half a second leaves without a leader (docs/rabbitmq.md, "Limits").
        await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "classic"})
        await asyncio.wait_for(channel.basic_publish(body, routing_key=queue, properties=PERSISTENT), 10)


async def _get(url: str, queue: str) -> bytes:
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        found = await channel.basic_get(queue, no_ack=True)
        return bytes(found.body)


async def test_it_lets_in_whom_it_knows(rabbitmq: RabbitmqBroker) -> None:
    trusting = ssl.create_default_context(cafile=str(rabbitmq.authority.ca_cert))
    await (await aiormq.connect(rabbitmq.url)).close()
    await (await aiormq.connect(rabbitmq.tls, context=trusting)).close()
    with pytest.raises(ConnectionError, match="certificate"):
        await aiormq.connect(rabbitmq.tls, context=ssl.create_default_context())
    with pytest.raises(aiormq.exceptions.AMQPConnectionError, match="ACCESS_REFUSED"):
        await aiormq.connect(rabbitmq.url_of(password="sesame"))
    with pytest.raises(aiormq.exceptions.AMQPError, match=r"Connection\.Close"):
        await aiormq.connect(rabbitmq.url_of(vhost="nowhere"))


async def test_what_is_durable_outlives_a_kill(private_rabbitmq: Callable[..., RabbitmqBroker]) -> None:
    broker = private_rabbitmq()
    await asyncio.to_thread(broker.start)
    assert broker.version
    await _put(broker.url, "q", b"before")
    await asyncio.to_thread(broker.kill)
    assert not broker.running
    with pytest.raises(ConnectionError):
        await aiormq.connect(broker.url)
    await asyncio.to_thread(broker.start)
    assert await _get(broker.url, "q") == b"before"


async def test_frozen_behind_a_proxy_and_without_memory(private_rabbitmq: Callable[..., RabbitmqBroker]) -> None:
    broker = private_rabbitmq()
    await asyncio.to_thread(broker.start)
    async with broker.proxy() as proxy:
        await _put(broker.url_of(port=proxy.port), "q", b"1")
        await asyncio.to_thread(broker.pause)
        waiting = asyncio.create_task(_get(broker.url_of(port=proxy.port), "q"))
        done, _ = await asyncio.wait([waiting], timeout=1)
        assert not done
        await asyncio.to_thread(broker.resume)
        assert await asyncio.wait_for(waiting, 30) == b"1"
    await asyncio.to_thread(broker.memory_alarm)
    putting = asyncio.create_task(_put(broker.url, "q", b"2"))
    blocked, _ = await asyncio.wait([putting], timeout=1)
    assert not blocked
    await asyncio.to_thread(broker.end_of_memory_alarm)
    await asyncio.wait_for(putting, 30)


async def test_the_fields_own_client(rabbitmq: RabbitmqBroker) -> None:
    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("test-broker-own-client", auto_delete=True)
        await channel.default_exchange.publish(aio_pika.Message(b"1"), queue.name)
        message = await queue.get()
        assert message.body == b"1"
        await message.ack()
