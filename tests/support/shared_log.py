"""A durable channel that several data planes of one test serve: a list in memory, as a broker would have it, without a broker.

What is tested with it is what the mesh does with such channels; the back ends have tests of their own.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from eventing.channels import (
    Capabilities,
    Channel,
    ChannelHost,
    Configuration,
    Consumer,
    Lag,
    Lease,
    Order,
    Provisioned,
    Provisioner,
    channel_factories,
)
from eventing.event import Event
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber

__all__ = ["SharedLog", "SharedLogFactory"]

CAPABILITIES = Capabilities(
    durable=True, orders=frozenset({Order.NONE}), replay=False, atomic_batch=True, max_event_bytes=1 << 20
)  # fmt: skip


class SharedLog:
    """The broker. `owners` says which process serves a subscription, by its uid; one that nobody owns waits. `ack` is what a
    publish waits for, after its events can be taken; it may raise."""

    def __init__(self) -> None:
        self.records: list[tuple[dict[str, str], bytes, str, float]] = []
        self.owners: dict[str, str] = {}
        self.settled: dict[str, set[int]] = {}
        self.cursors: list[LogCursor] = []
        self.ack: Any = lambda: asyncio.sleep(0)

    def append(self, event: Event, receipt: str, stored: float) -> None:
        self.records.append((dict(event.attributes), event.data, receipt, stored))
        self.wake()

    def own(self, uid: str, process: str) -> None:
        """The subscription's share goes to this process; what is out in another is lost there."""
        self.owners[uid] = process
        for cursor in self.cursors:
            if cursor.uid == uid and cursor.host.process != process:
                cursor.lose()
        self.wake()

    def wake(self) -> None:
        for cursor in self.cursors:
            asyncio.get_running_loop().call_soon(cursor.consumer.wake)


class LogCursor:
    def __init__(self, log: SharedLog, host: ChannelHost, uid: str, consumer: Consumer) -> None:
        self.log, self.host, self.uid, self.consumer = log, host, uid, consumer
        self.out: dict[int, Lease] = {}
        self.deferred: dict[int, bytes] = {}

    @property
    def _left(self) -> list[int]:
        settled = self.log.settled.setdefault(self.uid, set())
        return [offset for offset in range(len(self.log.records)) if offset not in settled]

    def take(self, most: int) -> list[Lease]:
        if self.log.owners.get(self.uid) != self.host.process:
            return []
        leases = []
        for offset in [each for each in self._left if each not in self.out and each not in self.deferred][:most]:
            attributes, data, receipt, stored = self.log.records[offset]
            event = Event(dict(attributes), data)
            prefix, _, number = receipt.rpartition("-")
            if prefix == self.host.receipts and self.host.knows(int(number)):
                event.receipt = int(number)
            else:
                self.consumer.arrived(event, receipt)
            leases.append(self._lease(offset, event, stored))
        return leases

    def _lease(self, offset: int, event: Event, stored: float, note: bytes = b"") -> Lease:
        lease = self.out[offset] = Lease(event, stored)
        lease.note = note
        return lease

    def _offset(self, lease: Lease) -> int | None:
        return next((offset for offset, each in self.out.items() if each is lease), None)

    def settle(self, lease: Lease) -> bool:
        offset = self._offset(lease)
        if offset is None:
            return False
        del self.out[offset]
        self.log.settled[self.uid].add(offset)
        return True

    def release(self, lease: Lease) -> bool:
        offset = self._offset(lease)
        if offset is not None:
            del self.out[offset]
        return offset is not None

    def defer(self, lease: Lease, until: float, note: bytes = b"") -> bool:
        offset = self._offset(lease)
        if offset is None:
            return False
        del self.out[offset]
        self.deferred[offset] = note
        asyncio.get_running_loop().call_later(until - self.host.clock(), self._due, offset)
        return True

    def _due(self, offset: int) -> None:
        self.deferred.pop(offset, None)
        self.consumer.wake()

    def lose(self) -> None:
        lost = list(self.out.values())
        self.out.clear()
        self.deferred.clear()
        for lease in lost:
            lease.lost = True
        self.consumer.lost(lost)

    def reorder(self, order: Order) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def lag(self) -> Lag:
        if self.log.owners.get(self.uid) != self.host.process:
            return Lag(0, 0, None)
        left, now = self._left, self.host.clock()
        return Lag(len(left), None, now - self.log.records[left[0]][3] if left else None, now)

    async def detach(self, deadline: float, *, discard: str = "") -> None:
        if self in self.log.cursors:
            self.log.cursors.remove(self)
            self.lose()


class LogChannel:
    capabilities = CAPABILITIES

    def __init__(self, log: SharedLog, host: ChannelHost) -> None:
        self._log, self._host = log, host
        self._cursors: list[LogCursor] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, events: Sequence[Event]) -> "asyncio.Future[None]":
        for event in events:
            self._log.append(event, f"{self._host.receipts}-{event.receipt}", self._host.clock())
        task: asyncio.Task[None] = asyncio.ensure_future(self._log.ack())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def order(self, subscriber: Subscriber) -> Order:
        return Order.NONE

    def attach(self, subscriber: Subscriber, consumer: Consumer, *, order: Order = Order.NONE) -> LogCursor:
        self._log.owners.setdefault(subscriber.uid, self._host.process)
        cursor = LogCursor(self._log, self._host, subscriber.uid, consumer)
        self._log.cursors.append(cursor)
        self._cursors.append(cursor)
        return cursor

    def configure(self, channel: Object) -> None: ...

    async def aclose(self, deadline: float) -> None:
        for cursor in self._cursors:
            await cursor.detach(deadline)


class LogProvisioner:
    async def ensure(self, channel: Object) -> Provisioned:
        return Provisioned(ready=True)

    async def remove(self, channel: Object) -> None: ...

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        return Provisioned(ready=True)

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None: ...

    async def aclose(self) -> None: ...


class SharedLogFactory:
    """Opens channels on one log, whatever they are called."""

    name = "log"
    external = False
    shared = True
    config_map = ""
    options: frozenset[str] = frozenset()
    missing = ""

    def __init__(self, log: SharedLog) -> None:
        memory = channel_factories()["memory"]
        self._log = log
        self.kind = memory.kind
        self.conditions = memory.conditions

    def configuration(self, address: str) -> Configuration:
        raise ValueError("it is in the test")

    def provisioner(self, settings: object) -> Provisioner:
        return LogProvisioner()

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        return LogChannel(self._log, host)
