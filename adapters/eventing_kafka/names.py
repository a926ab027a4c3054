"""What a channel and its subscriptions are called in Kafka, and the annotations that say otherwise. Knative's names."""

from typing import Final

from eventing.resources.kinds import Object
from eventing.resources.subscribers import GROUP_ANNOTATION, Subscriber

__all__ = [
    "CONFIG_MAP",
    "EXTERNAL_TOPIC_ANNOTATION",
    "GROUP_ANNOTATION",
    "ORDER_ANNOTATION",
    "SUBSCRIPTION_OPTIONS",
    "external_topic",
    "given_group",
    "group_of",
    "own_group",
    "topic_of",
]

CONFIG_MAP: Final = "kafka-channel-config"

# Of a channel: a topic that somebody else made and keeps.
EXTERNAL_TOPIC_ANNOTATION: Final = "kafka.eventing.knative.dev/external.topic"
# Of a Subscription, beside its consumer group: whether partitions are read in order.
ORDER_ANNOTATION: Final = "kafka.eventing.knative.dev/delivery.order"
SUBSCRIPTION_OPTIONS: Final = frozenset({GROUP_ANNOTATION, ORDER_ANNOTATION})


def external_topic(channel: Object) -> str:
    """The topic that the channel was told to use; "" where it has one of its own."""
    annotations: dict[str, str] = channel["metadata"].get("annotations") or {}
    return annotations.get(EXTERNAL_TOPIC_ANNOTATION, "")


def topic_of(channel: Object) -> str:
    """The topic that holds the channel's events."""
    metadata = channel["metadata"]
    return external_topic(channel) or f"knative-messaging-kafka.{metadata['namespace']}.{metadata['name']}"


def given_group(subscriber: Subscriber) -> str:
    """The consumer group that the Subscription names (it outlives the Subscription); "" where it has one of its own."""
    return subscriber.annotations.get(GROUP_ANNOTATION, "")


def group_of(channel: Object, subscriber: Subscriber) -> str:
    """The consumer group in which the subscription's place is kept."""
    return given_group(subscriber) or own_group(channel, subscriber.uid)


def own_group(channel: Object, subscription_uid: str) -> str:
    """The consumer group of a Subscription that names none: a recreated one has another uid and starts anew."""
    metadata = channel["metadata"]
    return f"kafka.{metadata['namespace']}.{metadata['name']}.{subscription_uid}"
