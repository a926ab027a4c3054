"""The admin endpoint of a data-plane process: metrics, health, and the local API (eventing.dataplane.queries).

/metrics, /healthz, /livez and /readyz are open, as scrapers and probes expect them; what is about events needs the bearer token.
"""

import asyncio
import logging
from typing import Final

from eventing.bindings.http import HeaderName, HeaderNames
from eventing.observe.health import TEXT, Health
from eventing.observe.scrape import Scrape
from eventing.wire.request import Application, Request, problem

__all__ = ["Admin", "AdminNames"]

log = logging.getLogger(__name__)

SCRAPES_MAX: Final = 8  # at a time, of which one is written and the others wait
_TEXT = f"content-type: {TEXT}\r\n".encode()


class AdminNames(HeaderNames):
    """Header names of which one is kept that the way of an event drops: who scrapes says which format it reads."""

    def __missing__(self, name: bytes) -> HeaderName:
        header = super().__missing__(name)
        header.kept = header.kept or header.lower == b"accept"
        return header


class Admin:
    """Called by the server with each whole request."""

    def __init__(self, *, scrape: Scrape, tasks: asyncio.TaskGroup, queries: Application, health: Health) -> None:
        self._scrape = scrape
        self._tasks = tasks
        self._queries = queries
        self._health = health
        self._scraping = 0

    def __call__(self, request: Request) -> None:
        path, _, query = request.target.partition(b"?")
        if request.method not in {b"GET", b"HEAD"}:
            self._problem(request, 405, "only GET is served here", b"allow: GET, HEAD\r\n")
        elif path == b"/metrics":
            if self._scraping >= SCRAPES_MAX:
                self._problem(request, 429, f"{SCRAPES_MAX} scrapes are under way already", b"retry-after: 1\r\n")
                return
            self._scraping += 1
            self._tasks.create_task(self._measure(request))
        elif found := self._health.answer(path.decode("latin-1"), query.decode("latin-1")):
            request.respond(found[0], _TEXT, found[1].encode())
        elif path.startswith(b"/api/"):
            self._queries(request)
        else:
            self._problem(request, 404, "served here: /metrics /healthz /livez /readyz /api/v1/openapi.json")

    async def _measure(self, request: Request) -> None:
        try:
            content_type, body = await self._scrape.write((request.header(b"accept") or b"").decode("latin-1"))
        except Exception:  # a fault in what is told about deliveries must not end them; told whole
            log.exception("the metrics could not be written")
            self._problem(request, 500, "the metrics could not be written; see the log of the mesh")
        else:
            request.respond(200, b"content-type: " + content_type.encode() + b"\r\n", body)
        finally:
            self._scraping -= 1

    def _problem(self, request: Request, status: int, detail: str, lines: bytes = b"") -> None:
        request.respond(status, b"content-type: application/problem+json\r\n" + lines, problem(status, detail))
