"""The subscribers of a backing channel, as the data plane reads them from `spec.subscribers`.

No pydantic here: the data plane imports this module, and its memory and start-up are its users'.
docs/decisions/0004-subscriber-entry.md says what an entry holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventing.errors import Fault, InvalidObjectError
from eventing.resources.duration import parse_duration
from eventing.resources.kinds import Object

__all__ = [
    "CONCURRENCY_ANNOTATION",
    "CONCURRENCY_LIMIT",
    "DEFAULT_CONCURRENCY",
    "GROUP_ANNOTATION",
    "JOURNAL_DATA_ANNOTATION",
    "OPTION_PREFIX",
    "ORDERS",
    "ORDER_ANNOTATION",
    "Delivery",
    "Subscriber",
    "read_subscribers",
]

OPTION_PREFIX: Final = "eventing-mesh.dev/"
CONCURRENCY_ANNOTATION: Final = OPTION_PREFIX + "concurrency"
ORDER_ANNOTATION: Final = OPTION_PREFIX + "order"  # none | key | partition | subscription, as far as the channel keeps it
ORDERS: Final = ("none", "key", "partition", "subscription")
GROUP_ANNOTATION: Final = "group.id"  # Knative's: the consumer group to go on with, where the back end has such
JOURNAL_DATA_ANNOTATION: Final = OPTION_PREFIX + "journal-data"  # of a channel: keep (default) | omit
CONCURRENCY_LIMIT: Final = 1000
DEFAULT_CONCURRENCY: Final = 10


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivery options with every default applied; times in seconds."""

    retry: int = 5
    timeout_s: float = 30.0
    backoff_policy: str = "exponential"
    backoff_delay_s: float = 0.5
    retry_after_max_s: float = 300.0  # 0: Retry-After is ignored
    dead_letter_uri: str | None = None
    dead_letter_ca_certs: str | None = None
    format: str | None = None  # json | binary | None: as it came


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One entry of `spec.subscribers`. `uid` tells a Subscription from an earlier one of the same name."""

    uid: str
    name: str
    namespace: str
    generation: int
    subscriber_uri: str | None
    subscriber_ca_certs: str | None = None
    reply_uri: str | None = None
    reply_ca_certs: str | None = None
    delivery: Delivery = field(default_factory=Delivery)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def concurrency(self) -> int:
        """Deliveries in flight at a time, 1 to 1000; 1 keeps order."""
        text = self.annotations.get(CONCURRENCY_ANNOTATION, "")
        return min(max(int(text), 1), CONCURRENCY_LIMIT) if text.isascii() and text.isdigit() else DEFAULT_CONCURRENCY

    @property
    def order(self) -> str:
        """The order that is asked for by annotation, "" where none is."""
        return self.annotations.get(ORDER_ANNOTATION, "")


def read_subscribers(channel: Object) -> tuple[Subscriber, ...]:
    """The subscribers of a backing channel in the order of its spec; `spec.delivery` stands in where one has
    none.

    InvalidObjectError names the entry that cannot be read (admission lets none such through).
    """
    spec: Mapping[str, Any] = channel.get("spec") or {}
    fallback = spec.get("delivery") or {}
    namespace = channel["metadata"].get("namespace", "")
    subscribers = []
    for index, entry in enumerate(spec.get("subscribers") or ()):
        try:
            subscribers.append(_subscriber(entry, fallback, namespace))
        except (KeyError, TypeError, ValueError) as error:
            where = f"spec.subscribers[{index}]"
            raise InvalidObjectError(f"{where}: {error}", [Fault(where, str(error))]) from error
    return tuple(subscribers)


def _subscriber(entry: Mapping[str, Any], fallback: Mapping[str, Any], namespace: str) -> Subscriber:
    return Subscriber(
        uid=entry["uid"],
        name=entry.get("name", ""),
        namespace=namespace,
        generation=int(entry.get("generation", 0)),
        subscriber_uri=entry.get("subscriberUri"),
        subscriber_ca_certs=entry.get("subscriberCACerts"),
        reply_uri=entry.get("replyUri"),
        reply_ca_certs=entry.get("replyCACerts"),
        delivery=_delivery(entry.get("delivery") or fallback),
        annotations=dict(entry.get("annotations") or {}),
    )


def _delivery(delivery: Mapping[str, Any]) -> Delivery:
    sink = delivery.get("deadLetterSink") or {}
    default = Delivery()

    def seconds(name: str, otherwise: float) -> float:
        return parse_duration(delivery[name]) if delivery.get(name) is not None else otherwise

    return Delivery(
        retry=int(delivery["retry"]) if delivery.get("retry") is not None else default.retry,
        timeout_s=seconds("timeout", default.timeout_s),
        backoff_policy=delivery.get("backoffPolicy") or default.backoff_policy,
        backoff_delay_s=seconds("backoffDelay", default.backoff_delay_s),
        retry_after_max_s=seconds("retryAfterMax", default.retry_after_max_s),
        dead_letter_uri=sink.get("uri"),
        dead_letter_ca_certs=sink.get("CACerts"),
        format=delivery.get("format"),
    )
