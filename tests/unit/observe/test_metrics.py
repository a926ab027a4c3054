"""The counters as Prometheus reads them."""

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from eventing.observe.metrics import BUCKETS_S, ChannelMetrics, DataPlaneCollector, SubscriptionMetrics, registry


def samples(collector: DataPlaneCollector) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = generate_latest(registry(collector)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def collector(channel: ChannelMetrics, subscription: SubscriptionMetrics, size: int | None = 700) -> DataPlaneCollector:
    return DataPlaneCollector(
        channels=lambda: [channel],
        subscriptions=lambda: [(subscription, 2, 5, size, 1.5)],
        gauges=lambda: {"eventing_ingress_connections": 3.0},
        counters=lambda: {"eventing_ingress_accepted_connections": 4.0},
    )


@pytest.mark.parametrize("name", ["orders", 'we"ird\\\n'])
def test_what_is_counted_is_exposed_under_its_names(name: str) -> None:
    channel, subscription = ChannelMetrics("default", name), SubscriptionMetrics("default", "sub")
    channel.answered(202)
    channel.answered(202)
    channel.answered(400)
    for status, duration in ((200, 0.0004), (200, 0.001), (503, 0.003), (0, 99.0)):
        subscription.attempted(status, duration)
    subscription.delivered = 2
    subscription.dead_lettered = 1
    subscription.dropped("Overflow")
    found = samples(collector(channel, subscription))
    on = {("namespace", "default"), ("subscription", "sub")}
    at = {("namespace", "default"), ("channel", name)}
    assert found["eventing_ingress_requests_total", frozenset(at | {("code", "202")})] == 2
    assert found["eventing_ingress_requests_total", frozenset(at | {("code", "400")})] == 1
    assert found["eventing_delivery_attempts_total", frozenset(on | {("code", "0")})] == 1
    for end, reason, count in (("delivered", "", 2), ("dead-lettered", "", 1), ("dropped", "Overflow", 1)):
        assert found["eventing_delivery_events_total", frozenset(on | {("end", end), ("reason", reason)})] == count
    buckets = [found["eventing_delivery_attempt_duration_seconds_bucket", frozenset(on | {("le", str(b))})] for b in BUCKETS_S]
    assert buckets[0] == 2
    assert buckets == sorted(buckets)
    assert found["eventing_delivery_attempt_duration_seconds_bucket", frozenset(on | {("le", "+Inf")})] == 4
    assert found["eventing_delivery_attempt_duration_seconds_count", frozenset(on)] == 4
    assert found["eventing_delivery_in_flight", frozenset(on)] == 2
    assert found["eventing_subscription_pending_events", frozenset(on)] == 5
    assert found["eventing_subscription_pending_bytes", frozenset(on)] == 700
    assert found["eventing_ingress_connections", frozenset()] == 3
    assert found["eventing_ingress_accepted_connections_total", frozenset()] == 4


def test_no_label_holds_an_id_or_an_address() -> None:
    """A19."""
    found = samples(collector(ChannelMetrics("default", "orders"), SubscriptionMetrics("default", "sub")))
    ours = {name for sample, labels in found for name, _ in labels if sample.startswith("eventing_")}
    assert ours <= {"namespace", "channel", "subscription", "code", "end", "reason", "le"}


def test_a_back_end_that_cannot_tell_its_bytes_tells_none() -> None:
    found = samples(collector(ChannelMetrics("d", "c"), SubscriptionMetrics("d", "s"), size=None))
    assert not [sample for sample, _ in found if sample == "eventing_subscription_pending_bytes"]
