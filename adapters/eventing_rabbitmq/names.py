"""What a channel and its subscriptions are called in RabbitMQ, and how their queues are made (decision 0018).

An exchange per channel, a queue per Subscription, bound to it; beside each queue, made when first needed, queues in which events
wait until they are due again.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber

__all__ = [
    "CLASSIC",
    "CONFIG_MAP",
    "DELAYS_S",
    "QUORUM",
    "SINGLE_CONSUMER",
    "claim_of",
    "delay_queue",
    "delay_queue_arguments",
    "delay_queues",
    "exchange_of",
    "is_ordered",
    "queue_arguments",
    "queue_name_room",
    "queue_of",
    "queue_type",
]

CONFIG_MAP: Final = "rabbitmq-channel-config"

QUORUM: Final = "quorum"
CLASSIC: Final = "classic"
SINGLE_CONSUMER: Final = "x-single-active-consumer"

# How long an event may wait in a delay queue, seconds: one queue for each, since a queue lets go of its first message only. What
# is to wait longer goes round again, what is left at the end is waited out in the process.
DELAYS_S: Final = (8, 30, 120, 600, 3600, 21600)
_LONGEST_NAME: Final = 255  # bytes; a short string of AMQP
_UID_LENGTH: Final = 36


def queue_type(channel: Object) -> str:
    """QUORUM or CLASSIC."""
    return str((channel.get("spec") or {}).get("queueType") or QUORUM)


def exchange_of(channel: Object) -> str:
    """The exchange that the channel's events are published to: fanout, durable."""
    metadata = channel["metadata"]
    return f"knative-messaging-rabbitmq.{metadata['namespace']}.{metadata['name']}"


def queue_of(channel: Object, subscription_uid: str) -> str:
    """The queue with what is due to a Subscription. A recreated one has another uid, and starts anew."""
    metadata = channel["metadata"]
    return f"rabbitmq.{metadata['namespace']}.{metadata['name']}.{subscription_uid}"


def claim_of(queue: str) -> str:
    """The name of the claim on a queue: itself a queue, empty, of one connection, there while a process consumes from `queue` in
    order and RabbitMQ would let others do so too."""
    return f"{queue}.claim"


def queue_name_room(channel: Object) -> int:
    """How many bytes longer the channel's names might be; below 0 RabbitMQ would refuse them."""
    longest = delay_queue(queue_of(channel, "u" * _UID_LENGTH), DELAYS_S[-1])
    return _LONGEST_NAME - max(len(exchange_of(channel).encode()), len(longest.encode()))


def is_ordered(subscriber: Subscriber) -> bool:
    """Whether the subscription gets one event at a time, over all processes: then RabbitMQ lets only one of them consume."""
    return subscriber.order == "subscription" or (subscriber.order != "none" and subscriber.concurrency == 1)


def queue_arguments(channel: Object, subscriber: Subscriber, *, no_delivery_limit: bool) -> dict[str, Any]:
    """The arguments of a subscription's queue, which is durable.

    `no_delivery_limit`: the broker has a limit unless told otherwise (RabbitMQ 4), after which it would drop events."""
    arguments: dict[str, Any] = {"x-queue-type": queue_type(channel)}
    if queue_type(channel) == QUORUM and no_delivery_limit:
        arguments["x-delivery-limit"] = -1
    if is_ordered(subscriber):
        arguments[SINGLE_CONSUMER] = True
    return arguments


def delay_queue(queue: str, delay_s: int) -> str:
    """The queue in which events of the subscription's queue wait for `delay_s` seconds."""
    return f"{queue}.delay.{delay_s}"


def delay_queues(queue: str) -> Iterator[str]:
    """All that there may be."""
    return (delay_queue(queue, delay_s) for delay_s in DELAYS_S)


def delay_queue_arguments(queue: str, delay_s: int) -> Mapping[str, Any]:
    """The arguments of a delay queue, which is durable and bound to nothing. What has waited goes back to `queue`.

    Always a quorum queue: an event leaves it only when it has arrived. A classic one lets go of it first, so that a node that
    dies in that moment takes the event with it."""
    return {
        "x-queue-type": QUORUM,
        "x-message-ttl": delay_s * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
