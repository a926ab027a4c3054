"""What `/metrics` of a data-plane process shows, written so that no delivery waits for it.

A process with 5,000 subscriptions has 150,000 samples. The client library takes 5 s of one turn of the loop to write them; here
they are written in slices, the loop gets its turn after each, and all of them together take a fiftieth of that. What is not per
channel or subscription is few, and left to the library.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from eventing.observe.catalogue import METRICS
from eventing.observe.metrics import BUCKETS_S, ChannelMetrics, Histogram, SubscriptionMetrics

__all__ = ["Figures", "Scrape"]

Figures = tuple[SubscriptionMetrics, int, int, int | None, float | None]
"""A subscription's metrics, attempts in flight, pending events, their bytes, the age of the oldest."""

SLICE: Final = 50  # channels or subscriptions written in one turn of the loop: about 1 ms
_REQUESTS, _EVENTS, _STORES = (f"eventing_ingress_{what}" for what in ("requests", "events", "store_duration_seconds"))
_ATTEMPTS, _DURATIONS, _ENDS, _RETRIES, _REPLIES, _IN_FLIGHT = (
    f"eventing_delivery_{what}" for what in ("attempts", "attempt_duration_seconds", "events", "retries", "replies", "in_flight")
)
_PENDING, _BYTES, _OLDEST = (f"eventing_subscription_{what}" for what in ("pending_events", "pending_bytes", "oldest_seconds"))
_FAMILIES: Final = (
    _REQUESTS, _EVENTS, _STORES,
    _ATTEMPTS, _DURATIONS, _ENDS, _RETRIES, _REPLIES, _IN_FLIGHT,
    _PENDING, _BYTES, _OLDEST,
)  # fmt: skip
_BOUNDS: Final = tuple(f',le="{bound}"}} ' for bound in (*BUCKETS_S, "+Inf"))


class Scrape:
    """`channels` and `subscriptions` may be long, and are walked while the loop turns; `rest` is what the library writes."""

    def __init__(
        self,
        *,
        channels: Callable[[], Iterable[ChannelMetrics]],
        subscriptions: Callable[[], Iterable[Figures]],
        rest: CollectorRegistry,
    ) -> None:
        self._channels = channels
        self._subscriptions = subscriptions
        self._rest = rest
        self._one_at_a_time = asyncio.Lock()

    async def write(self, accept: str) -> tuple[str, bytes]:
        """Content type and body: OpenMetrics where the Accept header asks for it, else Prometheus' text format."""
        encode, content_type = choose_encoder(accept)
        open_metrics = content_type.startswith("application/openmetrics-text")
        async with self._one_at_a_time:
            written = _Families()
            for _ in self._slices(written):
                await asyncio.sleep(0)
            return content_type, b"".join((*written.bodies(open_metrics=open_metrics), encode(self._rest)))

    def _slices(self, written: "_Families") -> Iterator[None]:
        lines = written.lines
        for number, channel in enumerate(self._channels(), 1):
            _write_channel(lines, channel)
            if not number % SLICE:
                written.keep()
                yield
        for number, figures in enumerate(self._subscriptions(), 1):
            _write_subscription(lines, figures)
            if not number % SLICE:
                written.keep()
                yield
        written.keep()


class _Families:
    """Lines by family: all of one stand together, whatever they are of."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {name: [] for name in _FAMILIES}
        self._kept: dict[str, list[bytes]] = {name: [] for name in _FAMILIES}

    def keep(self) -> None:
        """Put away what the slice has brought."""
        for name, lines in self.lines.items():
            self._kept[name].append("".join(lines).encode())
            lines.clear()

    def bodies(self, *, open_metrics: bool) -> Iterator[bytes]:
        for name, parts in self._kept.items():
            row = METRICS[name]
            family = name if open_metrics else row.exposed
            head = f"# HELP {family} {row.help}\n# TYPE {family} {row.kind}\n"
            if open_metrics and row.unit:
                head += f"# UNIT {family} {row.unit}\n"
            yield head.encode()
            yield from parts


def _write_channel(lines: dict[str, list[str]], channel: ChannelMetrics) -> None:
    labels = channel.labels = channel.labels or _labels(namespace=channel.namespace, channel=channel.name)
    for code, count in list(channel.codes.items()):
        lines[_REQUESTS].append(f'{_REQUESTS}_total{{{labels},code="{code}"}} {count}\n')
    lines[_EVENTS].append(f"{_EVENTS}_total{{{labels}}} {channel.codes.get(202, 0) + channel.batched}\n")
    if channel.stores:
        _write_histogram(lines[_STORES], _STORES, labels, channel.stores)


def _write_subscription(lines: dict[str, list[str]], figures: Figures) -> None:
    metrics, attempting, events, size, age_s = figures
    labels = metrics.labels = metrics.labels or _labels(
        namespace=metrics.namespace, channel=metrics.channel, subscription=metrics.name
    )
    for code, histogram in list(metrics.answers.items()):
        with_code = f'{labels},code="{code}"'
        total = _write_histogram(lines[_DURATIONS], _DURATIONS, with_code, histogram)
        lines[_ATTEMPTS].append(f"{_ATTEMPTS}_total{{{with_code}}} {total}\n")
    for (end, reason), count in metrics.ends.items():
        lines[_ENDS].append(f'{_ENDS}_total{{{labels},end="{end}",reason="{reason}"}} {count}\n')
    lines[_RETRIES].append(f"{_RETRIES}_total{{{labels}}} {metrics.retried}\n")
    lines[_REPLIES].append(f"{_REPLIES}_total{{{labels}}} {metrics.replied}\n")
    lines[_IN_FLIGHT].append(f"{_IN_FLIGHT}{{{labels}}} {attempting}\n")
    lines[_PENDING].append(f"{_PENDING}{{{labels}}} {events}\n")
    if size is not None:
        lines[_BYTES].append(f"{_BYTES}{{{labels}}} {size}\n")
    lines[_OLDEST].append(f"{_OLDEST}{{{labels}}} {age_s or 0.0!r}\n")


def _write_histogram(lines: list[str], name: str, labels: str, histogram: Histogram) -> int:
    """Returns how many were observed."""
    begin = f"{name}_bucket{{{labels}"
    total = 0
    for bound, count in zip(_BOUNDS, histogram, strict=False):
        total += int(count)
        lines.append(f"{begin}{bound}{total}\n")
    lines.append(f"{name}_count{{{labels}}} {total}\n{name}_sum{{{labels}}} {histogram[-1]!r}\n")
    return total


def _labels(**values: str) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
