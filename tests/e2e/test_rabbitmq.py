"""RabbitMQ behind the mesh, as a user has it: `eventing up --rabbitmq`, the real kubectl, and a data plane that is killed."""

import base64
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.e2e.back_ends import (
    event,
    is_listed,
    nothing_is_lost_with_a_data_plane,
    says_what_to_install,
    subscription_of,
    without_module,
)
from tests.support.api_server import Kubectl
from tests.support.manifests import CHANNEL, subscription
from tests.support.rabbitmq.broker import PASSWORD, RabbitmqBroker
from tests.support.up import Subscriber, Up
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

RABBITMQ_CHANNEL = """
apiVersion: messaging.knative.dev/v1beta1
kind: RabbitmqChannel
metadata:
  name: {name}
spec:
  queueType: {queue_type}
"""


@pytest.mark.rabbitmq
@pytest.mark.kubectl
@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_from_kubectl_apply_to_a_data_plane_that_is_killed(
    rabbitmq: RabbitmqBroker, kubectl: Path, subscriber: Subscriber, tmp_path: Path, queue_type: str
) -> None:
    name = f"c-{uuid.uuid4().hex[:12]}"
    with Up(tmp_path / "data", f"--rabbitmq={rabbitmq.url}") as mesh:
        k = Kubectl(kubectl, mesh.ready().data_dir / "kubeconfig", tmp_path)
        given = RABBITMQ_CHANNEL.format(name=name, queue_type=queue_type)
        k("apply", "-f", "-", given=f"{given}---{subscription_of('RabbitmqChannel', name, subscriber.url)}")
        k("wait", "--for=condition=Ready", f"rabbitmqchannel/{name}", f"subscription/{name}", "--timeout=18s")
        is_listed(k, mesh, "rmqc", name)

        other = "classic" if queue_type == "quorum" else "quorum"
        refused = k("patch", "rmqc", name, "--type=merge", "-p", f'{{"spec":{{"queueType":"{other}"}}}}', code=1)
        assert "Immutable fields changed (-old +new): spec" in refused

        nothing_is_lost_with_a_data_plane(mesh, subscriber, name)

        k("delete", "rmqc,subscription", name, "--timeout=18s")
        assert mesh.stop() == 0, mesh.log
        assert "Traceback" not in mesh.log
        for word in (PASSWORD, "open%20sesame"):
            assert word not in mesh.log + mesh.said


@pytest.mark.rabbitmq
def test_a_channel_with_a_template(rabbitmq: RabbitmqBroker, subscriber: Subscriber, tmp_path: Path) -> None:
    name = f"c-{uuid.uuid4().hex[:12]}"
    template = "{apiVersion: messaging.knative.dev/v1beta1, kind: RabbitmqChannel, spec: {queueType: classic}}"
    given = f"{CHANNEL}spec:\n  channelTemplate: {template}\n---\n{subscription(subscriber.url)}".replace("orders", name)
    with Up(tmp_path / "data", f"--rabbitmq={rabbitmq.url}", "-f", "-", stdin=given) as mesh:
        eventually(lambda: "True" in mesh.ready().run("get", "rmqc", name), "the channel behind it")
        eventually(lambda: "True" in mesh.run("get", "subscriptions"), "the Subscription")
        assert mesh.post(f"/default/{name}", event("1"), b"{}").status == 202
        subscriber.get("1")
        mesh.run("delete", "channel", name)
        eventually(lambda: name not in mesh.run("get", "rmqc"), "the end of the channel")
        assert mesh.stop() == 0, mesh.log


@pytest.mark.kubectl
def test_the_password_is_in_the_secret_and_nowhere_else(kubectl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "amqp://orders:hunter2-secret@127.0.0.1:1/shop"
    config_map = ("cm", "rabbitmq-channel-config", "-n", "knative-eventing")
    with Up(tmp_path / "data", f"--rabbitmq={url}") as mesh:
        k = Kubectl(kubectl, mesh.ready().data_dir / "kubeconfig", tmp_path)
        assert k.json("get", *config_map)["data"] == {"auth.secret.ref.name": "rabbitmq-channel-up"}
        secret = k.json("get", "secret", "rabbitmq-channel-up", "-n", "knative-eventing")
        assert base64.b64decode(secret["data"]["url"]).decode() == url
        k("patch", *config_map, "--type=merge", "-p", '{"data":{"consumer.timeout":"PT5M"}}')
        k("apply", "-f", "-", given=RABBITMQ_CHANNEL.format(name="orders", queue_type="quorum"))
        eventually(lambda: "RabbitmqUnavailable" in k("get", "rmqc", "orders"), "the reason")
        told = k("get", "rmqc", "orders", "-o", "yaml")
        assert "127.0.0.1:1, virtual host ''shop'' is not reached: Connection refused" in " ".join(told.split())
        assert mesh.post("/default/orders", event("1"), b"{}").status == 503
        processes = subprocess.run(["ps", "-A", "-ww", "-o", "args="], check=True, capture_output=True, text=True).stdout
        for text in (processes, told, k("get", *config_map, "-o", "yaml"), k("get", "events", "-A", "-o", "yaml")):
            assert "hunter2" not in text
        k("delete", "rmqc", "orders", "--timeout=18s")  # nothing of it was ever made
        assert mesh.stop() == 0, mesh.log
        assert "hunter2" not in mesh.log + mesh.said
    with Up(tmp_path / "data", "--rabbitmq=amqp://rabbitmq.example.com") as mesh:
        k = Kubectl(kubectl, mesh.ready().data_dir / "kubeconfig", tmp_path)
        assert k.json("get", *config_map)["data"] == {"url": "amqp://rabbitmq.example.com", "consumer.timeout": "PT5M"}
        assert mesh.stop() == 0, mesh.log


def test_a_url_that_is_none_is_said_before_anything_starts(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--rabbitmq=http://u:hunter2@rabbitmq:5672") as mesh:
        assert mesh.process.wait(20) == 2
        assert "neither amqp:// nor amqps://" in " ".join(mesh.log.split())
        assert "hunter2" not in mesh.log
        assert not mesh.data_dir.exists()


def test_without_the_client_the_rest_works_and_it_is_said_what_to_install(
    tmp_path: Path, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_module("pamqp", tmp_path, monkeypatch)
    says_what_to_install(
        tmp_path / "data",
        subscriber,
        "--rabbitmq=amqp://rabbitmq",
        "rabbitmq",
        "rmqc",
        RABBITMQ_CHANNEL.format(name="later", queue_type="quorum"),
    )
