"""The application behind the ingress port: one HTTP request → events in a channel → an answer, after they are stored.

The answers, in the order of the checks: 404 no such channel (400: host form with a path) · 200 OPTIONS · 405 other methods ·
415 an event format that is not read · 400 naming every fault, or an event that goes in a circle · 413 the channel can never
store it · 503 with Retry-After no room, or the back end is away · 500 the back end broke its contract · 202 stored, with
the receipts.
Limits of size and time are the server's (eventing.wire.request).
"""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from eventing.bindings.http import LOOP, REASON_HEADER, UnsupportedFormatError, decode
from eventing.errors import ChannelError, ChannelUnavailableError, EventingError, EventTooLargeError, InvalidEventError
from eventing.event import Event
from eventing.ingress.pace import Pace
from eventing.ingress.routes import MisaddressedError, Route, Routes
from eventing.journal import Journal
from eventing.observe.metrics import IngressMetrics
from eventing.wire.request import Request, problem

__all__ = ["HOPS_MAX", "Receiver"]

_PROBLEM: Final = b"content-type: application/problem+json\r\n"
_ALLOW: Final = b"allow: POST, OPTIONS\r\n"
_WELCOME: Final = b"webhook-allowed-origin: *\r\nwebhook-allowed-rate: *\r\n"
# Channels that an event may have been through (docs/decisions/0005-loops.md).
HOPS_MAX: Final = 50
_LOOP: Final = REASON_HEADER + b": " + LOOP + b"\r\n"
_SHOWN_MAX: Final = 300  # characters kept of what a refused request said
_RECEIPTS_MAX: Final = 100  # receipts named in one answer; a larger batch is found by its events' ids


class Receiver:
    """Called by the server with each whole request."""

    def __init__(
        self,
        routes: Routes,
        journal: Journal,
        *,
        metrics: IngressMetrics | None = None,
        hops_max: int = HOPS_MAX,
        pace: Pace | None = None,
    ) -> None:
        self._routes = routes
        self._hops_max = hops_max
        self._journal = journal
        self._metrics = metrics or IngressMetrics()
        self._pace = pace if pace is not None else Pace()
        self._prefix = f"eventing-receipt: {journal.prefix}-".encode()

    def __call__(self, request: Request) -> None:
        try:
            route = self._routes.find(request.host, request.target)
        except MisaddressedError as error:
            self._refuse(request, None, 400, str(error))
            return
        if route is None:
            self._refuse(request, None, 404, "there is no channel at this address; it is /NAMESPACE/NAME")
            return
        if request.method != b"POST":
            self._other_method(request, route)
            return
        try:
            events = [request.event] if request.event is not None else decode(request.headers, request.body)
        except UnsupportedFormatError as error:
            self._refuse(request, route, 415, str(error), error)
            return
        except InvalidEventError as error:
            self._refuse(request, route, 400, str(error), error)
            return
        if events and events[0].hops > self._hops_max:
            text = f"the event has been through {events[0].hops} channels, more than {self._hops_max}: it goes in a circle"
            self._refuse(request, route, 400, text, events=events, lines=_LOOP)
            return
        if request.event is None and len(events) == 1:
            request.seen(events[0])
        journal = self._journal
        for event in events:
            event.receipt = journal.next_receipt()
        place = route.place
        try:
            stored = route.channel.publish(events)
        except ChannelError as error:
            self._unstored(request, route, events, error)
            return
        if stored is None:
            self._accept(request, route, events, place)
        else:
            began = time.monotonic()
            stored.add_done_callback(lambda future: self._stored(request, route, events, place, began, future))

    def refused(self, peer: str, host: bytes, target: bytes, status: int, detail: str) -> None:
        """Note a request that the server has refused itself: what breaks HTTP or its limits."""
        route = None
        with suppress(MisaddressedError):
            route = self._routes.find(host, target)
        if route is not None:
            route.metrics.answered(status)
        else:
            self._metrics.unrouted[status] += 1
        self._journal.refused(peer, route.name if route else _shown(target), "", status, detail)

    def _stored(
        self, request: Request, route: Route, events: list[Event], place: int, began: float, future: "asyncio.Future[None]"
    ) -> None:
        waited_s = time.monotonic() - began
        route.metrics.stored(waited_s)
        error = future.exception()
        if error is None:
            self._accept(request, route, events, place)
            self._journal.stored_after(len(events), waited_s)
        elif isinstance(error, ChannelError):
            if isinstance(error, ChannelUnavailableError) and error.maybe_stored:
                for event in events:  # so that it is found if it comes out of the channel all the same
                    self._journal.accepted(event, place, request.peer_bytes)
                self._journal.stored_after(len(events), waited_s, confirmed=False)
            self._unstored(request, route, events, error)
        else:
            self._refuse(request, route, 500, "the channel failed; see the log of the mesh", events=events)
            raise error  # to the loop's exception handler: a back end broke its contract

    def _accept(self, request: Request, route: Route, events: list[Event], place: int) -> None:
        journal, peer = self._journal, request.peer_bytes
        for event in events:
            journal.accepted(event, place, peer)
        route.metrics.answered(202)
        if len(events) == 1:
            lines = b"%b%d\r\n" % (self._prefix, events[0].receipt)
        else:
            route.metrics.batched += len(events) - 1
            texts = ", ".join(journal.receipt_text(event.receipt) for event in events[:_RECEIPTS_MAX])
            lines = f"eventing-receipt: {texts}\r\n".encode() if texts else b""
        if self._pace.short:
            self._pace.accepted(route, request, lines)
        else:
            request.respond(202, lines)

    def _unstored(self, request: Request, route: Route, events: Sequence[Event], error: ChannelError) -> None:
        if isinstance(error, EventTooLargeError):
            self._refuse(request, route, 413, str(error), events=events)
        else:
            wait = b"retry-after: %d\r\n" % math.ceil(error.retry_after or 1.0)
            self._refuse(request, route, 503, str(error), error, events=events, lines=wait)

    def _other_method(self, request: Request, route: Route) -> None:
        if request.method == b"OPTIONS":
            # CloudEvents HTTP WebHook §4: the validation handshake; Knative's channels allow everybody and any rate.
            request.respond(200, _ALLOW + _WELCOME)
        else:
            method = request.method.decode("ascii", "replace")
            self._refuse(request, route, 405, f"{method} is not allowed; events come by POST", lines=_ALLOW)

    def _refuse(
        self,
        request: Request,
        route: Route | None,
        status: int,
        detail: str,
        error: EventingError | None = None,
        *,
        events: Sequence[Event] = (),
        lines: bytes = b"",
    ) -> None:
        if request.event is not None:
            events = events or (request.event,)
        identity = events[0].attributes["id"][:_SHOWN_MAX] if events else _shown(request.header(b"ce-id") or b"")
        self._journal.refused(request.peer, route.name if route else _shown(request.target), identity, status, detail)
        if route is not None:
            route.metrics.answered(status)
        else:
            self._metrics.unrouted[status] += 1
        extensions: dict[str, object] = {}
        if isinstance(error, InvalidEventError):
            extensions["faults"] = [{"attribute": fault.field, "message": fault.message} for fault in error.faults]
        request.respond(status, _PROBLEM + lines, problem(status, detail, **extensions))


def _shown(text: bytes) -> str:
    return text[:_SHOWN_MAX].decode("latin-1")
