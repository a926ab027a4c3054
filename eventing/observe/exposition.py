"""What the counters of a data-plane process look like to Prometheus. Names, meanings and labels are in the catalogue."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from eventing import __version__
from eventing.observe.catalogue import Family, family
from eventing.observe.metrics import BUCKETS_S, Histogram, IngressMetrics
from eventing.observe.stalls import LOOP
from eventing.observe.traces import Tracing

__all__ = ["DataPlaneCollector", "add_histogram", "add_value", "expose", "registry", "single"]


class DataPlaneCollector(Collector):
    """The counters of a data-plane process that are not of a channel or a subscription (see Scrape). `figures` are those without
    labels, by name."""

    def __init__(
        self,
        *,
        removed: Counter[tuple[str, str]],
        ingress: IngressMetrics,
        tracing: Tracing | None = None,
        figures: Callable[[], Mapping[str, float]],
    ) -> None:
        self._removed = removed
        self._ingress = ingress
        self._tracing = tracing
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        unrouted, removed = family("eventing_ingress_unrouted_requests"), family("eventing_removed_subscriptions_events")
        for code, count in self._ingress.unrouted.items():
            add_value(unrouted, (str(code),), count)
        for end, count in self._removed.items():
            add_value(removed, end, count)
        yield from (unrouted, removed)
        if self._tracing is not None:
            spans = family("eventing_trace_spans")
            for outcome, count in self._tracing.counts.items():
                add_value(spans, (outcome,), count)
            yield spans
        for name, value in self._figures().items():
            yield single(name, value)


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
