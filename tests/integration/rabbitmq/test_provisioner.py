"""Exchanges and queues as the provision half makes, finds and removes them on a real RabbitMQ."""

import asyncio
import logging
import re
import shlex
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiormq
import pytest
from pamqp.commands import Basic

from eventing.channels import BackEndSettings, Provisioned
from eventing.errors import EventingError
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber
from eventing_rabbitmq.kind import RABBITMQ_CHANNEL
from eventing_rabbitmq.names import delay_queue, delay_queue_arguments, delay_queues, exchange_of, queue_arguments, queue_of
from eventing_rabbitmq.provisioner import RabbitmqProvisioner
from tests.support.ports import reserve_ports
from tests.support.rabbitmq.broker import PASSWORD, USER, RabbitmqBroker

pytestmark = pytest.mark.rabbitmq
MANY = 30


def settings_of(url: str, **secret: str) -> BackEndSettings:
    encoded = {key.replace("_", "."): value.encode() for key, value in {"url": url, **secret}.items()}
    return BackEndSettings({"auth.secret.ref.name": "login"}, encoded, "knative-eventing/login")


def channel(**spec: Any) -> Object:
    """One that nobody has seen yet."""
    metadata = {"namespace": "shop", "name": f"c-{uuid.uuid4().hex[:12]}", "uid": str(uuid.uuid4())}
    return {
        "apiVersion": RABBITMQ_CHANNEL.api_version,
        "kind": "RabbitmqChannel",
        "metadata": metadata,
        "spec": {"queueType": "quorum", **spec},
    }


def subscriber(uid: str = "", **annotations: str) -> Subscriber:
    given = {f"eventing-mesh.dev/{name}": value for name, value in annotations.items()}
    return Subscriber(uid or str(uuid.uuid4()), "s", "shop", 1, "http://s.example.com", annotations=given)


def with_subscriber(obj: Object, known: Subscriber) -> Object:
    """As the data plane sees it."""
    entry = {"uid": known.uid, "name": known.name, "subscriberUri": known.subscriber_uri, "annotations": dict(known.annotations)}
    return {**obj, "spec": {**obj["spec"], "subscribers": [entry]}}


class Shop:
    """The provisioner, and a look at the broker that is not its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.provisioner = RabbitmqProvisioner(settings_of(url))

    async def ensure(self, obj: Object) -> Provisioned:
        """As the reconciler does: what was said is in the status when it is asked again."""
        said = await self.provisioner.ensure(obj)
        obj.setdefault("status", {}).setdefault("annotations", {}).update(said.annotations)
        return said

    async def publish(self, obj: Object, *bodies: str) -> None:
        async with aiormq.connect(self.url) as connection:
            amqp = await connection.channel(publisher_confirms=True)
            for body in bodies:
                answer = await amqp.basic_publish(
                    body.encode(), exchange=exchange_of(obj), properties=Basic.Properties(delivery_mode=2), mandatory=True
                )
                assert isinstance(answer, Basic.Ack)

    async def messages(self, queue: str) -> list[str]:
        """What is in a queue, which is emptied by that."""
        found: list[str] = []
        async with aiormq.connect(self.url) as connection:
            amqp = await connection.channel()
            while not isinstance((message := await amqp.basic_get(queue, no_ack=True)).delivery, Basic.GetEmpty):
                found.append(message.body.decode())
        return found

    async def deliveries(self, queue: str) -> int:
        """How often the first message can be taken and given back before it is gone, MANY at most."""
        async with aiormq.connect(self.url) as connection:
            amqp = await connection.channel()
            for count in range(MANY):
                deadline = time.monotonic() + 2  # what is given back is there again a moment later
                while isinstance((message := await amqp.basic_get(queue)).delivery, Basic.GetEmpty):
                    if time.monotonic() > deadline:
                        return count
                    await asyncio.sleep(0.01)
                assert message.delivery_tag is not None
                await amqp.basic_nack(message.delivery_tag, requeue=True)
        return MANY

    async def declare(self, queue: str, **arguments: Any) -> None:
        async with aiormq.connect(self.url) as connection:
            amqp = await connection.channel()
            await amqp.queue_declare(queue, durable=True, arguments=arguments)

    async def exists(self, *, queue: str = "", exchange: str = "") -> bool:
        async with aiormq.connect(self.url) as connection:
            amqp = await connection.channel()
            try:
                if queue:
                    await amqp.queue_declare(queue, passive=True)
                else:
                    await amqp.exchange_declare(exchange, passive=True)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return False
        return True

    async def delete(self, *, queue: str = "", exchange: str = "") -> None:
        async with aiormq.connect(self.url) as connection:
            amqp = await connection.channel()
            if queue:
                await amqp.queue_delete(queue)
            else:
                await amqp.exchange_delete(exchange)


@pytest.fixture
async def shop(rabbitmq: RabbitmqBroker) -> AsyncIterator[Shop]:
    found = Shop(rabbitmq.url)
    yield found
    await found.provisioner.aclose()


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_life_of_a_channel_and_its_subscription(shop: Shop, queue_type: str) -> None:
    obj, one, two = channel(queueType=queue_type), subscriber(), subscriber()
    said = await shop.ensure(obj)
    assert said == Provisioned(
        True, annotations={"rabbitmq.eventing-mesh.dev/exchange": exchange_of(obj)}, trust_s=said.trust_s
    ), said
    for each in (one, two):
        assert (await shop.provisioner.ensure_subscription(obj, each)).ready
    await shop.publish(obj, "a")
    assert await shop.ensure(obj) == said
    assert (await shop.provisioner.ensure_subscription(obj, one)).ready
    await shop.publish(obj, "b")
    for each in (one, two):
        assert await shop.messages(queue_of(obj, each.uid)) == ["a", "b"]

    waiting = delay_queue(queue_of(obj, one.uid), 8)
    await shop.declare(waiting, **delay_queue_arguments(queue_of(obj, one.uid), 8))
    await shop.provisioner.remove_subscription(obj, one.uid)
    await shop.provisioner.remove_subscription(obj, one.uid)
    assert not await shop.exists(queue=queue_of(obj, one.uid))
    assert not await shop.exists(queue=waiting)
    assert await shop.exists(queue=queue_of(obj, two.uid))

    obj["status"]["subscribers"] = [{"uid": two.uid}]
    await shop.provisioner.remove(obj)
    await shop.provisioner.remove(obj)
    assert not await shop.exists(queue=queue_of(obj, two.uid))
    assert not await shop.exists(exchange=exchange_of(obj))


async def test_what_waits_comes_back_to_its_own_queue(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for queue_type in ("quorum", "classic"):
        obj, one = channel(queueType=queue_type), subscriber()
        await shop.ensure(obj)
        await shop.provisioner.ensure_subscription(obj, one)
        queue = queue_of(obj, one.uid)
        waiting = {**delay_queue_arguments(queue, 1), "x-message-ttl": 200}
        name = f"{next(iter(delay_queues(queue)))}-short"
        await shop.declare(name, **waiting)
        async with aiormq.connect(shop.url) as connection:
            amqp = await connection.channel(publisher_confirms=True)
            await amqp.basic_publish(b"later", routing_key=name, properties=Basic.Properties(delivery_mode=2))
        async with asyncio.timeout(20):
            while not (found := await shop.messages(queue)):
                await asyncio.sleep(0.05)
        assert found == ["later"]
        await shop.delete(queue=name)
        await shop.provisioner.remove_subscription(obj, one.uid)


async def test_what_is_gone_is_made_again(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    obj, one, two = channel(), subscriber(), subscriber()
    await shop.ensure(obj)
    for each in (one, two):
        await shop.provisioner.ensure_subscription(obj, each)
    known = with_subscriber(obj, one)
    await shop.delete(exchange=exchange_of(obj))
    assert (await shop.ensure(known)).ready
    await shop.publish(obj, "a")
    assert await shop.messages(queue_of(obj, one.uid)) == ["a"], "it is bound to the new exchange"
    await shop.delete(queue=queue_of(obj, one.uid))
    with caplog.at_level(logging.WARNING):
        assert (await shop.ensure(known)).ready
    assert "the queue of a subscription is gone" in caplog.text
    await shop.publish(obj, "b")
    assert await shop.messages(queue_of(obj, one.uid)) == ["b"]


async def test_an_exchange_of_another_kind(shop: Shop) -> None:
    obj = channel()
    async with aiormq.connect(shop.url) as connection:
        amqp = await connection.channel()
        await amqp.exchange_declare(exchange_of(obj), exchange_type="topic", durable=True)
    said = await shop.ensure(obj)
    assert (said.ready, said.reason) == (False, "ExchangeMismatch")
    assert f"there is another exchange {exchange_of(obj)}, which is left as it is" in said.message
    assert "inequivalent arg 'type'" in said.message
    assert (await shop.ensure(channel())).ready, "others are not concerned"


async def test_a_queue_that_was_made_otherwise(shop: Shop) -> None:
    obj = channel()
    await shop.ensure(obj)
    classic = subscriber()
    await shop.declare(queue_of(obj, classic.uid), **{"x-queue-type": "classic"})
    said = await shop.provisioner.ensure_subscription(obj, classic)
    assert (said.ready, said.reason) == (False, "QueueMismatch")
    assert f"there is another queue {queue_of(obj, classic.uid)}, which is left as it is" in said.message
    assert "inequivalent arg 'x-queue-type'" in said.message

    several = subscriber()
    await shop.provisioner.ensure_subscription(obj, several)
    said = await shop.provisioner.ensure_subscription(obj, subscriber(several.uid, concurrency="1"))
    assert (said.ready, said.message) == (True, ""), "the data plane keeps the order that is asked for later"

    single = subscriber(concurrency="1")
    await shop.provisioner.ensure_subscription(obj, single)
    more = subscriber(single.uid, concurrency="5")
    said = await shop.provisioner.ensure_subscription(obj, more)
    assert said.ready
    assert "one data-plane process serves it" in (await shop.ensure(with_subscriber(obj, more))).message
    await shop.provisioner.ensure_subscription(obj, single)
    assert (await shop.ensure(with_subscriber(obj, single))).message == ""


async def test_an_event_is_never_dropped_for_having_been_delivered_often(shop: Shop) -> None:
    """RabbitMQ 4 drops it after 20 deliveries unless told otherwise."""
    for queue_type in ("quorum", "classic"):
        obj, one = channel(queueType=queue_type), subscriber()
        await shop.ensure(obj)
        assert (await shop.provisioner.ensure_subscription(obj, one)).ready
        await shop.publish(obj, "a")
        assert await shop.deliveries(queue_of(obj, one.uid)) == MANY


async def test_a_queue_of_rabbitmq_3_under_rabbitmq_4(
    shop: Shop, rabbitmq: RabbitmqBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves, the condition has a command, and that helps. RabbitMQ 3 has no limit; it only has to refuse other arguments in the
    same way."""
    limits = not rabbitmq.version.startswith("3.")
    obj, one = channel(), subscriber()
    await shop.ensure(obj)
    queue = queue_of(obj, one.uid)
    await shop.declare(queue, **queue_arguments(obj, one, no_delivery_limit=False))
    if not limits:
        _as_rabbitmq_4(monkeypatch)
    assert (await shop.provisioner.ensure_subscription(obj, one)).ready
    message = (await shop.ensure(with_subscriber(obj, one))).message
    rabbitmqctl, *words = shlex.split(message.partition("otherwise: ")[2])
    assert (rabbitmqctl, words[:2]) == ("rabbitmqctl", ["set_policy", "no-delivery-limit"]), message
    if not limits:
        await shop.publish(obj, "a")
        assert await shop.deliveries(queue) == MANY
        return
    await shop.publish(obj, "a")
    assert await shop.deliveries(queue) < MANY, "there is nothing to be said any more"
    await asyncio.to_thread(rabbitmq.ctl, *words)
    try:
        await shop.publish(obj, "b")
        assert await shop.deliveries(queue) == MANY
    finally:
        await asyncio.to_thread(rabbitmq.ctl, "clear_policy", words[1])


def _as_rabbitmq_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ 3 is told of a limit, too."""

    def with_limit(*given: Any, **_: Any) -> dict[str, Any]:
        return {**queue_arguments(*given, no_delivery_limit=False), "x-delivery-limit": 5}

    monkeypatch.setattr("eventing_rabbitmq.provisioner.queue_arguments", with_limit)


async def test_a_queue_of_rabbitmq_3_under_rabbitmq_4_of_which_other_order_is_asked(
    shop: Shop, rabbitmq: RabbitmqBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj, ordered, unordered = channel(), subscriber(concurrency="1"), subscriber()
    await shop.ensure(obj)
    for each in (ordered, unordered):
        await shop.declare(queue_of(obj, each.uid), **queue_arguments(obj, each, no_delivery_limit=False))
    if rabbitmq.version.startswith("3."):
        _as_rabbitmq_4(monkeypatch)
    more = await shop.provisioner.ensure_subscription(obj, subscriber(ordered.uid, concurrency="5"))
    one = await shop.provisioner.ensure_subscription(obj, subscriber(unordered.uid, concurrency="1"))
    assert (more.ready, one.ready) == (True, True)
    for said, noted in ((more, True), (one, False)):
        assert ("one data-plane process serves it" in said.message) == noted
        assert "rabbitmqctl set_policy no-delivery-limit" in said.message


async def test_who_is_not_let_in_and_who_is_not_there(rabbitmq: RabbitmqBroker) -> None:
    (nobody,) = reserve_ports(1)
    for url, reason, words in (
        (rabbitmq.url_of(password="wrong-word"), "AuthenticationFailed", "check user and password in the key url of the Secret"),
        (rabbitmq.url_of(vhost="nowhere"), "VirtualHostRefused", "virtual host 'nowhere': the virtual host does not exist"),
        (f"amqp://{USER}:wrong-word@127.0.0.1:{nobody}", "RabbitmqUnavailable", f"127.0.0.1:{nobody}, virtual host '/' is not reached: Connection refused"),
        (f"amqp://{USER}:wrong-word@no-such-host.invalid", "RabbitmqUnavailable", "no-such-host.invalid:5672"),
        (rabbitmq.tls, "TlsFailed", "its certificate is not trusted"),
        (rabbitmq.url_of(scheme="amqps"), "TlsFailed", "no TLS connection"),
        (rabbitmq.url_of(port=rabbitmq.tls_port), "RabbitmqUnavailable", "is not reached"),
    ):  # fmt: skip
        provisioner = RabbitmqProvisioner(settings_of(url))
        said = await provisioner.ensure(channel())
        assert (said.ready, said.reason, said.step) == (False, reason, ""), (url, said)
        assert words in said.message, said
        of_subscription = await provisioner.ensure_subscription(channel(), subscriber())
        assert (of_subscription.ready, of_subscription.reason) == (False, reason)
        gone = {**channel(), "status": {"subscribers": [{"uid": "u"}]}}
        with pytest.raises(EventingError, match=r"RabbitMQ at") as caught:
            await provisioner.remove(gone)
        for secret in (USER, PASSWORD, "wrong-word"):
            assert secret not in f"{said} {of_subscription} {caught.value!r}"
        await provisioner.aclose()


async def test_settings_that_are_none() -> None:
    provisioner = RabbitmqProvisioner(BackEndSettings(None))
    said = await provisioner.ensure(channel())
    assert (said.ready, said.reason, said.step) == (False, "ConfigMapNotFound", "SecretReady")
    await provisioner.remove(channel())  # nothing was made, and nothing is in the way of its end
    await provisioner.aclose()


async def test_tls_and_other_settings_from_one_call_to_the_next(rabbitmq: RabbitmqBroker) -> None:
    (nobody,) = reserve_ports(1)
    settings = settings_of(f"amqp://127.0.0.1:{nobody}")
    provisioner = RabbitmqProvisioner(settings)
    assert not (await provisioner.ensure(channel())).ready
    trusted = rabbitmq.authority.ca_cert.read_text()
    now = settings_of(rabbitmq.tls, ca_crt=trusted)
    settings.change(now.config, now.secret, now.secret_name)
    assert (await provisioner.ensure(channel())).ready
    await provisioner.aclose()


async def test_a_broker_that_is_away_is_not_asked_by_every_channel(rabbitmq: RabbitmqBroker) -> None:
    asked = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    provisioner = RabbitmqProvisioner(settings_of(f"amqp://127.0.0.1:{port}"))
    said = await asyncio.gather(*(provisioner.ensure(channel()) for _ in range(50)))
    assert {each.reason for each in said} == {"RabbitmqUnavailable"}
    assert asked < 5
    await provisioner.aclose()
    server.close()
    await server.wait_closed()


async def test_a_user_who_may_not_make_anything(rabbitmq: RabbitmqBroker) -> None:
    name = f"reader-{uuid.uuid4().hex[:8]}"
    await asyncio.to_thread(rabbitmq.ctl, "add_user", name, "word-of-the-reader")
    await asyncio.to_thread(rabbitmq.ctl, "set_permissions", "-p", "/", name, "^$", ".*", ".*")
    provisioner = RabbitmqProvisioner(settings_of(rabbitmq.url_of(user=name, password="word-of-the-reader")))
    said = await provisioner.ensure(channel())
    assert (said.ready, said.reason) == (False, "NotAuthorized")
    assert re.search("RabbitMQ refuses (configure )?access to exchange", said.message), said  # RabbitMQ 4 says which
    assert name not in said.message
    await provisioner.aclose()
