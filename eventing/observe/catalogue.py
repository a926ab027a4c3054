"""The one table of metrics: what each is called, what it counts and by which labels.

`docs/metrics.md` shows it. Whoever counts something gives it a row here first: a name without a row is an error when somebody
scrapes. Labels hold the names of channels, subscriptions, controllers and resources, and status codes; never an event's id.
"""

from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

__all__ = ["METRICS", "Family", "Metric", "family"]

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_SUBSCRIPTION: Final = ("namespace", "channel", "subscription")


@dataclass(frozen=True, slots=True)
class Metric:
    """One row. `name` is without the `_total` that Prometheus has counters end in; its last word is the unit, where it has one.
    `knative` names what Knative has in its place, for those who come with dashboards."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    knative: str = ""

    @property
    def unit(self) -> str:
        last = self.name.rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""

    @property
    def exposed(self) -> str:
        """The name that a query uses."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


_ROWS: Final = (
    # The ingress.
    Metric(
        "eventing_ingress_requests",
        "counter",
        "Requests to a channel, by the status of the answer.",
        ("namespace", "channel", "code"),
        "http.server.request.duration (count); legacy event_count",
    ),
    Metric(
        "eventing_ingress_events",
        "counter",
        "Events stored for a channel, each of a batch counted: what 202 was answered for.",
        ("namespace", "channel"),
    ),
    Metric(
        "eventing_ingress_store_duration_seconds",
        "histogram",
        "Until a back end had stored what was published; nothing for channels that store at once, as in-memory ones do.",
        ("namespace", "channel"),
        "kn.eventing.dispatch.duration of a broker's ingress",
    ),
    Metric(
        "eventing_ingress_unrouted_requests",
        "counter",
        "Requests that reached no channel, by the status of the answer: unknown addresses, broken HTTP, limits.",
        ("code",),
    ),
    Metric("eventing_ingress_connections", "gauge", "Open connections of clients."),
    Metric("eventing_ingress_accepted_connections", "counter", "Connections accepted."),
    # Deliveries.
    Metric(
        "eventing_delivery_attempts",
        "counter",
        "Attempts that have ended, by the status of the subscriber's answer; 0: no answer.",
        (*_SUBSCRIPTION, "code"),
        "kn.eventing.dispatch.duration (count); legacy event_count",
    ),
    Metric(
        "eventing_delivery_attempt_duration_seconds",
        "histogram",
        "From sending an event to the end of the answer.",
        (*_SUBSCRIPTION, "code"),
        "kn.eventing.dispatch.duration; legacy event_dispatch_latencies (ms)",
    ),
    Metric(
        "eventing_delivery_events",
        "counter",
        "Events that have ended at a subscription: delivered, dead-lettered, or dropped with a reason such as Overflow.",
        (*_SUBSCRIPTION, "end", "reason"),
    ),
    Metric("eventing_delivery_retries", "counter", "Attempts after which another one was decided on.", _SUBSCRIPTION),
    Metric("eventing_delivery_replies", "counter", "Replies handed on.", _SUBSCRIPTION),
    Metric(
        "eventing_delivery_in_flight",
        "gauge",
        "Events taken from the channel and not ended: sent, or about to be.",
        _SUBSCRIPTION,
    ),
    Metric("eventing_delivery_connections", "gauge", "Open connections to subscribers, reply addresses and dead-letter sinks."),
    Metric(
        "eventing_removed_subscriptions_events",
        "counter",
        "The same as eventing_delivery_events, summed over the subscriptions that are gone, whose series have ended with them.",
        ("end", "reason"),
    ),
    # What waits.
    Metric(
        "eventing_subscription_pending_events", "gauge", "Events stored for the subscription that have no end yet.", _SUBSCRIPTION
    ),
    Metric("eventing_subscription_pending_bytes", "gauge", "Their size, where the back end knows it.", _SUBSCRIPTION),
    Metric("eventing_subscription_oldest_seconds", "gauge", "Age of the oldest of them; 0 where there is none.", _SUBSCRIPTION),
    Metric(
        "eventing_channel_memory_bytes",
        "gauge",
        "What channels hold: in-memory ones their events, the others what waits to be acknowledged.",
    ),
    Metric("eventing_channel_memory_limit_bytes", "gauge", "What they may hold; beyond it producers are answered 503."),
    Metric("eventing_dataplane_channels", "gauge", "Channels in force in this process."),
    Metric("eventing_dataplane_subscriptions", "gauge", "Subscriptions in force in this process."),
    # The journal.
    Metric("eventing_journal_events", "counter", "Acceptances written to the journal's memory."),
    Metric("eventing_journal_attempts", "counter", "Attempts and decisions written to the journal's memory."),
    Metric("eventing_journal_overwritten_events", "counter", "Acceptances that gave way to newer ones."),
    Metric("eventing_journal_overwritten_attempts", "counter", "Attempts and decisions that gave way to newer ones."),
    Metric("eventing_journal_failures_written", "counter", "Events that were dropped or dead-lettered, recorded on disk."),
    Metric("eventing_journal_failures_lost", "counter", "Those that could not be recorded there."),
    Metric(
        "eventing_log_unlisted_failures",
        "counter",
        "Dropped or dead-lettered events that the log only sums up: there were too many.",
    ),
    # Spans, where they are configured.
    Metric(
        "eventing_trace_spans",
        "counter",
        "Spans exported, failed at the collector, or dropped because the queue to it was full.",
        ("outcome",),
    ),
    # Control: the embedded API server (its /metrics needs a token) and the controllers.
    Metric(
        "eventing_api_requests",
        "counter",
        "Requests to the API server, a watch when it ends; resource is PLURAL.GROUP, empty for what is not served.",
        ("verb", "resource", "code"),
    ),
    Metric(
        "eventing_api_request_duration_seconds",
        "histogram",
        "From the request to its answer, watches left out.",
        ("verb", "resource"),
    ),
    Metric("eventing_api_watches", "gauge", "Open watches.", ("resource",)),
    Metric("eventing_api_objects", "gauge", "Objects stored.", ("resource",)),
    Metric(
        "eventing_reconciles",
        "counter",
        "Looks at an object: done, again, conflict, terminal (the object is at fault), error, defect.",
        ("controller", "result"),
        "kn.workqueue.process.duration (count)",
    ),
    Metric(
        "eventing_reconcile_duration_seconds",
        "histogram",
        "How long a look took.",
        ("controller",),
        "kn.workqueue.process.duration",
    ),
    Metric("eventing_reconcile_due", "gauge", "Objects that are to be looked at now.", ("controller",), "kn.workqueue.depth"),
    Metric("eventing_reconcile_waiting", "gauge", "Objects that are to be looked at later: back-off, resync.", ("controller",)),
    Metric("eventing_resources", "gauge", "Objects by the status of their Ready condition.", ("resource", "ready")),
    # Every process.
    Metric("eventing_loop_lag_seconds", "gauge", "How late the event loop was when last looked at; it is each second."),
    Metric("eventing_loop_longest_lag_seconds", "gauge", "How late it was at worst."),
    Metric("eventing_loop_stalls", "counter", "Looks at which it was late by more than a second."),
    Metric("eventing_build_info", "gauge", "Always 1; the labels say what runs.", ("version", "process")),
)

METRICS: Final = {row.name: row for row in _ROWS}


def family(name: str) -> Family:
    """An empty family of this metric, to be filled and exposed."""
    row = METRICS[name]
    made: dict[str, type[Family]] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return made[row.kind](name, row.help, labels=row.labels, unit=row.unit)
