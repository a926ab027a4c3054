"""What the counters of a control process look like to Prometheus. Names, meanings and labels are in the catalogue."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.registry import Collector

from eventing.observe.catalogue import Family, family
from eventing.observe.control_metrics import ApiMetrics, ReconcileMetrics
from eventing.observe.exposition import add_histogram, add_value

__all__ = ["ApiCollector", "ControllersCollector"]


class ApiCollector(Collector):
    """`watches` and `objects` give how many there are, by resource."""

    def __init__(
        self, metrics: ApiMetrics, *, watches: Callable[[], Mapping[str, int]], objects: Callable[[], Mapping[str, int]]
    ) -> None:
        self._metrics = metrics
        self._watches = watches
        self._objects = objects

    def collect(self) -> Iterator[Family]:
        requests, durations = family("eventing_api_requests"), family("eventing_api_request_duration_seconds")
        for labels, count in self._metrics.answers.items():
            add_value(requests, labels, count)
        for names, histogram in self._metrics.durations.items():
            add_histogram(durations, names, histogram)
        watches, objects = family("eventing_api_watches"), family("eventing_api_objects")
        for filled, counts in ((watches, self._watches()), (objects, self._objects())):
            for resource, count in counts.items():
                add_value(filled, (resource,), count)
        return iter((requests, durations, watches, objects))


class ControllersCollector(Collector):
    """`loops` gives name, counters, keys that are due, keys that wait for their time; `readiness` counts objects by resource and
    the status of their Ready condition."""

    def __init__(
        self,
        *,
        loops: Callable[[], Iterable[tuple[str, ReconcileMetrics, int, int]]],
        readiness: Callable[[], Mapping[tuple[str, str], int]],
    ) -> None:
        self._loops = loops
        self._readiness = readiness

    def collect(self) -> Iterator[Family]:
        results, durations = family("eventing_reconciles"), family("eventing_reconcile_duration_seconds")
        due, waiting = family("eventing_reconcile_due"), family("eventing_reconcile_waiting")
        for name, metrics, due_now, due_later in self._loops():
            for result, count in metrics.results.items():
                add_value(results, (name, result), count)
            add_histogram(durations, (name,), metrics.durations)
            add_value(due, (name,), due_now)
            add_value(waiting, (name,), due_later)
        resources = family("eventing_resources")
        for labels, count in self._readiness().items():
            add_value(resources, labels, count)
        return iter((results, durations, due, waiting, resources))
