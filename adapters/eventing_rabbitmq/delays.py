"""Long waits: events go to a delay queue of the broker and come back to their own queue when it lets go of them.

An event is in the delay queue, confirmed, before it is acknowledged in its own; what fails stays where it was and is held in the
process. After a crash in between it comes twice.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from eventing.errors import EventingError
from eventing_rabbitmq.confirming import Confirming
from eventing_rabbitmq.connection import BrokerError, ConnectionLostError
from eventing_rabbitmq.frames import content_header
from eventing_rabbitmq.lease import DELIVERIES_HEADER, NOTE_HEADER, UNTIL_HEADER, RabbitmqLease
from eventing_rabbitmq.line import Line
from eventing_rabbitmq.names import DELAYS_S
from eventing_rabbitmq.topology import NOT_FOUND, Topology

__all__ = ["Delays", "step_of"]

_OURS: Final = frozenset({UNTIL_HEADER, NOTE_HEADER, DELIVERIES_HEADER})


def step_of(wait_s: float) -> int | None:
    """The longest step that is not longer than the wait; None where all are."""
    return max((delay_s for delay_s in DELAYS_S if delay_s <= wait_s), default=None)


class Waiting(Protocol):
    """The cursor that an event waits for."""

    def delayed(self, lease: RabbitmqLease, for_s: int) -> None: ...

    def not_delayed(self, lease: RabbitmqLease, until: float) -> None: ...


class Item(NamedTuple):
    cursor: Waiting
    lease: RabbitmqLease
    queue: str
    step: int
    until: float


class Delays:
    """One mesh channel's. Nothing of it is open until the first event has to wait."""

    def __init__(self, topology: Topology, line: Line, clock: Callable[[], float], name: str) -> None:
        self._topology = topology
        self._line = line
        self._clock = clock
        self._name = name
        self._confirming: Confirming[Item] = Confirming("", self._confirmed, self._lost)
        self._declared: dict[tuple[str, int], str] = {}
        self._items: deque[Item] = deque()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, cursor: Waiting, lease: RabbitmqLease, queue: str, step: int, until: float) -> None:
        """Let the event wait for `step` seconds; one of the cursor's two calls follows, never from within this one."""
        lease.delaying = True
        self._items.append(Item(cursor, lease, queue, step, until))
        self._more.set()
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._pump(), name=f"{self._name} delays")

    async def waiting(self, queue: str) -> int:
        """How many events of `queue` wait, in the delay queues that this process has used. Raises BrokerError,
        ConnectionLostError."""
        count = 0
        for key, name in [(key, name) for key, name in self._declared.items() if key[0] == queue]:
            try:
                count += (await self._topology.ready(name))[0]
            except BrokerError as error:
                if error.code != NOT_FOUND:
                    raise
                self._declared.pop(key, None)  # somebody has deleted it
        return count

    async def _pump(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._items:
                item = self._items[0]
                try:
                    await self._send(item)
                except (BrokerError, ConnectionLostError):
                    self._failed(item)
                if self._items and self._items[0] is item:
                    self._items.popleft()

    async def _send(self, item: Item) -> None:
        connection = self._line.connection
        if connection is None or connection.blocked:
            raise ConnectionLostError("RabbitMQ takes no messages now")
        key = (item.queue, item.step)
        name = self._declared.get(key)
        if name is None:
            name = self._declared[key] = await self._topology.delay_queue(*key)
        if self._confirming.channel is None:
            await self._confirming.open(connection)
        lease = item.lease
        said = lease.said
        until = int((time.time() + item.until - self._clock()) * 1000) + 1
        headers = [(name, value) for name, value in said.headers if name not in _OURS and not name.startswith(b"x-")]
        headers += [
            (UNTIL_HEADER, b"%d" % until), (NOTE_HEADER, lease.note), (DELIVERIES_HEADER, b"%d" % lease.deliveries)
        ]  # fmt: skip
        header = content_header(said.content_type, headers, len(lease.body), said.timestamp or int(time.time()))
        self._confirming.send(header, lease.body, item, name.encode())

    def _confirmed(self, item: Item, stored: bool, routed: bool) -> None:
        if stored and routed:
            item.lease.delaying = False
            item.cursor.delayed(item.lease, item.step)
        else:
            self._declared.pop((item.queue, item.step), None)
            self._failed(item)

    def _lost(self, items: list[Item], _error: EventingError) -> None:
        self._declared.clear()
        for item in items:
            self._failed(item)

    def _failed(self, item: Item) -> None:
        item.lease.delaying = False
        item.cursor.not_delayed(item.lease, item.until)

    async def aclose(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._confirming.channel is not None:
            await self._confirming.channel.close(1.0)
