"""Topics and consumer groups as the provision half makes, finds and removes them on a real Kafka."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from eventing.channels import BackEndSettings, Provisioned
from eventing.errors import EventingError
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber
from eventing_kafka.cluster import KafkaCluster
from eventing_kafka.kind import KAFKA_CHANNEL
from eventing_kafka.names import EXTERNAL_TOPIC_ANNOTATION, group_of, own_group, topic_of
from eventing_kafka.provisioner import KafkaProvisioner
from eventing_kafka.settings import KafkaSettings
from tests.support.kafka.broker import PASSWORD, USER, KafkaBroker

pytestmark = pytest.mark.kafka

DEFAULTS = {"numPartitions": 1, "replicationFactor": 1, "retentionDuration": "PT168H"}


def settings_of(server: str, secret: dict[str, str] | None = None, config: dict[str, str] | None = None) -> BackEndSettings:
    encoded = None if secret is None else {key: value.encode() for key, value in secret.items()}
    return BackEndSettings(
        {"bootstrap.servers": server, **(config or {})}, encoded, "" if secret is None else "knative-eventing/login"
    )


def channel(*, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """One that nobody has seen yet."""
    metadata = {
        "namespace": "shop",
        "name": f"c-{uuid.uuid4().hex[:12]}",
        "uid": str(uuid.uuid4()),
        "annotations": annotations or {},
    }
    return {"apiVersion": KAFKA_CHANNEL.api_version, "kind": "KafkaChannel", "metadata": metadata, "spec": {**DEFAULTS, **spec}}


def subscriber(**annotations: str) -> Subscriber:
    return Subscriber(str(uuid.uuid4()), "s", "shop", 1, "http://s.example.com", annotations=annotations)


class Shop:
    """The provisioner, and a look at the broker that is not its own."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.provisioner = KafkaProvisioner(settings_of(server))
        self.cluster = KafkaCluster(KafkaSettings((server,)))

    async def ensure(self, obj: Object) -> Provisioned:
        """As the reconciler does: what was said is in the status when it is asked again."""
        said = await self.provisioner.ensure(obj)
        obj.setdefault("status", {}).setdefault("annotations", {}).update(said.annotations)
        return said

    async def publish(self, topic: str, *values: str, partition: int | None = None) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.server) as producer:
            for value in values:
                await producer.send_and_wait(topic, value.encode(), partition=partition)

    async def read(self, group: str, topic: str, partitions: int = 1) -> list[str]:
        """What is due to the group: from its offsets on, or from the beginning where it has none."""
        wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.server, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        found: list[str] = []
        async with consumer:
            consumer.assign(wanted)
            ends = await consumer.end_offsets(wanted)
            async with asyncio.timeout(20):
                while any([await consumer.position(each) < ends[each] for each in wanted]):
                    batches = await consumer.getmany(timeout_ms=200)
                    found += [record.value.decode() for records in batches.values() for record in records if record.value]
        return found

    async def topic(self, obj: Object) -> Any:
        return await self.cluster.topic(topic_of(obj))

    async def create(self, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
        """A topic that is somebody else's."""
        assert await self.cluster.create_topic(name, partitions, 1, config or {})
        async with asyncio.timeout(20):
            while await self.cluster.topic(name) is None:
                await asyncio.sleep(0.02)

    async def gone(self, obj: Object) -> None:
        async with asyncio.timeout(20):
            while await self.topic(obj) is not None:
                await asyncio.sleep(0.05)


@pytest.fixture
async def shop(kafka: KafkaBroker) -> AsyncIterator[Shop]:
    found = Shop(kafka.bootstrap)
    yield found
    await found.provisioner.aclose()
    await found.cluster.aclose()


async def test_life_of_a_topic(shop: Shop) -> None:
    obj = channel(numPartitions=3, retentionDuration="PT2H")
    said = await shop.ensure(obj)
    assert said.ready, said
    made = await shop.topic(obj)
    assert (made.partitions, made.replication) == ((0, 1, 2), 1)
    assert await shop.cluster.retention_ms(made.name) == 7_200_000
    assert said.annotations["default.topic"] == made.name == f"knative-messaging-kafka.shop.{obj['metadata']['name']}"
    assert said.annotations["eventing.knative.dev/topic.owner"] == "kafkachannel-controller"

    await shop.publish(made.name, "a")
    again = await shop.ensure(obj)
    assert again == said
    assert (await shop.topic(obj)).id == made.id, "what is there is not made again"

    await shop.provisioner.remove(obj)
    await shop.gone(obj)
    await shop.provisioner.remove(obj)


async def test_settings_of_topics_from_the_config_map(shop: Shop) -> None:
    shop.provisioner = KafkaProvisioner(
        settings_of(
            shop.server,
            config={"default.topic.config.retention.ms": "1", "default.topic.config.cleanup.policy": "compact,delete"},
        )
    )
    obj = channel(retentionDuration="PT1H")
    assert (await shop.ensure(obj)).ready
    assert await shop.cluster.retention_ms(topic_of(obj)) == 3_600_000, "the channel's own word counts"
    await shop.provisioner.remove(obj)
    await shop.provisioner.aclose()
    shop.provisioner = KafkaProvisioner(settings_of(shop.server, config={"default.topic.config.retentio.ms": "1"}))
    said = await shop.ensure(channel())
    assert (said.ready, said.reason) == (False, "FailedToCreateTopic")
    assert "Unknown topic config name: retentio.ms" in said.message


async def test_more_replicas_than_brokers(shop: Shop) -> None:
    said = await shop.ensure(channel(replicationFactor=3))
    assert (said.ready, said.reason) == (False, "FailedToCreateTopic")
    assert "only 1 broker(s) are registered; start more brokers, or delete the channel and make it again" in said.message


async def test_a_name_that_is_too_long(shop: Shop) -> None:
    obj = channel()
    obj["metadata"]["name"] = "n" * 240
    said = await shop.ensure(obj)
    assert (said.ready, said.reason) == (False, "FailedToCreateTopic")
    assert "choose a shorter name" in said.message


async def test_a_topic_with_more_than_is_asked_for_is_fine_and_stays(shop: Shop) -> None:
    obj = channel(retentionDuration="PT1H")
    await shop.create(topic_of(obj), 4, {"retention.ms": "-1"})
    said = await shop.ensure(obj)
    assert said.ready
    assert "was not made for this channel and stays" in said.message
    assert said.annotations["eventing.knative.dev/topic.owner"] == "external"
    await shop.provisioner.remove(obj)
    assert await shop.topic(obj) is not None
    await shop.cluster.delete_topic(topic_of(obj))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"numPartitions": 3}, "it has 2 partitions, and spec.numPartitions is 3"),
        ({"numPartitions": 2, "replicationFactor": 2}, "it is kept on 1 brokers, and spec.replicationFactor is 2"),
        (
            {"numPartitions": 2, "retentionDuration": "P1D"},
            "its retention.ms is 3600000, and spec.retentionDuration is P1D (86400000 ms)",
        ),
    ],
)
async def test_a_topic_with_less_is_reported_and_left_as_it_is(shop: Shop, spec: dict[str, Any], words: str) -> None:
    obj = channel(**{"retentionDuration": "PT1H", **spec})
    await shop.create(topic_of(obj), 2, {"retention.ms": "3600000"})
    before = await shop.topic(obj)
    said = await shop.ensure(obj)
    assert (said.ready, said.reason) == (False, "TopicMismatch")
    assert words in said.message
    assert await shop.topic(obj) == before
    await shop.provisioner.remove(obj)
    assert await shop.topic(obj) == before
    await shop.cluster.delete_topic(topic_of(obj))


async def test_a_topic_that_was_made_just_before_the_controller_died_is_ours(shop: Shop) -> None:
    obj = channel()
    await shop.provisioner.ensure(obj)  # and nobody wrote down what it said
    said = await shop.ensure(obj)
    assert said.annotations["eventing.knative.dev/topic.owner"] == "kafkachannel-controller"
    held = channel()
    await shop.provisioner.ensure(held)
    await shop.publish(topic_of(held), "somebody's")
    said = await shop.ensure(held)
    assert said.ready
    assert said.annotations["eventing.knative.dev/topic.owner"] == "external"
    await shop.provisioner.remove(held)
    assert await shop.topic(held) is not None, "what may be somebody's is not deleted"
    await shop.provisioner.remove(obj)
    await shop.cluster.delete_topic(topic_of(held))


async def test_a_topic_that_goes_is_made_anew(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    obj = channel()
    await shop.ensure(obj)
    before = await shop.topic(obj)
    await shop.cluster.delete_topic(topic_of(obj))
    await shop.gone(obj)
    said = await shop.ensure(obj)
    assert said.ready
    assert (await shop.topic(obj)).id != before.id
    assert "the topic of a channel was gone and is made anew" in caplog.text
    await shop.provisioner.remove(obj)
    await shop.gone(obj)


async def test_a_topic_that_somebody_else_made_anew_is_not_deleted(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    obj = channel()
    await shop.ensure(obj)
    await shop.cluster.delete_topic(topic_of(obj))
    await shop.gone(obj)
    await shop.create(topic_of(obj), 1)
    await shop.provisioner.remove(obj)
    assert await shop.topic(obj) is not None
    assert "is left alone" in caplog.text
    said = await shop.ensure(obj)
    assert (said.ready, said.annotations["eventing.knative.dev/topic.owner"]) == (True, "external")
    await shop.cluster.delete_topic(topic_of(obj))


async def test_an_external_topic_is_neither_made_nor_deleted(shop: Shop) -> None:
    name = f"theirs-{uuid.uuid4().hex}"
    obj = channel(annotations={EXTERNAL_TOPIC_ANNOTATION: name}, numPartitions=7)
    said = await shop.ensure(obj)
    assert (said.ready, said.reason) == (False, "Topic is not present or invalid")
    assert name in said.message
    assert await shop.topic(obj) is None
    await shop.create(name, 2)
    said = await shop.ensure(obj)
    assert said.ready, "its partitions are its owner's matter"
    sub = subscriber()
    assert (await shop.provisioner.ensure_subscription(obj, sub)).ready
    obj["status"]["subscribers"] = [{"uid": sub.uid}]
    await shop.provisioner.remove(obj)
    assert (await shop.topic(obj)).partitions == (0, 1)
    assert await shop.cluster.committed(group_of(obj, sub), name, (0, 1)) == {}, "the group was ours"
    await shop.cluster.delete_topic(name)


async def test_kafkas_own_topics_are_no_channels(shop: Shop) -> None:
    said = await shop.ensure(channel(annotations={EXTERNAL_TOPIC_ANNOTATION: "__consumer_offsets"}))
    assert said.ready is False


async def test_a_new_subscription_misses_nothing_after_ready_and_gets_nothing_before(shop: Shop) -> None:
    obj, sub = channel(numPartitions=3), subscriber()
    await shop.ensure(obj)
    topic, group = topic_of(obj), group_of(obj, sub)
    for partition in range(3):
        await shop.publish(topic, f"before-{partition}", partition=partition)
    assert (await shop.provisioner.ensure_subscription(obj, sub)).ready
    # No data plane yet, and all the same:
    for partition in range(3):
        await shop.publish(topic, f"after-{partition}", partition=partition)
    assert (await shop.provisioner.ensure_subscription(obj, sub)).ready
    assert sorted(await shop.read(group, topic, 3)) == ["after-0", "after-1", "after-2"]
    await shop.provisioner.remove_subscription(obj, sub.uid)
    assert await shop.cluster.committed(group, topic, range(3)) == {}
    await shop.provisioner.remove_subscription(obj, sub.uid)
    await shop.provisioner.remove(obj)


async def test_no_place_is_moved_that_exists(shop: Shop) -> None:
    obj, sub = channel(), subscriber()
    await shop.ensure(obj)
    topic, group = topic_of(obj), group_of(obj, sub)
    await shop.publish(topic, *map(str, range(10)))
    await shop.cluster.commit(group, topic, {0: 4})  # an idle group takes any commit
    assert (await shop.provisioner.ensure_subscription(obj, sub)).ready
    assert await shop.cluster.committed(group, topic, (0,)) == {0: 4}
    # One that the data plane knows of, whose offsets Kafka has lost: what it has not seen is not skipped.
    known = subscriber()
    obj["spec"]["subscribers"] = [{"uid": known.uid}]
    assert (await shop.provisioner.ensure_subscription(obj, known)).ready
    assert await shop.cluster.committed(group_of(obj, known), topic, (0,)) == {}
    await shop.provisioner.remove(obj)


async def test_a_group_with_members_keeps_its_offsets_and_is_not_deleted_under_them(shop: Shop) -> None:
    obj = channel()
    await shop.ensure(obj)
    topic, uid = topic_of(obj), str(uuid.uuid4())
    group = own_group(obj, uid)
    member = AIOKafkaConsumer(topic, bootstrap_servers=shop.server, group_id=group, enable_auto_commit=False)
    async with member:
        async with asyncio.timeout(20):
            while not member.assignment():
                await member.getmany(timeout_ms=100)
        assert (await shop.provisioner.ensure_subscription(obj, replace(subscriber(), uid=uid))).ready
        assert await shop.cluster.committed(group, topic, (0,)) == {}
        with pytest.raises(EventingError, match="still has members"):
            await shop.provisioner.remove_subscription(obj, uid)
        leaving = asyncio.create_task(shop.provisioner.remove_subscription(obj, uid))
        await asyncio.sleep(0)
    await leaving  # patient while the member leaves
    await shop.provisioner.remove(obj)


async def test_a_given_group_goes_on_and_outlives_its_subscription(shop: Shop) -> None:
    obj, group = channel(), f"mine-{uuid.uuid4().hex}"
    await shop.ensure(obj)
    topic, first = topic_of(obj), subscriber(**{"group.id": group})
    assert (await shop.provisioner.ensure_subscription(obj, first)).ready
    await shop.provisioner.remove_subscription(obj, first.uid)
    await shop.publish(topic, "meanwhile")
    second = subscriber(**{"group.id": group})
    assert (await shop.provisioner.ensure_subscription(obj, second)).ready
    assert await shop.read(group, topic) == ["meanwhile"]
    obj["status"]["subscribers"] = [{"uid": second.uid}]
    await shop.cluster.commit(group, topic, {0: 1})
    await shop.provisioner.remove(obj)
    await shop.gone(obj)


async def test_a_subscription_waits_for_the_topic(shop: Shop) -> None:
    said = await shop.provisioner.ensure_subscription(channel(), subscriber())
    assert (said.ready, said.reason) == (False, "TopicNotFound")


async def test_an_order_that_knative_does_not_know_is_named(shop: Shop) -> None:
    obj = channel()
    sub = subscriber(**{"kafka.eventing.knative.dev/delivery.order": "orderly"})
    obj["spec"]["subscribers"] = [{"uid": sub.uid}]
    said = await shop.provisioner.ensure_subscription(obj, sub)
    assert (said.ready, said.reason) == (False, "InvalidAnnotation")
    assert said.message.endswith("value: orderly. Allowed values [ ordered | unordered ]")


async def test_a_channel_that_was_never_made_is_removed_without_kafka() -> None:
    provisioner = KafkaProvisioner(settings_of("127.0.0.1:1"))
    obj = channel()
    said = await provisioner.ensure(obj)
    assert (said.ready, said.reason, said.step) == (False, "KafkaUnavailable", "")
    assert said.message == "Kafka cannot be reached: 127.0.0.1:1: Connection refused"
    async with asyncio.timeout(5):
        await provisioner.remove(obj)
    await provisioner.aclose()


async def test_without_settings() -> None:
    provisioner = KafkaProvisioner(BackEndSettings())
    said = await provisioner.ensure(channel())
    assert (said.ready, said.reason, said.step) == (False, "ConfigMapNotFound", "ConfigParsed")
    assert "kubectl create configmap kafka-channel-config" in said.message
    await provisioner.aclose()


Way = Callable[[KafkaBroker], tuple[str, dict[str, str]]]


def _login(mechanism: str, password: str = PASSWORD) -> dict[str, str]:
    return {"sasl.mechanism": mechanism, "user": USER, "password": password}


def _pem(path: Path) -> str:
    return path.read_text()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "tls"])
async def test_sasl(kafka: KafkaBroker, mechanism: str, encrypted: bool) -> None:
    secret = {"protocol": "SASL_SSL" if encrypted else "SASL_PLAINTEXT", **_login(mechanism)}
    if encrypted:
        secret["ca.crt"] = _pem(kafka.authority.ca_cert)
    await _lives(kafka.sasl_tls if encrypted else kafka.sasl, secret)


async def test_tls(kafka: KafkaBroker) -> None:
    await _lives(kafka.tls, {"protocol": "SSL", "ca.crt": _pem(kafka.authority.ca_cert)})


async def test_tls_with_a_certificate_of_ours(kafka: KafkaBroker) -> None:
    authority = kafka.authority
    secret = {
        "protocol": "SSL",
        "ca.crt": _pem(authority.ca_cert),
        "user.crt": _pem(authority.client_cert),
        "user.key": _pem(authority.client_key),
    }
    await _lives(kafka.mutual_tls, secret)


async def _lives(server: str, secret: dict[str, str]) -> None:
    provisioner = KafkaProvisioner(settings_of(server, secret=secret))
    obj, sub = channel(), subscriber()
    said = await provisioner.ensure(obj)
    assert said.ready, said
    assert (await provisioner.ensure_subscription(obj, sub)).ready
    obj["status"] = {"annotations": dict(said.annotations), "subscribers": [{"uid": sub.uid}]}
    await provisioner.remove(obj)
    await provisioner.aclose()


@pytest.mark.parametrize(
    ("way", "reason", "words"),
    [
        (
            lambda kafka: (kafka.sasl, {"protocol": "SASL_PLAINTEXT", **_login("PLAIN", "wrong-wrong\n")}),
            "AuthenticationFailed",
            ("does not let us in", "keys user, password and sasl.mechanism", "ends with a line break"),
        ),
        (
            lambda kafka: (kafka.sasl, {"protocol": "SASL_PLAINTEXT", **_login("SCRAM-SHA-512", "wrong-wrong")}),
            "AuthenticationFailed",
            ("does not let us in",),
        ),
        (
            lambda kafka: (kafka.bootstrap, {"protocol": "SASL_PLAINTEXT", **_login("PLAIN")}),
            "AuthenticationFailed",
            ("check the key protocol",),
        ),
        (lambda kafka: (kafka.tls, {"protocol": "SSL"}), "TlsFailed", ("its certificate is not trusted", "ca.crt")),
        (lambda kafka: (kafka.tls, {"protocol": "PLAINTEXT"}), "KafkaUnavailable", ("another protocol than PLAINTEXT",)),
        (lambda kafka: (kafka.bootstrap, {"protocol": "SSL"}), "KafkaUnavailable", ("another protocol than SSL",)),
        (
            lambda kafka: (kafka.mutual_tls, {"protocol": "SSL", "ca.crt": _pem(kafka.authority.ca_cert)}),
            "",  # with TLS 1.3 the connection may be cut off before we hear why
            ("user.crt",),
        ),
    ],
    ids=["plain", "scram", "no-sasl-there", "unknown-authority", "tls-there", "no-tls-there", "no-certificate"],
)
async def test_what_is_said_of_credentials_that_do_not_fit(
    kafka: KafkaBroker, way: Way, reason: str, words: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    server, secret = way(kafka)
    provisioner = KafkaProvisioner(settings_of(server, secret=secret))
    for _ in range(20):  # as reconcilers of many channels do
        async with asyncio.timeout(10):
            said = await provisioner.ensure(channel())
        assert (said.ready, said.reason) == (False, reason or said.reason), said
    for word in (server, *words):
        assert word in said.message
    for hidden in ("wrong-wrong", PASSWORD):
        assert hidden not in said.message + caplog.text
    assert len(caplog.records) <= 5, caplog.text
    await provisioner.aclose()


async def test_other_settings_are_used_at_the_next_call(kafka: KafkaBroker) -> None:
    settings = settings_of("127.0.0.1:1")
    provisioner = KafkaProvisioner(settings)
    obj = channel()
    assert (await provisioner.ensure(obj)).ready is False
    settings.change({"bootstrap.servers": kafka.bootstrap}, None, "")
    said = await provisioner.ensure(obj)
    assert said.ready
    obj["status"] = {"annotations": dict(said.annotations)}
    await provisioner.remove(obj)
    await provisioner.aclose()
