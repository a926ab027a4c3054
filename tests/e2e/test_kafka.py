"""Kafka behind the mesh, as a user has it: `eventing up --kafka`, Knative's own YAML, the real kubectl, and a data plane that is killed."""

import uuid
from pathlib import Path

import pytest

from tests.e2e.back_ends import (
    is_listed,
    nothing_is_lost_with_a_data_plane,
    says_what_to_install,
    subscription_of,
    without_module,
)
from tests.support.api_server import Kubectl
from tests.support.kafka.broker import KafkaBroker
from tests.support.up import Subscriber, Up

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


@pytest.mark.kafka
@pytest.mark.kubectl
def test_knatives_yaml_and_a_data_plane_that_is_killed(
    kafka: KafkaBroker, kubectl: Path, subscriber: Subscriber, tmp_path: Path
) -> None:
    name = f"c-{uuid.uuid4().hex[:12]}"
    with Up(tmp_path / "data", f"--kafka={kafka.bootstrap}") as mesh:
        k = Kubectl(kubectl, mesh.ready().data_dir / "kubeconfig", tmp_path)
        k("apply", "-f", "-", given=f"{KNATIVES.format(name=name)}---{subscription_of('KafkaChannel', name, subscriber.url)}")
        k("wait", "--for=condition=Ready", f"kafkachannel/{name}", f"subscription/{name}", "--timeout=18s")
        is_listed(k, mesh, "kc", name)

        refused = k("patch", "kc", name, "--type=merge", "-p", '{"spec":{"numPartitions":5}}', code=1)
        assert "Immutable fields changed (-old +new): spec" in refused
        assert '{v1beta1.KafkaChannelSpec}.NumPartitions:\n\t-: "3"\n\t+: "5"' in refused
        refused = k("apply", "-f", "-", given=KNATIVES.format(name="other").replace("3", "-3"), code=1)
        assert "invalid value: -3: spec.numPartitions" in refused

        nothing_is_lost_with_a_data_plane(mesh, subscriber, name)

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


def test_without_the_client_the_rest_works_and_it_is_said_what_to_install(
    tmp_path: Path, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_module("aiokafka", tmp_path, monkeypatch)
    says_what_to_install(tmp_path / "data", subscriber, "--kafka=kafka:9092", "kafka", "kc", KNATIVES.format(name="later"))
