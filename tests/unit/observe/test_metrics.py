"""The counters as Prometheus reads them."""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from eventing.observe.catalogue import METRICS
from eventing.observe.exposition import DataPlaneCollector, registry
from eventing.observe.metrics import BUCKETS_S, ChannelMetrics, IngressMetrics, SubscriptionMetrics
from eventing.observe.scrape import SLICE, Scrape

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(scrape: Scrape, accept: str = "") -> Samples:
    content_type, body = asyncio.run(scrape.write(accept))
    families = open_metrics if content_type.startswith("application/openmetrics-text") else text_format
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(body.decode())
        for sample in family.samples
    }


def scrape(
    channels: Iterable[ChannelMetrics] = (),
    subscriptions: Iterable[SubscriptionMetrics] = (),
    size: int | None = 700,
    ingress: IngressMetrics | None = None,
    figures: Mapping[str, float] | None = None,
) -> Scrape:
    given = {"eventing_ingress_connections": 3.0, "eventing_ingress_accepted_connections": 4.0}
    collector = DataPlaneCollector(
        removed=Counter({("delivered", ""): 3, ("dropped", "SubscriptionDeleted"): 4}),
        ingress=ingress or IngressMetrics(),
        figures=lambda: given if figures is None else figures,
    )
    return Scrape(
        channels=lambda: iter(channels),
        subscriptions=lambda: ((each, 2, 5, size, 1.5) for each in subscriptions),
        rest=registry("dataplane", collector),
    )


def busy(name: str = "orders") -> Scrape:
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
    return scrape([channel], [subscription], ingress=ingress)


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


def lint(scrape: Scrape) -> list[str]:
    """What `promtool check metrics` complains about, and what the catalogue rules out."""
    complaints = []
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    _, body = asyncio.run(scrape.write("application/openmetrics-text; version=1.0.0"))
    for family in open_metrics(body.decode()):  # type: ignore[no-untyped-call]
        if not family.name.startswith("eventing_"):
            continue
        row = METRICS[family.name]
        if family.documentation != row.help or not row.help.endswith(".") or family.type != row.kind or family.unit != row.unit:
            complaints.append(f"{family.name}: help, type or unit")
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
    assert lint(busy()) == []


def test_what_has_no_row_in_the_catalogue_is_an_error() -> None:
    with pytest.raises(KeyError, match="eventing_new"):
        samples(scrape(figures={"eventing_new": 1}))


@given(st.lists(st.tuples(st.text(max_size=8), st.integers(0, 999), st.floats(0, 20)), max_size=6), st.booleans())
def test_whatever_the_names_and_figures_both_formats_can_be_read(told: list[tuple[str, int, float]], exact: bool) -> None:
    metrics = {name: SubscriptionMetrics("default", "orders", name) for name, _, _ in told}
    expected: Counter[tuple[str, str]] = Counter()
    for name, status, duration in told:
        metrics[name].attempted(status, duration)
        expected[name, str(status)] += 1
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        found = samples(scrape(subscriptions=metrics.values(), size=7 if exact else None), accept)
        assert expected == {
            (dict(labels)["subscription"], dict(labels)["code"]): value
            for (name, labels), value in found.items()
            if name == "eventing_delivery_attempts_total"
        }


async def test_the_loop_turns_while_many_subscriptions_are_written() -> None:
    turns = 0

    async def deliver() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    delivering = asyncio.create_task(deliver())
    many = [SubscriptionMetrics("default", "orders", f"s{number}") for number in range(2000)]
    _, body = await scrape(subscriptions=many).write("")
    delivering.cancel()
    assert turns >= 2000 / SLICE - 2
    assert body.count(b"eventing_delivery_in_flight{") == 2000


def test_no_label_holds_an_id_or_an_address() -> None:
    """A19."""
    allowed = {
        "namespace", "channel", "subscription", "code", "end", "reason", "version", "process",
        "controller", "result", "resource", "verb", "ready", "outcome",
    }  # fmt: skip
    assert {label for row in METRICS.values() for label in row.labels} <= allowed


def test_a_back_end_that_cannot_tell_its_bytes_tells_none() -> None:
    found = samples(scrape(subscriptions=[SubscriptionMetrics("d", "c", "s")], size=None))
    assert not [sample for sample, _ in found if sample == "eventing_subscription_pending_bytes"]


def test_the_documentation_shows_the_catalogue() -> None:
    rows = [
        f"| `{row.exposed}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.help} | {row.knative} |"
        for row in METRICS.values()
    ]
    shown = [line for line in DOCS.read_text().splitlines() if line.startswith("| `eventing_")]
    assert shown == rows, "docs/metrics.md must hold these lines:\n" + "\n".join(rows)
