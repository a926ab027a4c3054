"""One event to one target, awaited: for replies and dead letters, which are rare and may take their time.

The plain way of a delivery does not come through here; it is callback-driven (eventing.delivery.worker).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eventing.bindings.http import HeaderName, event_head, payload
from eventing.delivery.policy import parse_retry_after
from eventing.event import Event
from eventing.journal.details import ANSWERED
from eventing.journal.heads import head_text
from eventing.observe.redaction import redacted
from eventing.wire.client import Connection, ResponseFailure
from eventing.wire.pool import Pool

__all__ = ["CUT_OFF", "FAIR_S", "Answer", "Party", "known_status", "retry_after", "send"]

# Failures after a whole head: its status counts, the rest of the answer was too much.
CUT_OFF: Final = frozenset({"HeadersTooLarge", "BodyTooLarge"})
_EXCERPT: Final = 200  # characters of a body that the journal keeps
# Who has nothing under way and has waited this long for a connection goes first: some other subscription's stuck attempts hold
# all of this origin.
FAIR_S: Final = 0.25
_SWITCHING: Final = 101  # final by itself, and what follows is no HTTP


def known_status(failure: ResponseFailure) -> int:
    """What the answer's head said, where that counts although the answer did not come whole; else 0."""
    counts = (failure.kind in CUT_OFF and failure.status >= 200) or failure.status == _SWITCHING
    return failure.status if counts else 0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one exchange ended: a status with the answer's headers and body, or a failure (status 0 where no head came)."""

    status: int
    headers: list[tuple[HeaderName, bytes]]
    body: bytes
    failure: ResponseFailure | None = None

    @property
    def text(self) -> str:
        if self.failure is not None:
            return f"{self.failure.kind}: {self.failure.detail}"
        return str(self.status)

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for people: nothing in it reaches their terminal but characters, and no secrets."""
        text = redacted(self.body[: 2 * _EXCERPT].decode(errors="replace"), _EXCERPT)
        return "".join(character if character.isprintable() else " " for character in text).strip()

    @property
    def head(self) -> str:
        """What the head said, for the journal: bounded, no secrets."""
        return head_text(self.headers)

    @property
    def told(self) -> str:
        """`text`, and the beginning of the body behind it, for the journal."""
        return f"{self.text}{ANSWERED}{self.excerpt}" if self.body and self.failure is None else self.text


class Party:
    """Whose sends these are, so that a crowded origin gives each party its turn. `under_way` of them have a connection."""

    __slots__ = ("under_way",)

    def __init__(self) -> None:
        self.under_way = 0


class _Awaited:
    """Waiter and Exchange of one send."""

    def __init__(
        self, pool: Pool, prefix: bytes, event: Event, timeout_s: float, clock: Callable[[], float], party: Party
    ) -> None:
        self._pool = pool
        self._party = party
        self._clock = clock
        self._prefix = prefix
        self._event = event
        self._timeout_s = timeout_s
        self._asked = clock()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def connected(self, connection: Connection) -> None:
        if self.answer.done():
            self._pool.put(connection)
            return
        event = self._event
        self._party.under_way += 1
        connection.send(self, self._prefix, event_head(event), payload(event), self._clock() + self._timeout_s)

    @property
    def under_way(self) -> int:
        return self._party.under_way

    def starving(self, now: float) -> bool:
        return not self._party.under_way and now - self._asked > FAIR_S

    def overdue(self, now: float) -> bool:
        if self._party.under_way:
            self._asked = now  # the others of the party took the time, and one of them will be done
        return now - self._asked > self._timeout_s

    def unconnected(self, failure: ResponseFailure) -> None:
        self._resolve(Answer(0, [], b"", failure))

    def responded(self, connection: Connection, status: int, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None:
        self._party.under_way -= 1
        self._pool.put(connection)
        self._resolve(Answer(status, headers, body))

    def failed(self, connection: Connection, failure: ResponseFailure) -> None:
        self._party.under_way -= 1
        # Nothing but the status matters of what a reply's or a dead letter's taker says.
        status = failure.status if 200 <= failure.status < 300 else known_status(failure)
        self._resolve(Answer(status, connection.headers if status else [], b"", failure))

    def _resolve(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


async def send(
    pool: Pool,
    prefix: bytes,
    event: Event,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    *,
    party: Party | None = None,
) -> Answer:
    """Send once. Never raises for what the other side does; the answer says."""
    awaited = _Awaited(pool, prefix, event, timeout_s, clock, party or Party())
    connection = pool.take()
    if connection is not None:
        awaited.connected(connection)
    else:
        pool.wait(awaited)
    try:
        return await awaited.answer
    finally:
        pool.forget(awaited)


def retry_after(headers: list[tuple[HeaderName, bytes]], now: float) -> float | None:
    """What the answer's Retry-After asks for, in seconds; `now` is the calendar's time."""
    for name, value in headers:
        if name.lower == b"retry-after":
            return parse_retry_after(value, now)
    return None
