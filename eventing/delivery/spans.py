"""The spans of attempts, where spans are configured."""

from collections.abc import Callable
from urllib.parse import urlsplit

from eventing.delivery.connections import Target
from eventing.delivery.sender import Answer
from eventing.event import Event
from eventing.observe.trace_context import TRACEPARENT, TRACESTATE, TraceContext, headers_of, read
from eventing.observe.traces import Attributes, Span, Tracing, event_attributes

__all__ = ["AttemptSpans", "context_of", "with_context"]


class AttemptSpans:
    """Makes the spans of a process's attempts. `receipt_text` shows a receipt as people know it."""

    def __init__(self, tracing: Tracing, receipt_text: Callable[[int], str]) -> None:
        self._tracing = tracing
        self._receipt_text = receipt_text

    def begin(self, what: str, subscription: str, event: Event, to: Target, number: int, *, resent: int) -> Span:
        """`what` is done: send, reply, dead-letter; `subscription` is NS/NAME. `number` counts the event's attempts from 1,
        `resent` those made before with this very request."""
        namespace, _, name = subscription.partition("/")
        url = urlsplit(to.url)
        attributes: Attributes = {
            "http.request.method": "POST",
            # Without the query, which may hold what only the subscriber should know.
            "url.full": url._replace(query="", fragment="").geturl(),
            "server.address": to.origin.host,
            "server.port": to.origin.port,
            "messaging.system": "knative",
            "messaging.operation.name": what,
            "messaging.destination.name": f"subscription:{name}.{namespace}",
            "eventing.attempt": number,
            "eventing.receipt": self._receipt_text(event.receipt),
            **event_attributes(event),
            **({"http.request.resend_count": resent} if resent else {}),
        }
        return self._tracing.begin(what, "client", context_of(event), attributes)

    @staticmethod
    def end(span: Span, answer: Answer) -> None:
        """The exchange is over. Of a client's span every answer from 400 on is an error, and so is none."""
        failure = answer.failure
        error = failure.kind if failure is not None else "" if answer.status < 400 else str(answer.status)
        span.end(answer.status, error)


def context_of(event: Event) -> TraceContext | None:
    """What the event carries."""
    found: dict[bytes, list[bytes]] = {TRACEPARENT: [], TRACESTATE: []}
    for name, value in headers_of(event.headers):
        found[name].append(value)
    return read(found[TRACEPARENT], found[TRACESTATE])


def with_context(event: Event, span: Span) -> Event:
    """A copy of the event that carries the span."""
    kept = tuple(header for header in event.headers if header[0] not in {TRACEPARENT, TRACESTATE})
    return Event(event.attributes, event.data, event.structured, kept + span.context.headers, event.receipt, event.hops)
