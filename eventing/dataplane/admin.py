"""The admin endpoint of a data-plane process: metrics, health, and the local API (eventing.dataplane.queries).

/metrics, /healthz, /livez and /readyz are open, as scrapers and probes expect them; what is about events needs the bearer token.
"""

from prometheus_client import CollectorRegistry

from eventing.bindings.http import HeaderName, HeaderNames
from eventing.observe.exposition import expose
from eventing.observe.health import TEXT, Health
from eventing.wire.request import Application, Request, problem

__all__ = ["Admin", "AdminNames"]

_TEXT = f"content-type: {TEXT}\r\n".encode()


class AdminNames(HeaderNames):
    """Header names of which one is kept that the way of an event drops: who scrapes says which format it reads."""

    def __missing__(self, name: bytes) -> HeaderName:
        header = super().__missing__(name)
        header.kept = header.kept or header.lower == b"accept"
        return header


class Admin:
    """Called by the server with each whole request."""

    def __init__(self, *, registry: CollectorRegistry, queries: Application, health: Health) -> None:
        self._registry = registry
        self._queries = queries
        self._health = health

    def __call__(self, request: Request) -> None:
        path, _, query = request.target.partition(b"?")
        if request.method not in {b"GET", b"HEAD"}:
            self._problem(request, 405, "only GET is served here", b"allow: GET, HEAD\r\n")
        elif path == b"/metrics":
            accept = (request.header(b"accept") or b"").decode("latin-1")
            content_type, body = expose(self._registry, accept)
            request.respond(200, b"content-type: " + content_type.encode() + b"\r\n", body)
        elif found := self._health.answer(path.decode("latin-1"), query.decode("latin-1")):
            request.respond(found[0], _TEXT, found[1].encode())
        elif path.startswith(b"/api/"):
            self._queries(request)
        else:
            self._problem(request, 404, "served here: /metrics /healthz /livez /readyz /api/v1/openapi.json")

    def _problem(self, request: Request, status: int, detail: str, lines: bytes = b"") -> None:
        request.respond(status, b"content-type: application/problem+json\r\n" + lines, problem(status, detail))
