"""What the cursors of durable back ends share: what is held comes in time and in its place, and the consumer is told."""

import asyncio
from collections.abc import Sequence

from eventing.channels import Budget, ChannelHost, Lease
from eventing.cursors import DurableCursor
from eventing.event import Event
from eventing.testing.clock import VirtualClock


class Numbered(Lease):
    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__(Event({}), 0.0)
        self.number = number

    def __lt__(self, other: "Numbered") -> bool:
        return self.number < other.number


class Cursor(DurableCursor[Numbered]):
    """Hands out what was given back, the earliest first, whenever it is woken."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(self, ChannelHost(Budget(1), clock))
        self.seen: list[tuple[float, int]] = []
        self.clock = clock

    def wake(self) -> None:
        while self._back:
            self.seen.append((self.clock.now() - 1000.0, self._back.pop(0).number))

    def lost(self, leases: Sequence[Lease]) -> None: ...

    def evicted(self, lease: Lease, reason: str) -> None: ...

    def arrived(self, event: Event, origin: str) -> None: ...


def test_what_is_held_comes_in_time_also_where_the_later_was_held_first() -> None:
    clock = VirtualClock()

    async def main() -> list[tuple[float, int]]:
        cursor = Cursor(clock)
        for number, wait in ((1, 3600.0), (2, 2.0), (3, 60.0), (4, 0.0)):
            cursor._hold(Numbered(number), clock.now() + wait)
        await asyncio.sleep(7200)
        return cursor.seen

    assert clock.run(main()) == [(0.0, 4), (2.0, 2), (60.0, 3), (3600.0, 1)]


def test_what_is_given_back_is_told_of_once_and_never_from_within_the_call() -> None:
    clock = VirtualClock()

    async def main() -> None:
        cursor = Cursor(clock)
        cursor._give_back(Numbered(2))
        cursor._give_back(Numbered(1))
        assert cursor.seen == []
        await asyncio.sleep(0)
        assert [number for _, number in cursor.seen] == [1, 2]

    clock.run(main())


def test_what_is_lost_or_stopped_does_not_come() -> None:
    clock = VirtualClock()

    async def main() -> None:
        cursor = Cursor(clock)
        gone, kept = Numbered(1), Numbered(2)
        cursor._hold(gone, clock.now() + 1)
        cursor._hold(kept, clock.now() + 2)
        gone.lost = True
        cursor._drop_lost()
        await asyncio.sleep(10)
        assert cursor.seen == [(2.0, 2)]
        cursor._hold(Numbered(3), clock.now() + 1)
        cursor._stopped = True
        await asyncio.sleep(10)
        assert len(cursor.seen) == 1
        cursor._stopped = False
        cursor._wake_soon()
        await asyncio.sleep(0)
        assert len(cursor.seen) == 2
        cursor._hold(Numbered(4), clock.now() + 1)
        cursor._drop_all()
        await asyncio.sleep(10)
        assert len(cursor.seen) == 2

    clock.run(main())
