"""RabbitmqChannel as it is admitted; and what it and its subscriptions are called in RabbitMQ."""

from typing import Any

import pytest

from eventing.resources.crds import crd
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber
from eventing_rabbitmq.kind import RABBITMQ_CHANNEL
from eventing_rabbitmq.names import delay_queue_arguments, delay_queues, exchange_of, queue_arguments, queue_of
from tests.support.admission import admitted, refused

UID = "5d1e0f0e-7a43-4d3b-9c11-1b6a0a6a4c55"


def channel(spec: dict[str, Any] | None = None, annotations: dict[str, str] | None = None, name: str = "orders") -> Object:
    metadata = {"namespace": "shop", "name": name, "annotations": annotations or {}}
    return {"apiVersion": RABBITMQ_CHANNEL.api_version, "kind": "RabbitmqChannel", "metadata": metadata, "spec": spec or {}}


@pytest.mark.parametrize("spec", [{}, {"queueType": ""}])
def test_defaults(spec: dict[str, Any]) -> None:
    made = admitted(RABBITMQ_CHANNEL, channel(spec))
    assert made["spec"] == {"queueType": "quorum"}
    assert made["metadata"]["annotations"] == {"messaging.knative.dev/subscribable": "v1"}


def test_faults() -> None:
    assert refused(RABBITMQ_CHANNEL, channel({"queueType": "stream"})) == (
        "invalid value: stream: spec.queueType\nexpected either 'quorum' or 'classic'"
    )
    assert refused(RABBITMQ_CHANNEL, channel(annotations={"eventing.knative.dev/scope": "world"})) == (
        "invalid value: world: metadata.annotations.[eventing.knative.dev/scope]\nexpected either 'cluster' or 'namespace'"
    )
    assert refused(RABBITMQ_CHANNEL, channel({"subscribers": [{"uid": "u"}]})).startswith(
        "missing field(s): spec.subscribable.subscriber[0]"
    )


def test_the_type_of_the_queues_is_immutable() -> None:
    before = admitted(RABBITMQ_CHANNEL, channel())
    assert refused(RABBITMQ_CHANNEL, channel({"queueType": "classic"}), before) == (
        'Immutable fields changed (-old +new): spec\n{v1beta1.RabbitmqChannelSpec}.QueueType:\n\t-: "quorum"\n\t+: "classic"\n'
    )
    assert admitted(RABBITMQ_CHANNEL, channel({"delivery": {"retry": 3}}, {"eventing-mesh.dev/journal-data": "omit"}), before)
    assert admitted(RABBITMQ_CHANNEL, channel({"queueType": "quorum"}), channel())


def test_a_name_that_is_too_long_for_rabbitmq() -> None:
    longest = admitted(RABBITMQ_CHANNEL, channel(name="n" * 192))
    names = [exchange_of(longest), *delay_queues(queue_of(longest, UID))]
    assert max(len(name) for name in names) == 255
    assert "metadata.name" in refused(RABBITMQ_CHANNEL, channel(name="n" * 193))


def test_definition() -> None:
    definition = crd(RABBITMQ_CHANNEL)
    names = definition["spec"]["names"]
    assert (names["plural"], names["shortNames"], names["categories"]) == (
        "rabbitmqchannels", ["rmqc"], ["all", "knative", "messaging", "channel"]
    )  # fmt: skip
    (version,) = definition["spec"]["versions"]
    assert version["name"] == "v1beta1"
    assert [column["name"] for column in version["additionalPrinterColumns"]] == ["Ready", "Reason", "URL", "Age"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert {"queueType", "delivery", "subscribers"} == set(properties)


def subscriber(**annotations: str) -> Subscriber:
    return Subscriber(UID, "s", "shop", 1, "http://s", annotations={f"eventing-mesh.dev/{k}": v for k, v in annotations.items()})


def test_names_in_rabbitmq() -> None:
    assert exchange_of(channel()) == "knative-messaging-rabbitmq.shop.orders"
    assert queue_of(channel(), UID) == f"rabbitmq.shop.orders.{UID}"


def test_queues_drop_nothing_by_themselves() -> None:
    waiting = delay_queue_arguments("q", 8)
    for kind in ("quorum", "classic"):
        given = queue_arguments(channel({"queueType": kind}), subscriber(), no_delivery_limit=False)
        assert given["x-queue-type"] == kind
        for arguments in (given, waiting):
            assert not {"x-max-length", "x-max-length-bytes", "x-expires"} & set(arguments)
    assert queue_arguments(channel(), subscriber(), no_delivery_limit=True)["x-delivery-limit"] == -1
    assert "x-delivery-limit" not in queue_arguments(channel({"queueType": "classic"}), subscriber(), no_delivery_limit=True)
    assert (waiting["x-message-ttl"], waiting["x-dead-letter-exchange"], waiting["x-dead-letter-routing-key"]) == (8000, "", "q")
    assert (waiting["x-queue-type"], waiting["x-dead-letter-strategy"]) == ("quorum", "at-least-once")


@pytest.mark.parametrize(
    ("annotations", "single"),
    [
        ({}, False),
        ({"concurrency": "1"}, True),
        ({"order": "subscription"}, True),
        ({"concurrency": "1", "order": "none"}, False),
    ],
)
def test_order_is_one_consumer_at_a_time(annotations: dict[str, str], single: bool) -> None:
    given = queue_arguments(channel(), subscriber(**annotations), no_delivery_limit=False)
    assert given.get("x-single-active-consumer", False) is single
