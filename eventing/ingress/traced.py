"""The receiver where spans are configured: one for each request with events. The plain receiver knows nothing of them."""

from typing import Any, Final

from eventing.bindings.http import HeaderName, Headers
from eventing.event import Event
from eventing.ingress.receiver import Receiver
from eventing.ingress.routes import Route
from eventing.observe.trace_context import TRACEPARENT, TRACESTATE, TraceContext, read
from eventing.observe.traces import Span, Tracing, event_attributes
from eventing.wire.request import Request

__all__ = ["TracedReceiver"]

_NAMES: Final = {name: HeaderName(name) for name in (TRACEPARENT, TRACESTATE)}
_EXTENSIONS: Final = (b"ce-traceparent", b"ce-tracestate")


class TracedReceiver(Receiver):
    """The context that came in is the parent of the request's span; the span is what the events carry from here on."""

    def __init__(self, *arguments: Any, tracing: Tracing, scheme: str = "http", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracing = tracing
        self._scheme = scheme
        self._spans: dict[int, Span] = {}  # of requests that have no answer yet

    def __call__(self, request: Request) -> None:
        if request.method == b"POST":
            request.whole = b""  # each request is to be read whole: its trace context changes
            span = self._begin(request)
            self._spans[id(request)] = span
            own = [(_NAMES[name], value) for name, value in span.context.headers]
            request.headers = [*(line for line in request.headers if line[0].lower not in _NAMES), *own]
        super().__call__(request)

    def _begin(self, request: Request) -> Span:
        attributes = {
            "http.request.method": "POST",
            "url.scheme": self._scheme,
            "url.path": request.target.partition(b"?")[0].decode("latin-1"),
            "server.address": request.host.decode("latin-1"),
            "client.address": request.peer.rpartition(":")[0],
            "messaging.system": "knative",
            "messaging.operation.name": "receive",
        }
        return self._tracing.begin("receive", "server", _context(request.headers), attributes)

    def _accept(self, request: Request, route: Route, events: list[Event], place: int) -> None:
        super()._accept(request, route, events, place)
        self._end(request, 202, route, events)

    def _refuse(self, request: Request, route: Route | None, status: int, detail: str, *rest: Any, **options: Any) -> None:
        super()._refuse(request, route, status, detail, *rest, **options)
        self._end(request, status, route, [])

    def _end(self, request: Request, status: int, route: Route | None, events: list[Event]) -> None:
        span = self._spans.pop(id(request), None)
        if span is None:
            return  # a method that carries no events
        attributes: dict[str, str | int | float | bool] = {}
        if route is not None:
            namespace, _, name = route.name.partition("/")
            attributes |= {
                "messaging.destination.name": f"channel:{name}.{namespace}",
                "kn.channel.name": name,
                "kn.channel.namespace": namespace,
            }
        if len(events) == 1:
            attributes |= event_attributes(events[0])
            attributes["eventing.receipt"] = self._journal.receipt_text(events[0].receipt)
        elif events:
            attributes["messaging.batch.message_count"] = len(events)
        # OpenTelemetry's HTTP conventions: a server's span is an error from 500 on.
        span.end(status, str(status) if status >= 500 else "", attributes)


def _context(headers: Headers) -> TraceContext | None:
    """From HTTP's headers; where there are none, from the CloudEvents extension, which tells where the event was made."""

    def values(name: bytes) -> list[bytes]:
        return [value for header, value in headers if header.lower == name]

    if parents := values(TRACEPARENT):
        return read(parents, values(TRACESTATE))
    return read(values(_EXTENSIONS[0]), values(_EXTENSIONS[1]))
