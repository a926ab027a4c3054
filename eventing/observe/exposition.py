"""What the counters of a data-plane process look like to Prometheus. Names, meanings and labels are in the catalogue."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from eventing import __version__
from eventing.observe.catalogue import Family, family
from eventing.observe.metrics import BUCKETS_S, ChannelMetrics, Histogram, IngressMetrics, SubscriptionMetrics
from eventing.observe.stalls import LOOP
from eventing.observe.traces import Tracing

__all__ = ["DataPlaneCollector", "Figures", "add_histogram", "add_value", "expose", "registry", "single"]

Figures = tuple[SubscriptionMetrics, int, int, int | None, float | None]
"""A subscription's metrics, attempts in flight, pending events, their bytes, the age of the oldest."""


class DataPlaneCollector(Collector):
    """Reads the counters of a data-plane process when it is scraped. `figures` are those without labels, by name."""

    def __init__(
        self,
        *,
        channels: Callable[[], Iterable[ChannelMetrics]],
        subscriptions: Callable[[], Iterable[Figures]],
        removed: Counter[tuple[str, str]],
        ingress: IngressMetrics,
        tracing: Tracing | None = None,
        figures: Callable[[], Mapping[str, float]],
    ) -> None:
        self._channels = channels
        self._subscriptions = subscriptions
        self._removed = removed
        self._ingress = ingress
        self._tracing = tracing
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        yield from self._ingress_families()
        yield from self._delivery_families()
        if self._tracing is not None:
            spans = family("eventing_trace_spans")
            for outcome, count in self._tracing.counts.items():
                add_value(spans, (outcome,), count)
            yield spans
        for name, value in self._figures().items():
            yield single(name, value)

    def _ingress_families(self) -> Iterator[Family]:
        requests, events, stores, unrouted = map(
            family,
            (
                "eventing_ingress_requests",
                "eventing_ingress_events",
                "eventing_ingress_store_duration_seconds",
                "eventing_ingress_unrouted_requests",
            ),
        )
        for channel in self._channels():
            names = (channel.namespace, channel.name)
            for code, count in channel.codes.items():
                add_value(requests, (*names, str(code)), count)
            add_value(events, names, channel.codes.get(202, 0) + channel.batched)
            if channel.stores:
                add_histogram(stores, names, channel.stores)
        for code, count in self._ingress.unrouted.items():
            add_value(unrouted, (str(code),), count)
        return iter((requests, events, stores, unrouted))

    def _delivery_families(self) -> Iterator[Family]:
        attempts, durations, ends, retries, replies, in_flight = (
            family(f"eventing_delivery_{what}")
            for what in ("attempts", "attempt_duration_seconds", "events", "retries", "replies", "in_flight")
        )
        pending, size, oldest = (
            family(f"eventing_subscription_{what}") for what in ("pending_events", "pending_bytes", "oldest_seconds")
        )
        for metrics, attempting, events, events_bytes, age_s in self._subscriptions():
            names = (metrics.namespace, metrics.channel, metrics.name)
            for code, histogram in metrics.answers.items():
                add_value(attempts, (*names, str(code)), sum(histogram[:-1]))
                add_histogram(durations, (*names, str(code)), histogram)
            for end, count in metrics.ends.items():
                add_value(ends, (*names, *end), count)
            add_value(retries, names, metrics.retried)
            add_value(replies, names, metrics.replied)
            add_value(in_flight, names, attempting)
            add_value(pending, names, events)
            if events_bytes is not None:
                add_value(size, names, events_bytes)
            add_value(oldest, names, age_s or 0.0)
        removed = family("eventing_removed_subscriptions_events")
        for end, count in self._removed.items():
            add_value(removed, end, count)
        return iter((attempts, durations, ends, retries, replies, in_flight, pending, size, oldest, removed))


def single(name: str, value: float) -> Family:
    """The family of a metric without labels."""
    made = family(name)
    add_value(made, (), value)
    return made


def add_value(to: Family, labels: tuple[str, ...], value: float) -> None:
    """Add a sample to a counter or a gauge."""
    assert isinstance(to, CounterMetricFamily | GaugeMetricFamily)
    to.add_metric(labels, value)


def add_histogram(to: Family, labels: tuple[str, ...], histogram: Histogram) -> None:
    """Add the samples of one histogram."""
    assert isinstance(to, HistogramMetricFamily)
    total = 0.0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram, strict=False):
        total += count
        buckets.append((bound, total))
    to.add_metric(labels, buckets, histogram[-1])


class _Loop(Collector):
    """The event loop of this process, where somebody watches it."""

    def collect(self) -> Iterator[Family]:
        if LOOP.watched:
            yield single("eventing_loop_lag_seconds", LOOP.lag_s)
            yield single("eventing_loop_longest_lag_seconds", LOOP.longest_s)
            yield single("eventing_loop_stalls", LOOP.stalls)


class _Build(Collector):
    def __init__(self, process: str) -> None:
        self._process = process

    def collect(self) -> Iterator[Family]:
        info = family("eventing_build_info")
        add_value(info, (__version__, self._process), 1)
        yield info


def registry(process: str, *collectors: Collector) -> CollectorRegistry:
    """A registry with the collectors, what version this is, and the process's own figures. `process` is the role it plays."""
    from prometheus_client import ProcessCollector

    result = CollectorRegistry()
    for collector in (*collectors, _Loop(), _Build(process)):
        result.register(collector)
    ProcessCollector(registry=result)
    return result


def expose(metrics: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """Content type and body: OpenMetrics where the Accept header asks for it, else Prometheus' text format."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(metrics)
