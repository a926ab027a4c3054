"""The real kubectl configures the mesh, and Knative's own YAML needs no change; CloudEvents' own SDK sends the events."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.support.api_server import Kubectl
from tests.support.manifests import CHANNEL, subscription
from tests.support.up import Subscriber, Up
from tests.support.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.kubectl


class MeshKubectl(Kubectl):
    """kubectl against one mesh."""

    def __init__(self, program: Path, mesh: Up, home: Path) -> None:
        super().__init__(program, mesh.data_dir / "kubeconfig", home)
        self.mesh = mesh

    def object(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = self.json("get", *arguments)
        return found

    def ready(self, subscriber: Subscriber) -> None:
        self("apply", "-f", "-", given=f"{CHANNEL}---\n{subscription(subscriber.url)}")
        self("wait", "--for=condition=Ready", "subscription/printer", "--timeout=20s")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("mesh") / "data") as running:
        yield running.ready()
        assert running.stop() == 0, running.log


@pytest.fixture
def kubectl_here(kubectl: Path, mesh: Up, tmp_path: Path) -> Iterator[MeshKubectl]:
    run = MeshKubectl(kubectl, mesh, tmp_path)
    yield run
    run("delete", "subscriptions,channels", "--all", "--wait=true", "--timeout=20s")


def test_what_is_applied_becomes_ready_and_is_shown_as_knative_shows_it(
    kubectl_here: MeshKubectl, subscriber: Subscriber
) -> None:
    kubectl = kubectl_here
    said = kubectl("apply", "-f", "-", given=f"{CHANNEL}---\n{subscription(subscriber.url)}")
    assert "channel.messaging.knative.dev/orders created" in said
    assert "subscription.messaging.knative.dev/printer created" in said
    kubectl("wait", "--for=condition=Ready", "channel/orders", "subscription/printer", "--timeout=20s")
    channels = kubectl("get", "channels").split()
    assert channels[:5] == ["NAME", "URL", "AGE", "READY", "REASON"]
    assert channels[5:7] == ["orders", kubectl.mesh.endpoints["ingress"] + "/default/orders"]
    assert channels[8] == "True"
    subscriptions = kubectl("get", "subscriptions").split()
    assert subscriptions[:4] == ["NAME", "AGE", "READY", "REASON"]
    assert subscriptions[6] == "True"
    again = kubectl("apply", "-f", "-", given=f"{CHANNEL}---\n{subscription(subscriber.url)}")
    assert again.count("unchanged") == 2


def test_ready_means_that_every_event_from_now_on_is_due(kubectl_here: MeshKubectl, subscriber: Subscriber) -> None:
    kubectl_here.ready(subscriber)
    event = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "at-once"}
    assert kubectl_here.mesh.post("/default/orders", event, b"{}").status == 202
    assert subscriber.get("at-once")[1] == b"{}"


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_cloudevents_own_sdk_sends_and_the_subscriber_gets_the_same(
    kubectl_here: MeshKubectl, subscriber: Subscriber, mode: str
) -> None:
    kubectl_here.ready(subscriber)
    attributes = {"id": f"sdk-{mode}", "source": "/sdk", "type": "com.example", "specversion": "1.0", "subject": "ü %"}
    event = CloudEvent({**attributes, "datacontenttype": "application/json"}, {"n": 1})
    message = to_binary_event(event) if mode == "binary" else to_structured_event(event)
    request = Request(kubectl_here.mesh.endpoints["ingress"] + "/default/orders", message.body, dict(message.headers))
    with urlopen(request, timeout=DEADLINE_S) as answer:
        assert answer.status == 202
        assert answer.headers["Eventing-Receipt"]
    headers, body = subscriber.received.get(timeout=DEADLINE_S)
    assert body == message.body
    if mode == "binary":
        assert headers["ce-id"] == attributes["id"]
        assert headers["ce-subject"] == message.headers["ce-subject"]
    else:
        assert headers["content-type"].startswith("application/cloudevents+json")


def test_an_edit_moves_the_subscription_and_a_deletion_ends_it(kubectl_here: MeshKubectl, subscriber: Subscriber) -> None:
    kubectl = kubectl_here
    kubectl.ready(subscriber)
    with Subscriber() as other:
        patch = json.dumps({"spec": {"subscriber": {"uri": other.url}}})
        kubectl("patch", "subscription", "printer", "--type=merge", "-p", patch)
        eventually(
            lambda: kubectl.object("subscription", "printer")["status"].get("observedGeneration") == 2, "the edit is observed"
        )
        kubectl("wait", "--for=condition=Ready", "subscription/printer", "--timeout=20s")
        event = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "moved"}
        assert kubectl.mesh.post("/default/orders", event, b"{}").status == 202
        assert other.get("moved")[1] == b"{}"
    kubectl("delete", "subscription", "printer")
    eventually(
        lambda: not kubectl.object("inmemorychannel", "orders")["spec"].get("subscribers"), "the subscriber leaves the channel"
    )


def test_an_in_memory_channel_waits_for_nobody_when_it_is_deleted(kubectl_here: MeshKubectl, subscriber: Subscriber) -> None:
    """It leaves nothing outside the mesh, so it has no finalizer; and Knative's scope is checked (Knative writes no default)."""
    kubectl_here.ready(subscriber)
    metadata = kubectl_here.object("inmemorychannel", "orders")["metadata"]
    assert "finalizers" not in metadata
    assert metadata["annotations"] == {"messaging.knative.dev/subscribable": "v1"}
    said = kubectl_here("annotate", "--overwrite", "inmemorychannels", "orders", "eventing.knative.dev/scope=galaxy", code=1)
    assert "galaxy" in said


def test_what_is_wrong_is_said_as_knative_says_it(kubectl_here: MeshKubectl) -> None:
    kubectl = kubectl_here
    wrong = subscription("not-a-url").replace("name: orders", "name: ''")
    said = kubectl("apply", "-f", "-", given=wrong, code=1)
    assert "spec.channel.name" in said
    unknown = CHANNEL + "spec:\n  chanelTemplate: {}\n"
    assert 'unknown field "spec.chanelTemplate"' in kubectl("apply", "-f", "-", given=unknown, code=1)
    waiting = subscription("http://localhost:1/").replace("name: orders", "name: nowhere").replace("name: printer", "name: early")
    kubectl("apply", "-f", "-", given=waiting)
    eventually(
        lambda: (
            '"nowhere"' in kubectl("get", "subscription", "early", "-o", "yaml")
            or "nowhere"
            in kubectl("get", "subscription", "early", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].message}")
        ),
        "the missing channel is named",
    )
    ready = kubectl("get", "subscription", "early", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
    assert ready != "True"


def test_what_the_mesh_says_of_its_objects(kubectl_here: MeshKubectl, subscriber: Subscriber) -> None:
    """The verbs themselves are tested one by one on the API server alone (test_kubectl_*.py)."""
    kubectl = kubectl_here
    kubectl.ready(subscriber)
    for line, expected in {
        "get ch,sub,imc -A": "inmemorychannel.messaging.knative.dev/orders",
        "get channels orders -o jsonpath={.status.address.url}": "/default/orders",
        "describe subscription printer": "SubscriberSync",
        "events --for=subscriptions.messaging.knative.dev/printer": "SubscriberSync",
        "explain subscription.spec.delivery.retry": "How many times to try again",
    }.items():
        assert expected in kubectl(*line.split()), line
