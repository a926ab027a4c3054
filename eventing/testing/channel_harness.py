"""What the contract suite of a back end is written with: its clauses, the harness that a back end brings, and patient ways to
use a cursor.

The clauses C-01… are those of docs/decisions/0002-channel-port.md.
"""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

from eventing.channels import Channel, ChannelFactory, Cursor, Lease, Provisioner
from eventing.event import Event
from eventing.resources import subscribers
from eventing.resources.kinds import Object

__all__ = [
    "CLAUSES",
    "FAULT_CLAUSES",
    "WITHIN_S",
    "ChannelHarness",
    "RecordingConsumer",
    "Subscriber",
    "clause",
    "clauses_of",
    "event",
    "ids",
    "stored",
    "subscription",
]

CLAUSES: Final = tuple(f"C-{number:02d}" for number in range(1, 29))
# Clauses that need a broker to be killed, cut or restarted, or a second process: the fault tests of a durable back end.
FAULT_CLAUSES: Final = frozenset({"C-05", "C-09", "C-16", "C-19", "C-22"})
# How long a test waits for what must happen.
WITHIN_S: Final = 10.0

Test = TypeVar("Test", bound=Callable[..., Any])


def clause(*numbers: str) -> Callable[[Test], Test]:
    """Names the clauses that a test holds a back end to."""

    def mark(test: Test) -> Test:
        test.clauses = numbers  # type: ignore[attr-defined]  # a function has no such attribute until here
        return test

    return mark


def clauses_of(suite: type) -> set[str]:
    """The clauses that a suite tests."""
    return {number for _, test in inspect.getmembers(suite) for number in getattr(test, "clauses", ())}


def event(id_: str, *, key: str = "", data: bytes = b"{}") -> Event:
    attributes = {"specversion": "1.0", "id": id_, "source": "/contract", "type": "test"}
    return Event(attributes | ({"partitionkey": key} if key else {}), data)


def subscription(uid: str, annotations: Mapping[str, str] | None = None) -> subscribers.Subscriber:
    """A subscriber as an entry of the channel has it."""
    return subscribers.Subscriber(uid, uid, "default", 1, "http://127.0.0.1:9/", annotations=annotations or {})


class RecordingConsumer:
    """A consumer that takes nothing by itself."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.wakes = 0
        self.gone: list[Lease] = []
        self.evictions: list[tuple[str, str]] = []
        self.arrivals: list[tuple[str, str]] = []
        self.calling = False
        self.reentered = False

    def wake(self) -> None:
        self.reentered = self.reentered or self.calling
        self.wakes += 1
        self.woken.set()

    def lost(self, leases: Sequence[Lease]) -> None:
        self.gone += leases

    def evicted(self, lease: Lease, reason: str) -> None:
        self.evictions.append((lease.event.id, reason))

    def arrived(self, event: Event, origin: str) -> None:
        self.arrivals.append((event.id, origin))


class ChannelHarness(ABC):
    """What a back end brings. One harness serves one test; `aclose` removes what it made."""

    back_end: ClassVar[str]
    """The name under which the back end must be found among the installed ones."""

    def __init__(self, factory: ChannelFactory) -> None:
        self.factory = factory

    @abstractmethod
    async def open(self, process: str = "first") -> Channel:
        """A channel, provisioned and open. A second call opens the same one once more (another process's view). `process` is
        that of its host, and what the texts of its receipts begin with."""

    @property
    @abstractmethod
    def channel(self) -> Object:
        """The channel object behind `open`."""

    @property
    @abstractmethod
    def provisioner(self) -> Provisioner: ...

    @abstractmethod
    async def stored(self) -> list[str]:
        """The back door: ids of the events that the back end itself holds, in its order, read around the code under test."""

    @abstractmethod
    async def fill(self, channel: Channel) -> bool:
        """Bring the channel to refuse with ChannelFullError; False where it has no such bound of its own."""

    @abstractmethod
    async def aclose(self) -> None: ...


class Subscriber:
    """A cursor with its consumer, and patient ways to use them."""

    def __init__(self, cursor: Cursor, consumer: RecordingConsumer) -> None:
        self.cursor = cursor
        self.consumer = consumer

    def take(self, most: int = 100) -> list[Any]:
        self.consumer.calling = True
        try:
            return self.cursor.take(most)
        finally:
            self.consumer.calling = False

    async def taken(self, count: int, most: int = 100) -> list[Any]:
        """Take until `count` leases are there; waits for wakes, not for time."""
        leases: list[Any] = []
        async with asyncio.timeout(WITHIN_S):
            while True:
                self.consumer.woken.clear()
                asked = min(most, count - len(leases))
                given = self.take(asked)
                leases += given
                if len(leases) >= count:
                    return leases
                if len(given) < asked:
                    await self.consumer.woken.wait()

    def settle(self, lease: Any) -> bool:
        self.consumer.calling = True
        try:
            return self.cursor.settle(lease)
        finally:
            self.consumer.calling = False


async def stored(channel: Channel, *events: Event) -> None:
    """Publish one batch and wait until it is stored."""
    pending = channel.publish(events)
    if pending is not None:
        async with asyncio.timeout(WITHIN_S):
            await pending


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.event.id for lease in leases]
