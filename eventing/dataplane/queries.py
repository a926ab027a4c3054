"""The local API of a data-plane process: the journal's answers, over HTTP with a bearer token.

docs/journal.md describes it, and `/api/v1/openapi.json` does so for programs. What reads the journal does so in slices, and only
a few readers at a time: questions take their turns after deliveries, not before.
"""

import asyncio
import hmac
from asyncio import TaskGroup
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct

from eventing.dataplane.openapi import API, document
from eventing.dataplane.table import ChannelTable
from eventing.journal import Journal
from eventing.journal.failures import FailureLog
from eventing.journal.standing import standing
from eventing.journal.story import trace
from eventing.journal.tail import Wanted, feed
from eventing.wire.request import Request, problem

__all__ = ["Queries"]

READERS_MAX: Final = 16
SEARCHES_MAX: Final = 2  # of them that look through the rings at a time; the others wait for their turn
WAIT_MAX_S: Final = 25.0
# An answer of the feed comes no sooner than this after the question: with 200 entries in each, a reader gets 2,000 a second.
PACE_S: Final = 0.1
_JSON: Final = b"content-type: application/json\r\ncache-control: no-store\r\n"
_PROBLEM: Final = b"content-type: application/problem+json\r\n"


class _BadRequestError(Exception):
    """The question makes no sense; the text says why."""


class _NotFoundError(Exception):
    """There is no such thing here."""


class Queries:
    """Answers requests to /api/v1. `aclose` ends those that wait."""

    def __init__(
        self, *, journal: Journal, table: ChannelTable, failures: FailureLog | None, token: str, tasks: TaskGroup
    ) -> None:
        self._journal = journal
        self._table = table
        self._failures = failures
        self._token = token.encode()
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self._searching = asyncio.Semaphore(SEARCHES_MAX)

    def __call__(self, request: Request) -> None:
        path, _, query = request.target.partition(b"?")
        text = path.decode("latin-1")
        if request.method not in {b"GET", b"HEAD"}:
            self._problem(request, 405, "only GET is served here", b"allow: GET, HEAD\r\n")
        elif text == f"{API}/openapi.json":
            request.respond(200, _JSON, msgspec.json.encode(document()))
        elif not self._authorized(request):
            self._problem(request, 401, "a bearer token is needed: the one in the kubeconfig", b"www-authenticate: Bearer\r\n")
        elif len(self._running) >= READERS_MAX:
            self._problem(request, 429, f"{READERS_MAX} readers are here already", b"retry-after: 1\r\n")
        elif (answer := self._route(text, query.decode("latin-1"))) is not None:
            task = self._tasks.create_task(self._answer(request, answer))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        else:
            served = ", ".join(f"{API}{path}" for path in ("/trace/{identity}", "/tail", "/subscriptions/{namespace}/{name}"))
            self._problem(request, 404, f"served here: {served}, {API}/openapi.json")

    def _authorized(self, request: Request) -> bool:
        return hmac.compare_digest(request.header(b"authorization") or b"", b"Bearer " + self._token)

    def _route(self, path: str, query: str) -> Callable[[], Awaitable[Struct]] | None:
        options = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        parts = [unquote(part) for part in path.removeprefix(f"{API}/").split("/")]
        match parts:
            case ["trace", identity] if identity:
                return lambda: self._trace(identity, options)
            case ["tail"]:
                return lambda: self._tail(options)
            case ["subscriptions", namespace, name]:
                return lambda: self._standing(f"{namespace}/{name}", options)
            case _:
                return None

    async def _answer(self, request: Request, answer: Callable[[], Awaitable[Struct]]) -> None:
        try:
            found = await answer()
        except _BadRequestError as error:
            self._problem(request, 400, str(error))
        except _NotFoundError as error:
            self._problem(request, 404, str(error))
        except asyncio.CancelledError:
            self._problem(request, 503, "the mesh is stopping")
            raise
        else:
            request.respond(200, _JSON, msgspec.json.encode(found))

    async def _trace(self, identity: str, options: dict[str, str]) -> Struct:
        with_data = _flag(options, "data")
        failures = self._failures

        async with self._searching:
            return await trace(
                self._journal,
                identity,
                channel=options.get("channel", ""),
                with_data=with_data,
                recorded=(lambda query: failures.find(query, with_data=with_data)) if failures is not None else None,
            )

    async def _tail(self, options: dict[str, str]) -> Struct:
        wanted = Wanted(
            channel=options.get("channel", ""),
            subscription=options.get("subscription", ""),
            type=options.get("type", ""),
            failed=_flag(options, "failed"),
        )
        after = options.get("after", "")
        if after:
            await asyncio.sleep(PACE_S)
        try:
            return await feed(self._journal, after, wanted, wait_s=_seconds(options, "wait_s", 0.0, WAIT_MAX_S))
        except ValueError as error:
            raise _BadRequestError(str(error)) from error

    async def _standing(self, subscription: str, options: dict[str, str]) -> Struct:
        situation = self._table.situation(subscription)
        if situation is None:
            raise _NotFoundError(f"no Subscription {subscription} is in force in this process")
        window_s = _seconds(options, "window_s", 300.0, 86_400.0)
        async with self._searching:
            return await standing(self._journal, situation, window_s=window_s)

    async def aclose(self) -> None:
        """End what is being answered."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _problem(self, request: Request, status: int, detail: str, lines: bytes = b"") -> None:
        request.respond(status, _PROBLEM + lines, problem(status, detail))


def _flag(options: dict[str, str], name: str) -> bool:
    text = options.get(name, "false")
    if text not in {"true", "false"}:
        raise _BadRequestError(f"{name} is true or false, not {text[:60]!r}")
    return text == "true"


def _seconds(options: dict[str, str], name: str, default: float, most: float) -> float:
    text = options.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise _BadRequestError(f"{name} is a number of seconds from 0 to {most:g}, not {text[:60]!r}")
    return value
