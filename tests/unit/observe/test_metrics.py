"""The counters as Prometheus reads them."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format
from prometheus_client.registry import Collector

from eventing.observe.catalogue import METRICS
from eventing.observe.exposition import DataPlaneCollector, expose, registry
from eventing.observe.metrics import BUCKETS_S, ChannelMetrics, IngressMetrics, SubscriptionMetrics

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(*collectors: Collector, accept: str = "") -> Samples:
    content_type, body = expose(registry("dataplane", *collectors), accept)
    families = open_metrics if content_type.startswith("application/openmetrics-text") else text_format
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(body.decode())
        for sample in family.samples
    }


def collector(
    channels: Iterable[ChannelMetrics] = (),
    subscription: SubscriptionMetrics | None = None,
    size: int | None = 700,
    ingress: IngressMetrics | None = None,
) -> DataPlaneCollector:
    return DataPlaneCollector(
        channels=lambda: list(channels),
        subscriptions=lambda: [(subscription, 2, 5, size, 1.5)] if subscription else [],
        removed=Counter({("delivered", ""): 3, ("dropped", "SubscriptionDeleted"): 4}),
        ingress=ingress or IngressMetrics(),
        figures=lambda: {"eventing_ingress_connections": 3.0, "eventing_ingress_accepted_connections": 4.0},
    )


def busy(name: str = "orders") -> DataPlaneCollector:
    """Everything that can be counted was."""
    channel, subscription = ChannelMetrics("default", name), SubscriptionMetrics("default", name, "sub")
    for status in (202, 202, 400):
        channel.answered(status)
    channel.batched += 9
    channel.stored(0.03)
    for status, duration in ((200, 0.0004), (200, 0.001), (503, 0.003), (0, 99.0)):
        subscription.attempted(status, duration)
    subscription.delivered = 2
    subscription.dead_lettered = 1
    subscription.retried = 6
    subscription.replied = 7
    subscription.dropped("Overflow")
    ingress = IngressMetrics()
    ingress.unrouted[404] += 1
    return collector([channel], subscription, ingress=ingress)


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"])
@pytest.mark.parametrize("name", ["orders", 'we"ird\\\n'])
def test_what_is_counted_is_exposed_under_its_names(name: str, accept: str) -> None:
    found = samples(busy(name), accept=accept)
    at = {("namespace", "default"), ("channel", name)}
    on = at | {("subscription", "sub")}
    assert found["eventing_ingress_requests_total", frozenset(at | {("code", "202")})] == 2
    assert found["eventing_ingress_requests_total", frozenset(at | {("code", "400")})] == 1
    assert found["eventing_ingress_events_total", frozenset(at)] == 11
    assert found["eventing_ingress_store_duration_seconds_count", frozenset(at)] == 1
    assert found["eventing_ingress_unrouted_requests_total", frozenset({("code", "404")})] == 1
    for code, count in (("200", 2), ("503", 1), ("0", 1)):
        assert found["eventing_delivery_attempts_total", frozenset(on | {("code", code)})] == count
        assert found["eventing_delivery_attempt_duration_seconds_count", frozenset(on | {("code", code)})] == count
    assert found["eventing_delivery_attempt_duration_seconds_sum", frozenset(on | {("code", "200")})] == pytest.approx(0.0014)
    for end, reason, count in (("delivered", "", 2), ("dead-lettered", "", 1), ("dropped", "Overflow", 1)):
        assert found["eventing_delivery_events_total", frozenset(on | {("end", end), ("reason", reason)})] == count
    name_of_buckets = "eventing_delivery_attempt_duration_seconds_bucket"
    buckets = [found[name_of_buckets, frozenset(on | {("code", "200"), ("le", str(b))})] for b in BUCKETS_S]
    assert buckets == [2] * len(BUCKETS_S)
    assert found[name_of_buckets, frozenset(on | {("code", "0"), ("le", "10.0")})] == 0
    assert found[name_of_buckets, frozenset(on | {("code", "0"), ("le", "+Inf")})] == 1
    assert found["eventing_delivery_in_flight", frozenset(on)] == 2
    assert found["eventing_delivery_retries_total", frozenset(on)] == 6
    assert found["eventing_delivery_replies_total", frozenset(on)] == 7
    assert found["eventing_subscription_pending_events", frozenset(on)] == 5
    assert found["eventing_subscription_pending_bytes", frozenset(on)] == 700
    assert found["eventing_subscription_oldest_seconds", frozenset(on)] == 1.5
    gone = frozenset({("end", "dropped"), ("reason", "SubscriptionDeleted")})
    assert found["eventing_removed_subscriptions_events_total", gone] == 4
    assert found["eventing_ingress_connections", frozenset()] == 3
    assert found["eventing_ingress_accepted_connections_total", frozenset()] == 4


def lint(metrics: CollectorRegistry) -> list[str]:
    """What `promtool check metrics` complains about, and what the catalogue rules out."""
    complaints = []
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for family in metrics.collect():
        if not family.name.startswith("eventing_"):
            continue
        row = METRICS[family.name]
        if not family.documentation.endswith(".") or family.type != row.kind:
            complaints.append(f"{family.name}: help or type")
        if row.kind != "counter" and family.name.endswith(("_total", "_count", "_sum", "_bucket")):
            complaints.append(f"{family.name}: a suffix that belongs to another type")
        if re.search(r"_(ms|milliseconds|kb|kib|mb|minutes|s)$", family.name) or not re.fullmatch(r"[a-z_]+", family.name):
            complaints.append(f"{family.name}: base units, lower case")
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            if key in seen:
                complaints.append(f"{key} twice")
            seen.add(key)
            if set(sample.labels) - {"le"} != set(row.labels):
                complaints.append(f"{sample.name}: labels {sorted(sample.labels)}")
            if sample.value < 0 or math.isnan(sample.value):
                complaints.append(f"{sample.name}: {sample.value}")
    return complaints


def test_names_types_and_labels_are_as_prometheus_wants_them() -> None:
    assert lint(registry("dataplane", busy())) == []


def test_what_has_no_row_in_the_catalogue_is_an_error() -> None:
    stray = DataPlaneCollector(
        channels=list, subscriptions=list, removed=Counter(), ingress=IngressMetrics(), figures=lambda: {"eventing_new": 1}
    )
    with pytest.raises(KeyError, match="eventing_new"):
        samples(stray)


def test_no_label_holds_an_id_or_an_address() -> None:
    """A19."""
    allowed = {
        "namespace", "channel", "subscription", "code", "end", "reason", "version", "process",
        "controller", "result", "resource", "verb", "ready", "outcome",
    }  # fmt: skip
    assert {label for row in METRICS.values() for label in row.labels} <= allowed


def test_a_back_end_that_cannot_tell_its_bytes_tells_none() -> None:
    found = samples(collector(subscription=SubscriptionMetrics("d", "c", "s"), size=None))
    assert not [sample for sample, _ in found if sample == "eventing_subscription_pending_bytes"]


def test_the_documentation_shows_the_catalogue() -> None:
    rows = [
        f"| `{row.exposed}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.help} | {row.knative} |"
        for row in METRICS.values()
    ]
    shown = [line for line in DOCS.read_text().splitlines() if line.startswith("| `eventing_")]
    assert shown == rows, "docs/metrics.md must hold these lines:\n" + "\n".join(rows)
