"""Counters of a control process: the embedded API server's and the controllers'.

They get their names when somebody asks (eventing.observe.control_exposition); until then an idle mesh pays for no library.
"""

from bisect import bisect_left
from collections import Counter, defaultdict

from eventing.observe.metrics import BUCKETS_S, Histogram, new_histogram

__all__ = ["ApiMetrics", "ReconcileMetrics"]


class ApiMetrics:
    """Requests to the API server. `resource` is PLURAL.GROUP, "" for what is not served."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, str]] = Counter()
        self.durations: dict[tuple[str, str], Histogram] = defaultdict(new_histogram)

    def answered(self, verb: str, resource: str, code: int, duration_s: float | None) -> None:
        """A request was answered; None: it is a watch, which lasts as long as its client likes."""
        self.answers[verb, resource, str(code)] += 1
        if duration_s is not None:
            _observe(self.durations[verb, resource], duration_s)


class ReconcileMetrics:
    """Looks of one controller at its objects."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.durations = new_histogram()

    def reconciled(self, result: str, duration_s: float) -> None:
        """`result`: done, again (later, as wanted), conflict, terminal (the object is at fault), error, defect (ours)."""
        self.results[result] += 1
        _observe(self.durations, duration_s)


def _observe(histogram: Histogram, value: float) -> None:
    histogram[bisect_left(BUCKETS_S, value)] += 1
    histogram[-1] += value
