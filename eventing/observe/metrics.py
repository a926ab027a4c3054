"""Plain counters that the way of an event adds to. They get their names when somebody asks (eventing.observe.exposition)."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Final

__all__ = ["BUCKETS_S", "ChannelMetrics", "Histogram", "IngressMetrics", "SubscriptionMetrics", "new_histogram"]

# Knative's buckets for dispatch durations, and two below them: most of ours end under 5 ms.
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SUM: Final = len(BUCKETS_S) + 1

Histogram = list[float]
"""Counts by bucket, the last of them without an upper bound, and then the sum of what was observed, in seconds."""


class SubscriptionMetrics:
    """Counts of one subscription at one channel, kept while it exists in this process."""

    __slots__ = (
        "_drops",
        "answers",
        "channel",
        "dead_lettered",
        "delivered",
        "labels",
        "name",
        "namespace",
        "replied",
        "retried",
    )

    def __init__(self, namespace: str, channel: str, name: str) -> None:
        self.namespace = namespace
        self.channel = channel
        self.name = name
        self.labels = ""  # of its series, once they have been written
        self.answers: dict[int, Histogram] = {}  # by status
        self.delivered = 0
        self.dead_lettered = 0
        self.replied = 0
        self.retried = 0
        self._drops: dict[str, int] = {}

    def attempted(self, status: int, duration_s: float) -> None:
        """One attempt ended; status 0: no answer."""
        try:
            histogram = self.answers[status]
        except KeyError:
            histogram = self.answers[status] = new_histogram()
        histogram[bisect_left(BUCKETS_S, duration_s)] += 1
        histogram[_SUM] += duration_s

    def dropped(self, reason: str) -> None:
        self._drops[reason] = self._drops.get(reason, 0) + 1

    @property
    def drops(self) -> Mapping[str, int]:
        return self._drops

    @property
    def ends(self) -> dict[tuple[str, str], int]:
        """How many events have ended, by end and reason."""
        found = {("delivered", ""): self.delivered}
        if self.dead_lettered:
            found["dead-lettered", ""] = self.dead_lettered
        return found | {("dropped", reason): count for reason, count in self._drops.items()}


class ChannelMetrics:
    """Counts of one channel's ingress: answers by status."""

    __slots__ = ("batched", "codes", "labels", "name", "namespace", "stores")

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.labels = ""  # of its series, once they have been written
        self.codes: dict[int, int] = {}
        self.batched = 0  # events accepted beyond one per request
        self.stores: Histogram = []  # empty until a store has taken its time

    def answered(self, status: int) -> None:
        codes = self.codes
        codes[status] = codes.get(status, 0) + 1

    def stored(self, duration_s: float) -> None:
        """What was published is stored, later than at once."""
        self.stores = self.stores or new_histogram()
        self.stores[bisect_left(BUCKETS_S, duration_s)] += 1
        self.stores[_SUM] += duration_s


class IngressMetrics:
    """Counts of what reached no channel."""

    __slots__ = ("unrouted",)

    def __init__(self) -> None:
        self.unrouted: Counter[int] = Counter()  # by status


def new_histogram() -> Histogram:
    """One that has observed nothing."""
    return [0] * _SUM + [0.0]
