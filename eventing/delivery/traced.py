"""Deliveries where spans are configured: one span per attempt, of replies and dead letters too.

The plain worker knows nothing of them. Here each attempt is sent with a `traceparent` of its own, whose parent is what the
event carries: the span of its acceptance.
"""

from typing import Any

from eventing.bindings.http import HeaderName, event_head, in_format
from eventing.channels import Lease
from eventing.delivery.sender import Answer
from eventing.delivery.spans import AttemptSpans
from eventing.delivery.worker import SubscriptionWorker, attempts_made
from eventing.event import Event
from eventing.observe.trace_context import TRACEPARENT, Headers
from eventing.observe.traces import Span
from eventing.wire.client import Connection, ResponseFailure

__all__ = ["TracedWorker"]


class TracedWorker(SubscriptionWorker):
    """A worker whose attempts have spans."""

    def __init__(self, *arguments: Any, spans: AttemptSpans, **options: Any) -> None:
        self._attempt_spans = spans
        self._under_way: dict[int, Span] = {}  # by lease, which is at most once under way
        self._answered: Span | None = None
        super().__init__(*arguments, **options)

    def _begin(self, lease: Lease) -> Span:
        made = attempts_made(lease)
        delivery = self.delivery
        return self._attempt_spans.begin("send", delivery.subscription, lease.event, delivery.subscriber, made + 1, resent=made)

    def _send(self, lease: Lease, connection: Connection) -> None:
        event = in_format(lease.event, self._format) if self._format else lease.event
        span = self._under_way[id(lease)] = self._begin(lease)
        connection.lease = lease
        connection.number = attempts_made(lease) + 1
        connection.started = now = self._clock()
        data = event.data if event.structured is None else event.structured
        connection.send(self, self._prefix, _head(event, span), data, now + self._timeout_s)

    def responded(self, connection: Connection, status: int, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None:
        self._answered = self._end(connection.lease, Answer(status, headers, body))
        super().responded(connection, status, headers, body)

    def failed(self, connection: Connection, failure: ResponseFailure) -> None:
        self._end(connection.lease, Answer(failure.status, [], b"", failure))
        super().failed(connection, failure)

    def unconnected(self, failure: ResponseFailure) -> None:
        for lease in self._ready:  # each is an attempt that ended before it had a connection
            AttemptSpans.end(self._begin(lease), Answer(0, [], b"", failure))
        super().unconnected(failure)

    def _end(self, lease: Lease, answer: Answer) -> Span | None:
        span = self._under_way.pop(id(lease), None)
        if span is not None:
            AttemptSpans.end(span, answer)
        return span

    def _trace_of(self, event: Event) -> Headers:
        """A reply belongs to the attempt that brought it."""
        return self._answered.context.headers if self._answered is not None else super()._trace_of(event)


def _head(event: Event, span: Span) -> bytes:
    """The head of the event with the span's traceparent in place of its own. The state stays."""
    head = event.wire or event_head(event)
    ours = b"traceparent: " + span.context.traceparent + b"\r\n"
    for name, value in event.headers:
        if name == TRACEPARENT:
            return head.replace(b"traceparent: " + value + b"\r\n", ours, 1)
    return ours + head
