"""Metrics: plain counters that the hot path adds to, and the table that gives them their names when somebody asks.

`docs/metrics.md` lists the names. Labels are the names of channels and subscriptions and status codes; never ids.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["BUCKETS_S", "ChannelMetrics", "DataPlaneCollector", "SubscriptionMetrics", "registry"]

# Knative's buckets for dispatch durations (reference: "Metrics"), and two below them: most of ours end under 5 ms.
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SubscriptionMetrics:
    """Counts of one subscription, kept while it exists in this process."""

    __slots__ = (
        "_drops",
        "buckets",
        "codes",
        "dead_lettered",
        "delivered",
        "duration_sum",
        "name",
        "namespace",
        "replied",
        "retried",
    )

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.codes: dict[int, int] = {}
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.duration_sum = 0.0
        self.delivered = 0
        self.dead_lettered = 0
        self.replied = 0
        self.retried = 0
        self._drops: dict[str, int] = {}

    def attempted(self, status: int, duration_s: float) -> None:
        """One attempt ended; status 0: no answer."""
        codes = self.codes
        codes[status] = codes.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS_S, duration_s)] += 1
        self.duration_sum += duration_s

    def dropped(self, reason: str) -> None:
        self._drops[reason] = self._drops.get(reason, 0) + 1

    @property
    def drops(self) -> Mapping[str, int]:
        return self._drops


class ChannelMetrics:
    """Counts of one channel's ingress: answers by status."""

    __slots__ = ("codes", "name", "namespace")

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.codes: dict[int, int] = {}

    def answered(self, status: int) -> None:
        codes = self.codes
        codes[status] = codes.get(status, 0) + 1


Figures = tuple[SubscriptionMetrics, int, int, int | None, float | None]
"""A subscription's metrics, attempts in flight, pending events, their bytes, the age of the oldest."""


class DataPlaneCollector(Collector):
    """Reads the counters of a data-plane process when it is scraped. `subscriptions` and `channels` give them as they are."""

    def __init__(
        self,
        *,
        channels: Callable[[], Iterable[ChannelMetrics]],
        subscriptions: Callable[[], Iterable[Figures]],
        gauges: Callable[[], Mapping[str, float]],
        counters: Callable[[], Mapping[str, float]],
    ) -> None:
        self._channels = channels
        self._subscriptions = subscriptions
        self._gauges = gauges
        self._counters = counters

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        labels = ["namespace", "subscription"]
        requests = CounterMetricFamily(
            "eventing_ingress_requests", "Requests to a channel, by answer.", labels=["namespace", "channel", "code"]
        )
        for channel in self._channels():
            for code, count in channel.codes.items():
                requests.add_metric([channel.namespace, channel.name, str(code)], count)
        yield requests

        attempts = CounterMetricFamily(
            "eventing_delivery_attempts", "Attempts, by the subscriber's answer (0: none).", labels=[*labels, "code"]
        )
        durations = HistogramMetricFamily(
            "eventing_delivery_attempt_duration_seconds", "From sending an event to the end of the answer.", labels=labels
        )
        ends = CounterMetricFamily(
            "eventing_delivery_events", "Events that have ended, by how and why.", labels=[*labels, "end", "reason"]
        )
        retries = CounterMetricFamily("eventing_delivery_retries", "Attempts that led to another one.", labels=labels)
        replies = CounterMetricFamily("eventing_delivery_replies", "Replies handed on.", labels=labels)
        in_flight = GaugeMetricFamily("eventing_delivery_in_flight", "Events being attempted.", labels=labels)
        pending = GaugeMetricFamily("eventing_subscription_pending_events", "Stored and not ended.", labels=labels)
        pending_bytes = GaugeMetricFamily("eventing_subscription_pending_bytes", "Their size in memory.", labels=labels)
        oldest = GaugeMetricFamily("eventing_subscription_oldest_seconds", "Age of the oldest pending.", labels=labels)
        for metrics, attempting, events, size, age in self._subscriptions():
            names = [metrics.namespace, metrics.name]
            for code, count in metrics.codes.items():
                attempts.add_metric([*names, str(code)], count)
            durations.add_metric(names, _cumulative(metrics.buckets), metrics.duration_sum)
            ends.add_metric([*names, "delivered", ""], metrics.delivered)
            if metrics.dead_lettered:
                ends.add_metric([*names, "dead-lettered", ""], metrics.dead_lettered)
            for reason, count in metrics.drops.items():
                ends.add_metric([*names, "dropped", reason], count)
            retries.add_metric(names, metrics.retried)
            replies.add_metric(names, metrics.replied)
            in_flight.add_metric(names, attempting)
            pending.add_metric(names, events)
            if size is not None:
                pending_bytes.add_metric(names, size)
            oldest.add_metric(names, age or 0.0)
        yield from (attempts, durations, ends, retries, replies, in_flight, pending, pending_bytes, oldest)

        for name, value in self._gauges().items():
            gauge = GaugeMetricFamily(name, _GAUGES[name])
            gauge.add_metric([], value)
            yield gauge
        for name, value in self._counters().items():
            counter = CounterMetricFamily(name, _COUNTERS[name])
            counter.add_metric([], value)
            yield counter


_GAUGES: Final = {
    "eventing_ingress_connections": "Open connections of clients.",
    "eventing_delivery_connections": "Open connections to subscribers, replies and dead-letter sinks.",
    "eventing_channel_memory_bytes": "Events that in-memory channels hold.",
    "eventing_channel_memory_limit_bytes": "What they may hold in all.",
}
_COUNTERS: Final = {
    "eventing_ingress_accepted_connections": "Connections accepted.",
    "eventing_journal_overwritten_attempts": "Attempt records overwritten because the journal was full.",
    "eventing_journal_overwritten_events": "Events let go of by the journal because it was full.",
}


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0.0
    result: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), buckets, strict=True):
        total += count
        result.append((bound, total))
    return result


def registry(collector: DataPlaneCollector) -> CollectorRegistry:
    """A registry with the collector and the process's own figures."""
    from prometheus_client import ProcessCollector

    result = CollectorRegistry()
    result.register(collector)
    ProcessCollector(registry=result)
    return result
