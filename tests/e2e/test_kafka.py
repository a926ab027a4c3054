"""Kafka behind the mesh, as a user has it: `eventing up --kafka`, Knative's own YAML, the real kubectl, and a data plane that is killed."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import Kubectl
from tests.support.kafka.broker import KafkaBroker
from tests.support.manifests import CHANNEL, subscription
from tests.support.up import Subscriber, Up
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

# As in Knative's documentation of the Kafka Channel.
KNATIVES = """
apiVersion: messaging.knative.dev/v1beta1
kind: KafkaChannel
metadata:
  name: {name}
spec:
  numPartitions: 3
  replicationFactor: 1
"""
SUBSCRIPTION = """
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata:
  name: {name}
spec:
  channel:
    apiVersion: messaging.knative.dev/v1beta1
    kind: KafkaChannel
    name: {name}
  subscriber:
    uri: {url}
"""


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    with Subscriber() as taking:
        yield taking


def event(identity: str) -> dict[str, str]:
    return {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": identity}


@pytest.mark.kafka
@pytest.mark.kubectl
def test_knatives_yaml_and_a_data_plane_that_is_killed(
    kafka: KafkaBroker, kubectl: Path, subscriber: Subscriber, tmp_path: Path
) -> None:
    name = f"c-{uuid.uuid4().hex[:12]}"
    with Up(tmp_path / "data", f"--kafka={kafka.bootstrap}") as mesh:
        k = Kubectl(kubectl, mesh.ready().data_dir / "kubeconfig", tmp_path)
        k("apply", "-f", "-", given=f"{KNATIVES.format(name=name)}---{SUBSCRIPTION.format(name=name, url=subscriber.url)}")
        k("wait", "--for=condition=Ready", f"kafkachannel/{name}", f"subscription/{name}", "--timeout=18s")
        header, row = (line.split() for line in k("get", "kc", name).splitlines())
        assert header == ["NAME", "READY", "REASON", "URL", "AGE"]
        assert row[:3] == [name, "True", f"{mesh.endpoints['ingress']}/default/{name}"]
        assert name in k("get", "kafkachannels,channels", "-o", "name")
        assert name in k("get", "knative", "-o", "name")

        refused = k("patch", "kc", name, "--type=merge", "-p", '{"spec":{"numPartitions":5}}', code=1)
        assert "Immutable fields changed (-old +new): spec" in refused
        assert '{v1beta1.KafkaChannelSpec}.NumPartitions:\n\t-: "3"\n\t+: "5"' in refused
        refused = k("apply", "-f", "-", given=KNATIVES.format(name="other").replace("3", "-3"), code=1)
        assert "invalid value: -3: spec.numPartitions" in refused

        assert mesh.post(f"/default/{name}", event("before"), b"{}").status == 202
        subscriber.get("before")
        # 202 is Kafka's word: the data plane may die the moment after.
        before = mesh.children()["DataPlaneRole"]
        ids = [f"at-the-kill-{number}" for number in range(5)]
        for identity in ids:
            assert mesh.post(f"/default/{name}", event(identity), b"{}").status == 202
        os.kill(before, signal.SIGKILL)
        eventually(lambda: mesh.children().get("DataPlaneRole", before) != before, "a new data plane")

        arrived: set[str] = set()
        while not set(ids) <= arrived:
            headers, _ = subscriber.received.get(timeout=60)
            arrived.add(headers["ce-id"])

        k("delete", "kc,subscription", name, "--timeout=18s")
        assert mesh.stop() == 0, mesh.log
        assert "Traceback" not in mesh.log


@pytest.mark.kubectl
def test_the_option_and_what_a_user_has_put_beside_it(kubectl: Path, tmp_path: Path) -> None:
    where = ("cm", "kafka-channel-config", "-n", "knative-eventing")
    with Up(tmp_path / "data", "--kafka=kafka-1.example.com:9092") as mesh:
        k = Kubectl(kubectl, mesh.ready().data_dir / "kubeconfig", tmp_path)
        assert k.json("get", *where)["data"] == {"bootstrap.servers": "kafka-1.example.com:9092"}
        k("patch", *where, "--type=merge", "-p", '{"data":{"auth.secret.ref.name":"login"}}')
        assert mesh.stop() == 0, mesh.log
    with Up(tmp_path / "data", "--kafka=kafka-2.example.com:9092") as mesh:
        k = Kubectl(kubectl, mesh.ready().data_dir / "kubeconfig", tmp_path)
        found = k.json("get", *where)["data"]
        assert found == {"bootstrap.servers": "kafka-2.example.com:9092", "auth.secret.ref.name": "login"}
        assert mesh.stop() == 0, mesh.log


@pytest.mark.parametrize("address", ["kafka", "kafka:9092,http://kafka:9092"])
def test_an_address_that_is_none_is_said_before_anything_starts(tmp_path: Path, address: str) -> None:
    with Up(tmp_path / "data", f"--kafka={address}") as mesh:
        assert mesh.process.wait(20) == 2
        assert "is not HOST:PORT (as in" in mesh.log
        assert not mesh.data_dir.exists()


@pytest.fixture
def no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `pip install eventing-mesh`, without the extra."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.modules['aiokafka'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.mark.usefixtures("no_client")
def test_without_the_client_the_rest_works_and_it_is_said_what_to_install(tmp_path: Path, subscriber: Subscriber) -> None:
    with Up(tmp_path / "data", "--kafka=kafka:9092") as mesh:
        assert mesh.process.wait(20) == 1
        assert "pip install 'eventing-mesh[kafka]'" in mesh.log
    manifests = f"{CHANNEL}---\n{subscription(subscriber.url)}---{KNATIVES.format(name='later')}"
    with Up(tmp_path / "data", "-f", "-", stdin=manifests) as mesh:
        subscriber.get(mesh.ready().send_until_due())
        eventually(lambda: "BackEndNotInstalled" in mesh.run("get", "kc", "later"), "the reason")
        assert "pip install 'eventing-mesh[kafka]'" in mesh.run("describe", "kc", "later")
        assert mesh.post("/default/later", event("1"), b"{}").status == 503
        mesh.run("delete", "kc", "later")
        assert mesh.stop() == 0, mesh.log
