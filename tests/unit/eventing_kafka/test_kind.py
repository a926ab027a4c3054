"""KafkaChannel as it is admitted, in Knative's words; and what it and its subscriptions are called in Kafka."""

import json
from pathlib import Path
from typing import Any

import pytest

from eventing.resources.crds import crd
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber
from eventing_kafka.kind import KAFKA_CHANNEL
from eventing_kafka.names import EXTERNAL_TOPIC_ANNOTATION, group_of, topic_of
from tests.support.admission import admitted, refused, verdict

# What Knative's own webhook says of each, eventing-kafka-broker at 7d8fe89: recorded by the program in tests/support/knativetexts,
# built within that repository (no module proxy has it) with its v1beta1.KafkaChannel for the kind KafkaChannel.
VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("knative_texts.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["text"][:60] or "taken")
def test_each_object_is_refused_in_knatives_words_or_taken(vector: dict[str, Any]) -> None:
    assert verdict(KAFKA_CHANNEL, vector) == vector["text"]


def channel(spec: dict[str, Any] | None = None, annotations: dict[str, str] | None = None) -> Object:
    metadata = {"namespace": "shop", "name": "orders", "annotations": annotations or {}}
    return {"apiVersion": KAFKA_CHANNEL.api_version, "kind": "KafkaChannel", "metadata": metadata, "spec": spec or {}}


@pytest.mark.parametrize("spec", [{}, {"numPartitions": 0, "replicationFactor": 0, "retentionDuration": ""}])
def test_defaults(spec: dict[str, Any]) -> None:
    made = admitted(KAFKA_CHANNEL, channel(spec))
    assert made["spec"] == {"numPartitions": 1, "replicationFactor": 1, "retentionDuration": "PT168H"}
    assert made["metadata"]["annotations"] == {"messaging.knative.dev/subscribable": "v1"}


def test_more_replicas_than_kafka_can_count() -> None:
    assert refused(KAFKA_CHANNEL, channel({"replicationFactor": 32768})) == "invalid value: 32768: spec.replicationFactor"


def test_faults_of_annotations() -> None:
    assert refused(KAFKA_CHANNEL, channel(annotations={"eventing.knative.dev/scope": "world"})) == (
        "invalid value: world: metadata.annotations.[eventing.knative.dev/scope]\nexpected either 'cluster' or 'namespace'"
    )
    assert refused(KAFKA_CHANNEL, channel(annotations={EXTERNAL_TOPIC_ANNOTATION: "a/b"})).startswith(
        f"invalid value: a/b: metadata.annotations.[{EXTERNAL_TOPIC_ANNOTATION}]\nexpected the name of a topic"
    )


def test_the_topic_is_immutable() -> None:
    before = admitted(KAFKA_CHANNEL, channel())
    spec = {"numPartitions": 3, "replicationFactor": 2, "retentionDuration": "PT1H"}
    assert refused(KAFKA_CHANNEL, channel(spec), before) == (
        "Immutable fields changed (-old +new): spec\n"
        '{v1beta1.KafkaChannelSpec}.NumPartitions:\n\t-: "1"\n\t+: "3"\n'
        '{v1beta1.KafkaChannelSpec}.ReplicationFactor:\n\t-: "1"\n\t+: "2"\n'
        '{v1beta1.KafkaChannelSpec}.RetentionDuration:\n\t-: "PT168H"\n\t+: "PT1H"\n'
    )
    elsewhere = refused(KAFKA_CHANNEL, channel(annotations={EXTERNAL_TOPIC_ANNOTATION: "theirs"}), before)
    assert elsewhere.startswith(f"Immutable fields changed (-old +new): metadata.annotations.[{EXTERNAL_TOPIC_ANNOTATION}]")


def test_the_rest_can_be_changed() -> None:
    before = admitted(KAFKA_CHANNEL, channel())
    assert admitted(KAFKA_CHANNEL, channel({"delivery": {"retry": 3}}, {"eventing-mesh.dev/journal-data": "omit"}), before)
    del before["spec"]["retentionDuration"]  # as channels were before Knative 0.26
    assert admitted(KAFKA_CHANNEL, channel({"retentionDuration": "PT1H"}), before)["spec"]["retentionDuration"] == "PT1H"


def test_definition() -> None:
    definition = crd(KAFKA_CHANNEL)
    names = definition["spec"]["names"]
    assert (names["plural"], names["shortNames"], names["categories"]) == (
        "kafkachannels", ["kc"], ["all", "knative", "messaging", "channel"]
    )  # fmt: skip
    (version,) = definition["spec"]["versions"]
    assert version["name"] == "v1beta1"
    assert [column["name"] for column in version["additionalPrinterColumns"]] == ["Ready", "Reason", "URL", "Age"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert {"numPartitions", "replicationFactor", "retentionDuration", "delivery", "subscribers"} == set(properties)
    assert properties["numPartitions"]["format"] == "int32"


def test_names_in_kafka() -> None:
    def subscriber(**annotations: str) -> Subscriber:
        return Subscriber("u-1", "s", "shop", 1, "http://s", annotations=annotations)

    assert topic_of(channel()) == "knative-messaging-kafka.shop.orders"
    assert topic_of(channel(annotations={EXTERNAL_TOPIC_ANNOTATION: "theirs"})) == "theirs"
    assert group_of(channel(), subscriber()) == "kafka.shop.orders.u-1"
    assert group_of(channel(), subscriber(**{"group.id": "mine"})) == "mine"
