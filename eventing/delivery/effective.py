"""The delivery that is in force for a Subscription, told to people: each value, and where it comes from.

`eventing describe subscription` prints these rows; the table of defaults in docs/delivery.md is the same rows for a Subscription
that says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eventing.delivery.policy import JITTER, Policy, backoff
from eventing.journal import Rule
from eventing.resources.kinds import Object
from eventing.resources.subscribers import CONCURRENCY_ANNOTATION, Delivery, Subscriber, read_subscribers

__all__ = ["Row", "effective_delivery"]

WAITS_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class Row:
    """`field` is what sets it; `source` is subscription, channel or default."""

    what: str
    value: str
    source: str
    field: str


def effective_delivery(subscription: Object | None = None, channel: Object | None = None) -> tuple[Row, ...]:
    """What holds for the Subscription, given the channel that it names (None: there is none, or it does not exist).

    The Subscription's `delivery` replaces the channel's whole; only the dead-letter sink falls back to the channel's."""
    subscription = subscription or {}
    own: Mapping[str, Any] = (subscription.get("spec") or {}).get("delivery") or {}
    channels: Mapping[str, Any] = ((channel or {}).get("spec") or {}).get("delivery") or {}
    given, giver = (own, "subscription") if own else (channels, "channel")
    metadata = subscription.get("metadata") or {}
    entry = {"uid": "", "delivery": dict(given), "annotations": metadata.get("annotations") or {}}
    (subscriber,) = read_subscribers({"metadata": {}, "spec": {"subscribers": [entry]}})
    delivery = subscriber.delivery

    def source(*fields: str) -> str:
        return giver if any(given.get(field) is not None for field in fields) else "default"

    sink_giver = "subscription" if own.get("deadLetterSink") else "channel" if channels.get("deadLetterSink") else "default"
    sink = own.get("deadLetterSink") or channels.get("deadLetterSink")
    return (
        Row("retries after the first attempt", str(delivery.retry or "none"), source("retry"), "delivery.retry"),
        Row("time for one attempt", _time(delivery.timeout_s), source("timeout"), "delivery.timeout"),
        Row(
            "wait between attempts",
            _waits(delivery),
            source("backoffPolicy", "backoffDelay"),
            "delivery.backoffPolicy, delivery.backoffDelay",
        ),
        Row("Retry-After on 429 and 503", _retry_after(delivery), source("retryAfterMax"), "delivery.retryAfterMax"),
        Row("after the last attempt", _last(sink, subscription, channel), sink_giver, "delivery.deadLetterSink"),
        Row("content mode", _mode(delivery.format), source("format"), "delivery.format"),
        Row(
            "attempts at the same time",
            _concurrency(subscriber, channel),
            _concurrency_source(subscriber),
            CONCURRENCY_ANNOTATION,
        ),
    )


def _time(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _waits(delivery: Delivery) -> str:
    if not delivery.retry:
        return "none"
    if not delivery.backoff_delay_s:
        return "none: at once"
    policy = Policy(backoff_policy=delivery.backoff_policy, backoff_delay_s=delivery.backoff_delay_s)
    shown = [f"{backoff(attempt, policy)[0]:g}" for attempt in range(1, min(delivery.retry, WAITS_SHOWN) + 1)]
    more = " …" if delivery.retry > WAITS_SHOWN else ""
    return f"{delivery.backoff_policy}: {', '.join(shown)}{more} s, each up to {JITTER:.0%} longer"


def _retry_after(delivery: Delivery) -> str:
    if not delivery.retry_after_max_s:
        return "ignored"
    return f"honoured up to {_time(delivery.retry_after_max_s)}"


def _last(sink: Mapping[str, Any] | None, subscription: Object, channel: Object | None) -> str:
    if not sink:
        return f"dropped with reason {Rule.NO_DEAD_LETTER_SINK.reason}"
    physical = (subscription.get("status") or {}).get("physicalSubscription") or {}
    resolved = physical.get("deadLetterSinkUri") or ((channel or {}).get("status") or {}).get("deadLetterSinkUri")
    ref = sink.get("ref") or {}
    return f"to {resolved or sink.get('uri') or ref.get('kind', '') + ' ' + ref.get('name', '') + ', not resolved yet'}"


def _mode(format_: str | None) -> str:
    return {"json": "structured (json)", "binary": "binary"}.get(format_ or "", "as it came")


def _concurrency(subscriber: Subscriber, channel: Object | None) -> str:
    number = subscriber.concurrency
    if number == 1:
        return "1, in order"
    template = ((channel or {}).get("spec") or {}).get("channelTemplate") or {}
    kind = template.get("kind") or (channel or {}).get("kind") or "InMemoryChannel"
    # What a durable channel keeps is its own matter (docs/kafka.md, docs/rabbitmq.md): nothing is said of it that may be wrong.
    return f"{number}, in no order" if kind in {"InMemoryChannel", "Channel"} else f"{number}, in the order that the {kind} keeps"


def _concurrency_source(subscriber: Subscriber) -> str:
    text = subscriber.annotations.get(CONCURRENCY_ANNOTATION, "")
    return "subscription" if text.isascii() and text.isdigit() else "default"
