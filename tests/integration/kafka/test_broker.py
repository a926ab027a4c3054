"""The broker that the other tests lean on: its listeners let in whom they should, and it comes back as it was."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError

from tests.support.kafka.broker import PASSWORD, USER, KafkaBroker

pytestmark = pytest.mark.kafka


async def _topics(bootstrap: str, **options: Any) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000, **options)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()


async def _create(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 2, 1)])
    finally:
        await admin.close()


async def _produce(bootstrap: str, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def _consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


def _trusting(kafka: KafkaBroker) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(kafka.authority.ca_cert))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_sasl_with_and_without_tls(kafka: KafkaBroker, mechanism: str) -> None:
    credentials = {"sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": PASSWORD}
    await _topics(kafka.sasl, security_protocol="SASL_PLAINTEXT", **credentials)
    await _topics(kafka.sasl_tls, security_protocol="SASL_SSL", ssl_context=_trusting(kafka), **credentials)
    with pytest.raises(KafkaError):
        await _topics(kafka.sasl, security_protocol="SASL_PLAINTEXT", **(credentials | {"sasl_plain_password": "sesame"}))


async def test_tls_with_and_without_a_certificate_of_the_client(kafka: KafkaBroker) -> None:
    await _topics(kafka.tls, security_protocol="SSL", ssl_context=_trusting(kafka))
    with pytest.raises(KafkaConnectionError):
        await _topics(kafka.tls, security_protocol="SSL", ssl_context=ssl.create_default_context())
    with pytest.raises(KafkaConnectionError):
        await _topics(kafka.mutual_tls, security_protocol="SSL", ssl_context=_trusting(kafka))
    known = _trusting(kafka)
    known.load_cert_chain(kafka.authority.client_cert, kafka.authority.client_key)
    await _topics(kafka.mutual_tls, security_protocol="SSL", ssl_context=known)


async def test_everything_goes_through_the_proxy(kafka: KafkaBroker) -> None:
    await _create(kafka.bootstrap, "through-the-proxy")
    async with kafka.proxy() as proxy:
        await _produce(f"127.0.0.1:{proxy.port}", "through-the-proxy", b"x" * 10_000)
        assert proxy.up_bytes > 10_000


async def test_what_was_acknowledged_is_there_after_a_kill_and_after_a_restart(private_kafka: Callable[[], KafkaBroker]) -> None:
    kafka = private_kafka()
    await asyncio.to_thread(kafka.start)
    await _create(kafka.bootstrap, "kept")
    await _produce(kafka.bootstrap, "kept", b"1")
    await asyncio.to_thread(kafka.kill)
    assert not kafka.running
    with pytest.raises(KafkaConnectionError):
        await _topics(kafka.bootstrap)
    await asyncio.to_thread(kafka.start)
    await _produce(kafka.bootstrap, "kept", b"2")
    await asyncio.to_thread(kafka.restart)
    assert await _consume(kafka.bootstrap, "kept", 2) == [b"1", b"2"]


async def test_a_frozen_broker_answers_nobody_until_it_goes_on(private_kafka: Callable[[], KafkaBroker]) -> None:
    kafka = private_kafka()
    await asyncio.to_thread(kafka.start)
    await asyncio.to_thread(kafka.pause)
    assert kafka.running
    asking = asyncio.create_task(_topics(kafka.bootstrap))
    done, _ = await asyncio.wait([asking], timeout=1)
    assert not done
    await asyncio.to_thread(kafka.resume)
    await asking
    await asyncio.to_thread(kafka.pause)
    await asyncio.to_thread(kafka.remove)  # frozen or not
