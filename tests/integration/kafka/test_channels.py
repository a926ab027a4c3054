"""KafkaChannels in a whole mesh: how they come to be Ready, or say why not, and that their events arrive."""

import asyncio
import base64
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventing.event import Event
from eventing.kube import KubeClient, load_kubeconfig
from eventing.resources.conditions import condition_of, is_ready
from eventing.resources.core import CONFIG_MAP, NAMESPACE, SECRET
from eventing.resources.kinds import Kind, Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from eventing.runtime.mesh import Mesh
from eventing.runtime.mesh_client import Answer
from eventing.testing.sinks import Sink
from eventing_kafka.cluster import KafkaCluster
from eventing_kafka.kind import KAFKA_CHANNEL
from eventing_kafka.names import EXTERNAL_TOPIC_ANNOTATION
from eventing_kafka.settings import KafkaSettings
from tests.support.channel_conformance import check_control_plane
from tests.support.kafka.broker import PASSWORD, USER, KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

_PATIENCE_S = 60.0
_SYSTEM = "knative-eventing"


class Bench:
    """A mesh, its administrator, and a sink."""

    def __init__(self, mesh: Mesh, api: KubeClient, sink: Sink) -> None:
        self.mesh = mesh
        self.api = api
        self.sink = sink

    async def apply(self, kind: Kind, name: str, namespace: str = "default", /, **parts: Any) -> Object:
        annotations = parts.pop("annotations", {})
        metadata = {"namespace": namespace, "name": name, "annotations": annotations} if kind.namespaced else {"name": name}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **parts}
        where = namespace if kind.namespaced else None
        return await self.api.patch(
            kind, where, name, body, content_type="application/apply-patch+yaml", field_manager="test", force=True
        )

    async def channel(self, name: str, **parts: Any) -> Object:
        return await self.apply(KAFKA_CHANNEL, name, **parts)

    async def subscription(self, name: str, channel: str, kind: Kind = KAFKA_CHANNEL, path: str = "", **parts: Any) -> Object:
        spec = {
            "channel": {"apiVersion": kind.api_version, "kind": kind.kind, "name": channel},
            "subscriber": {"uri": f"{self.sink.url.rstrip('/')}/{path or name}"},
        }
        return await self.apply(SUBSCRIPTION, name, spec=spec, **parts)

    async def until(self, kind: Kind, name: str, holds: Callable[[Object], object], namespace: str = "default") -> Object:
        found: Object = {}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not holds(found := await self.api.get(kind, namespace, name)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{kind.kind} {name} did not come to that: {found.get('status')}") from None
        return found

    async def ready(self, kind: Kind, *names: str, namespace: str = "default") -> None:
        for name in names:
            await self.until(kind, name, is_ready, namespace)

    async def refused(self, name: str, reason: str, condition: str = "TopicReady") -> str:
        """Wait until the channel is NotReady for this reason; the message."""
        found = await self.until(
            KAFKA_CHANNEL, name, lambda obj: (condition_of(obj) or {}).get("reason") == reason and not is_ready(obj)
        )
        told = condition_of(found, condition) or {}
        assert (told["status"], told["reason"]) == ("False", reason)
        return str(told["message"])

    async def send(self, channel: str, *ids: str, namespace: str = "default") -> None:
        """As a producer does that heeds 503: right after Kafka has come, the ingress may still be on its way there."""

        def send(id_: str) -> Answer:
            with self.mesh.client() as client:
                return client.send(
                    namespace, channel, Event({"specversion": "1.0", "id": id_, "source": "/s", "type": "t"}, b"{}")
                )

        async with asyncio.timeout(_PATIENCE_S):
            for id_ in ids:
                while not (answer := await asyncio.to_thread(send, id_)).accepted:
                    assert answer.status == 503, answer
                    await asyncio.sleep(0.1)

    async def arrived(self, path: str, *ids: str) -> None:
        """Wait until exactly these have arrived at a path; they may have done so more than once."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while set(ids) - self._at(path):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"at {path} arrived {self._at(path)}, not all of {ids}") from None
        assert self._at(path) == set(ids)

    def _at(self, path: str) -> set[str]:
        return {request.event_id or "" for request in self.sink.requests if request.path.strip("/") == path}


@asynccontextmanager
async def bench(kafka: str = "") -> AsyncIterator[Bench]:
    async with Sink() as sink, Mesh(drain_s=0.2, kafka=kafka) as mesh:
        api = KubeClient(load_kubeconfig(mesh.kubeconfig), user_agent="test")
        async with contextlib.aclosing(api):
            yield Bench(mesh, api, sink)


def fresh() -> str:
    return f"c-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def cluster(kafka: KafkaBroker) -> AsyncIterator[KafkaCluster]:
    found = KafkaCluster(KafkaSettings((kafka.bootstrap,)))
    yield found
    await found.aclose()


async def test_knatives_conformance_of_the_control_plane(kafka: KafkaBroker) -> None:
    async with bench(kafka.bootstrap) as mesh:
        await check_control_plane(mesh.api, KAFKA_CHANNEL)


async def test_conditions_and_what_is_noted(kafka: KafkaBroker, cluster: KafkaCluster) -> None:
    async with bench(kafka.bootstrap) as mesh:
        name = fresh()
        await mesh.channel(name, spec={"numPartitions": 2})
        await mesh.ready(KAFKA_CHANNEL, name)
        status = (await mesh.api.get(KAFKA_CHANNEL, "default", name))["status"]
        assert {each["type"] for each in status["conditions"]} == {
            "Addressable", "ConfigMapUpdated", "ConfigParsed", "DataPlaneAvailable", "DeadLetterSinkResolved", "EventPoliciesReady",
            "ProbeSucceeded", "Ready", "TopicReady",
        }  # fmt: skip
        topic = await cluster.topic(f"knative-messaging-kafka.default.{name}")
        assert topic is not None
        assert status["annotations"]["default.topic"] == topic.name
        await mesh.api.delete(KAFKA_CHANNEL, "default", name)
        async with asyncio.timeout(_PATIENCE_S):
            while await cluster.topic(topic.name) is not None:
                await asyncio.sleep(0.05)


async def test_without_config_map_and_with_one_that_comes_later(kafka: KafkaBroker) -> None:
    async with bench() as mesh:
        name = fresh()
        await mesh.channel(name)
        message = await mesh.refused(name, "ConfigMapNotFound", "ConfigParsed")
        assert "kubectl create configmap kafka-channel-config --namespace knative-eventing" in message
        await mesh.apply(CONFIG_MAP, "kafka-channel-config", _SYSTEM, data={"bootstrap.servers": "nonsense"})
        assert "'nonsense' is not HOST:PORT" in await mesh.refused(name, "InvalidConfigMap", "ConfigParsed")
        await mesh.apply(CONFIG_MAP, "kafka-channel-config", _SYSTEM, data={"bootstrap.servers": kafka.bootstrap})
        await mesh.subscription("s", name)
        await mesh.ready(KAFKA_CHANNEL, name)
        await mesh.ready(SUBSCRIPTION, "s")
        await mesh.send(name, "1")
        await mesh.arrived("s", "1")
        await mesh.api.delete(KAFKA_CHANNEL, "default", name)


async def test_a_broker_that_is_not_there_yet(private_kafka: Callable[..., KafkaBroker]) -> None:
    # As Kafka comes: whoever asks about a topic makes it, with one partition. The data plane asks all the time.
    broker = private_kafka({"auto.create.topics.enable": "true"})
    async with bench(broker.bootstrap) as mesh:
        name = fresh()
        await mesh.channel(name, spec={"numPartitions": 3})
        await mesh.subscription("s", name)
        assert await mesh.refused(name, "KafkaUnavailable") == f"Kafka cannot be reached: {broker.bootstrap}: Connection refused"
        await asyncio.to_thread(broker.start)
        await mesh.ready(KAFKA_CHANNEL, name)
        await mesh.ready(SUBSCRIPTION, "s")
        await mesh.send(name, "1")
        await mesh.arrived("s", "1")
        made = await mesh.api.get(KAFKA_CHANNEL, "default", name)
        assert made["status"]["annotations"]["eventing.knative.dev/topic.owner"] == "kafkachannel-controller"

        await mesh.api.delete(KAFKA_CHANNEL, "default", name)
        async with asyncio.timeout(_PATIENCE_S):
            while (await mesh.api.list(KAFKA_CHANNEL))[0]:
                await asyncio.sleep(0.05)
        other = fresh()  # and everything for it is asked of the broker
        await mesh.channel(other)
        await mesh.ready(KAFKA_CHANNEL, other)
        await mesh.send(other, "2")
        async with contextlib.aclosing(KafkaCluster(KafkaSettings((broker.bootstrap,)))) as cluster:
            assert await cluster.topic(f"knative-messaging-kafka.default.{name}") is None


async def test_a_server_that_takes_connections_and_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with bench(f"127.0.0.1:{mute.getsockname()[1]}") as mesh:
            name = fresh()
            await mesh.channel(name)
            assert "no answer within" in await mesh.refused(name, "KafkaUnavailable")
            await mesh.api.delete(KAFKA_CHANNEL, "default", name)  # nothing was made: nobody has to be asked
            async with asyncio.timeout(_PATIENCE_S):
                while (await mesh.api.list(KAFKA_CHANNEL))[0]:
                    await asyncio.sleep(0.05)


async def test_wrong_credentials_then_right_ones(kafka: KafkaBroker, capfd: pytest.CaptureFixture[str]) -> None:
    def secret(password: str) -> dict[str, Any]:
        data = {"protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256", "user": USER, "password": password}
        return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}

    async with bench(kafka.sasl) as mesh:
        name = fresh()
        # Beside what --kafka has written: the two do not take each other's keys away.
        await mesh.apply(CONFIG_MAP, "kafka-channel-config", _SYSTEM, data={"auth.secret.ref.name": "login"})
        await mesh.channel(name)
        assert "Secret knative-eventing/login" in await mesh.refused(name, "SecretNotFound", "ConfigParsed")
        await mesh.apply(SECRET, "login", _SYSTEM, **secret("not-the-word"))
        message = await mesh.refused(name, "AuthenticationFailed")
        assert "check the keys user, password and sasl.mechanism of the Secret" in message
        await mesh.apply(SECRET, "login", _SYSTEM, **secret(PASSWORD))
        await mesh.subscription("s", name)
        await mesh.ready(KAFKA_CHANNEL, name)
        await mesh.ready(SUBSCRIPTION, "s")
        await mesh.send(name, "1")
        await mesh.arrived("s", "1")
        events = await mesh.api.get(KAFKA_CHANNEL, "default", name)
        await mesh.api.delete(KAFKA_CHANNEL, "default", name)
    said = "".join(capfd.readouterr()) + str(events) + message
    for hidden in ("not-the-word", PASSWORD):
        assert hidden not in said


async def test_kafka_as_the_default_of_a_namespace(kafka: KafkaBroker) -> None:
    async with bench(kafka.bootstrap) as mesh:
        name = fresh()
        chosen = "namespaceDefaults: {default: {apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, spec: {numPartitions: 3}}}"
        await mesh.apply(CONFIG_MAP, "default-ch-webhook", _SYSTEM, data={"default-ch-config": chosen})
        await mesh.apply(NAMESPACE, "elsewhere")
        await mesh.apply(CHANNEL, name, spec={})
        await mesh.apply(CHANNEL, name, "elsewhere", spec={})
        await mesh.subscription("s", name, CHANNEL)
        await mesh.ready(CHANNEL, name)
        await mesh.ready(SUBSCRIPTION, "s")
        behind = await mesh.api.get(KAFKA_CHANNEL, "default", name)
        assert behind["spec"]["numPartitions"] == 3
        assert (await mesh.api.get(CHANNEL, "elsewhere", name))["spec"]["channelTemplate"]["kind"] == "InMemoryChannel"
        await mesh.send(name, "1")
        await mesh.arrived("s", "1")
        await mesh.api.delete(CHANNEL, "default", name)
        async with asyncio.timeout(_PATIENCE_S):
            while (await mesh.api.list(KAFKA_CHANNEL))[0]:
                await asyncio.sleep(0.05)


async def test_a_recreated_subscription_is_new_and_a_named_group_goes_on(kafka: KafkaBroker) -> None:
    async with bench(kafka.bootstrap) as mesh:
        name, group = fresh(), f"mine-{uuid.uuid4().hex}"
        await mesh.channel(name)
        for sub, annotations in (("new", {}), ("same", {"group.id": group})):
            await mesh.subscription(sub, name, path=f"{sub}/1", annotations=annotations)
        await mesh.ready(SUBSCRIPTION, "new", "same")
        await mesh.send(name, "1")
        await mesh.arrived("new/1", "1")
        await mesh.arrived("same/1", "1")
        for sub in ("new", "same"):
            await mesh.api.delete(SUBSCRIPTION, "default", sub)
        await mesh.until(KAFKA_CHANNEL, name, lambda obj: not obj["status"].get("subscribers"))
        await mesh.send(name, "2")
        for sub, annotations in (("new", {}), ("same", {"group.id": group})):
            await mesh.subscription(sub, name, path=f"{sub}/2", annotations=annotations)
        await mesh.ready(SUBSCRIPTION, "new", "same")
        await mesh.send(name, "3")
        await mesh.arrived("same/2", "2", "3")
        await mesh.arrived("new/2", "3")
        await mesh.api.delete(KAFKA_CHANNEL, "default", name)


async def test_an_external_topic_stays(kafka: KafkaBroker, cluster: KafkaCluster) -> None:
    async with bench(kafka.bootstrap) as mesh:
        name, topic = fresh(), f"theirs-{uuid.uuid4().hex}"
        await mesh.channel(name, annotations={EXTERNAL_TOPIC_ANNOTATION: topic})
        assert topic in await mesh.refused(name, "Topic is not present or invalid")
        await cluster.create_topic(topic, 2, 1, {})
        await mesh.subscription("s", name)
        await mesh.ready(KAFKA_CHANNEL, name)
        await mesh.ready(SUBSCRIPTION, "s")
        await mesh.send(name, "1")
        await mesh.arrived("s", "1")
        await mesh.api.delete(KAFKA_CHANNEL, "default", name)
        async with asyncio.timeout(_PATIENCE_S):
            while (await mesh.api.list(KAFKA_CHANNEL))[0]:
                await asyncio.sleep(0.05)
        assert await cluster.topic(topic) is not None
        await cluster.delete_topic(topic)
