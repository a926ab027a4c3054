"""One event to one target, awaited: for replies and dead letters, which are rare and may take their time.

The plain way of a delivery does not come through here; it is callback-driven (eventing.delivery.worker).
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from eventing.bindings.http import HeaderName, event_head, payload
from eventing.delivery.policy import Policy, decide, parse_retry_after
from eventing.event import Event
from eventing.journal import Decision
from eventing.wire.client import Connection, Pool, ResponseFailure

__all__ = ["Answer", "send", "send_with_retry"]


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


class _Awaited:
    """Waiter and Exchange of one send."""

    def __init__(self, pool: Pool, prefix: bytes, event: Event, timeout_s: float) -> None:
        self._pool = pool
        self._prefix = prefix
        self._event = event
        self._timeout_s = timeout_s
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def connected(self, connection: Connection) -> None:
        if self.answer.done():
            self._pool.put(connection)
            return
        event = self._event
        connection.send(self, self._prefix, event_head(event), payload(event), time.monotonic() + self._timeout_s)

    def unconnected(self, failure: ResponseFailure) -> None:
        self._resolve(Answer(0, [], b"", failure))

    def responded(self, connection: Connection, status: int, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None:
        self._pool.put(connection)
        self._resolve(Answer(status, headers, body))

    def failed(self, connection: Connection, failure: ResponseFailure) -> None:
        self._resolve(Answer(failure.status if 200 <= failure.status < 300 else 0, [], b"", failure))

    def _resolve(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


async def send(pool: Pool, prefix: bytes, event: Event, timeout_s: float) -> Answer:
    """Send once. Never raises for what the other side does; the answer says."""
    awaited = _Awaited(pool, prefix, event, timeout_s)
    connection = pool.take()
    if connection is not None:
        awaited.connected(connection)
    else:
        pool.wait(awaited)
    return await awaited.answer


async def send_with_retry(
    pool: Pool,
    prefix: bytes,
    event: Event,
    policy: Policy,
    *,
    sleep: Callable[[float], "asyncio.Future[None]"] | None = None,
    rand: Callable[[], float] = random.random,
) -> Answer:
    """Send until it is accepted, refused for good, or the policy's attempts are used up; the last answer."""
    attempt = 0
    while True:
        attempt += 1
        answer = await send(pool, prefix, event, policy.timeout_s)
        verdict = decide(
            answer.status,
            attempt,
            policy,
            rand(),
            retry_after_s=retry_after(answer.headers),
            permanent=answer.failure is not None and answer.failure.kind == "AddressDenied",
        )
        if verdict.decision is not Decision.RETRYING:
            return answer
        await asyncio.sleep(verdict.wait_s)


def retry_after(headers: list[tuple[HeaderName, bytes]]) -> float | None:
    """What the answer's Retry-After asks for, in seconds."""
    for name, value in headers:
        if name.lower == b"retry-after":
            return parse_retry_after(value, time.time())
    return None
