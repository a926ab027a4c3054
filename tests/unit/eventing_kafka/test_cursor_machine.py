"""The cursor against a model that remembers everything, without a broker: what a Member would tell it is made up.

Records arrive in several partitions, or are asked for, are taken, settled, released and deferred in any order of calls; orders change; partitions are
taken away and come back. Nothing is given twice at a time, nothing is lost, no lane is out of order.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventing.channels import Budget, ChannelHost, Order
from eventing_kafka.cursor import KafkaCursor
from eventing_kafka.offsets import Offsets
from eventing_kafka.partition import KafkaLease, Partition

HISTORIES = os.environ.get("EVENTING_HISTORIES")  # to try many more, and others each time
PARTITIONS = 3
ENOUGH = 2  # so that there is soon more than is read at a time
ORDERS = (Order.NONE, Order.KEY, Order.PARTITION)


@dataclass
class Record:
    """As much of aiokafka's records as is read."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes = b"{}"
    timestamp: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        id_ = f"{self.partition}/{self.offset}".encode()
        self.headers = [("ce_specversion", b"1.0"), ("ce_id", id_), ("ce_source", b"/m"), ("ce_type", b"t")]


class Quiet:
    """Member, consumer and channel, as far as the cursor calls them."""

    def __init__(self, fetched: Callable[[int], list[Record]]) -> None:
        self.gone: list[KafkaLease] = []
        self.fetched = fetched
        self.rooms = 0

    def room(self) -> None:
        self.rooms += 1

    def unsaved(self) -> None: ...

    def wake(self) -> None: ...

    def arrived(self, event: Any, origin: str) -> None: ...

    def lost(self, leases: Sequence[Any]) -> None:
        self.gone += leases

    def evicted(self, lease: Any, reason: str) -> None: ...

    def check(self, order: Order) -> None: ...


class CursorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.quiet = Quiet(self.fetched)
        self.order = Order.PARTITION
        self.cursor = self.in_loop(
            lambda: KafkaCursor(
                self.quiet,  # type: ignore[arg-type]
                self.quiet,
                uid="uid",
                order=self.order,
                source="/kafka",
                host=ChannelHost(Budget(1 << 30), lambda: self.now, process="p", receipts="p"),
                name="a subscription",
            )
        )
        self.cursor.member = self.quiet
        self.cursor._enough = ENOUGH
        self.log: dict[int, list[Record]] = {number: [] for number in range(PARTITIONS)}
        self.read: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)  # position of the reader
        self.committed: dict[int, tuple[int, str]] = dict.fromkeys(range(PARTITIONS), (0, ""))
        self.settled: set[tuple[int, int]] = set()
        self.out: dict[tuple[int, int], KafkaLease] = {}
        self.deferred: dict[tuple[int, int], float] = {}
        self.owned: set[int] = set()
        self.assign(set(range(PARTITIONS)), set())

    def in_loop(self, call: Callable[[], Any]) -> Any:
        async def within() -> Any:
            return call()

        return self.loop.run_until_complete(within())

    def ends(self, lease: KafkaLease) -> bool:
        settled: bool = self.in_loop(lambda: self.cursor.settle(lease))
        return settled

    def teardown(self) -> None:
        if self.cursor._timer is not None:
            self.cursor._timer.cancel()
        self.loop.close()

    def assign(self, owned: set[int], kept: set[int]) -> None:
        partitions = []
        for number in sorted(owned):
            old = self.cursor.partitions.get(number)
            if old is not None and number in kept:
                partitions.append(old)
            else:
                place = self.committed[number]
                partitions.append(Partition(number, Offsets(*place), place))
                self.read[number] = partitions[-1].offsets.position
        self.in_loop(lambda: self.cursor.owns(partitions))
        self.owned = owned

    # what the world does

    @rule(
        number=st.integers(0, PARTITIONS - 1),
        keys=st.lists(st.sampled_from([None, b"a", b"b"]), min_size=2, max_size=6),
        read=st.integers(0, 6),
    )
    def write(self, number: int, keys: list[bytes | None], read: int) -> None:
        log = self.log[number]
        log += [Record(number, len(log) + place, key) for place, key in enumerate(keys)]
        self.arrive(number, read)

    def arrive(self, number: int, count: int) -> None:
        if number in self.owned:
            records = self.log[number][self.read[number] :][:count]
            self.read[number] += len(records)
            self.in_loop(lambda: self.cursor.arrived(number, records))

    def fetched(self, number: int) -> list[Record]:
        """What the client has: all that was written."""
        assert number in self.owned
        records = self.log[number][self.read[number] :][:ENOUGH]
        self.read[number] += len(records)
        return records

    @rule(away=st.integers(0, 2 * PARTITIONS), anew=st.integers(0, 2 * PARTITIONS))
    def rebalance(self, away: int, anew: int) -> None:
        """One partition goes to somebody else, one was somebody else's meanwhile; or neither."""
        owned = set(range(PARTITIONS)) - {away}
        self.cursor.doubt()
        assert self.cursor.take(5) == []
        for number in self.owned:
            self.committed[number] = self.cursor.partitions[number].state
        kept = (owned - {anew}) & self.owned
        lost = {place: lease for place, lease in self.out.items() if place[0] not in kept}
        self.quiet.gone.clear()
        self.assign(owned, kept)
        assert {id(lease) for lease in self.quiet.gone} == {id(lease) for lease in lost.values()}
        for place, lease in lost.items():
            assert lease.lost
            assert not self.ends(lease)
            del self.out[place]
        self.deferred = {place: until for place, until in self.deferred.items() if place[0] in kept}

    # what the worker does

    @rule(most=st.integers(1, 5))
    def take(self, most: int) -> None:
        leases = self.in_loop(lambda: self.cursor.take(most))
        assert len(leases) <= most
        for lease in leases:
            place = (lease.partition.number, lease.offset)
            assert lease.event.id == f"{place[0]}/{place[1]}"
            assert place[0] in self.owned
            assert place not in self.out, "one live lease"
            assert place not in self.settled, "settled and recorded in this life of the partition"
            assert self.deferred.pop(place, 0.0) <= self.now, "too early"
            for earlier in self.before(place):
                assert earlier in self.settled, "the lane is out of order"
            self.out[place] = lease

    def before(self, place: tuple[int, int]) -> list[tuple[int, int]]:
        """Those that must have an end before this one is given."""
        number, offset = place
        if self.order is Order.NONE:
            return []
        key = self.log[number][offset].key
        if self.order is Order.KEY and key is None:
            return []
        return [(number, each.offset) for each in self.log[number][:offset] if self.order is Order.PARTITION or each.key == key]

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.out)))
        lease = self.out.pop(place)
        assert self.ends(lease)
        assert not self.ends(lease)
        self.settled.add(place)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        assert self.in_loop(lambda: self.cursor.release(lease))
        assert not self.ends(lease)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), wait=st.integers(1, 5))
    def defer(self, data: st.DataObject, wait: int) -> None:
        place = data.draw(st.sampled_from(sorted(self.out)))
        lease = self.out.pop(place)
        self.deferred[place] = self.now + wait
        assert self.in_loop(lambda: self.cursor.defer(lease, self.now + wait, b"n"))

    @precondition(lambda self: self.deferred)
    @rule(seconds=st.integers(1, 6))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.in_loop(self.cursor._due)

    @rule(order=st.sampled_from(ORDERS))
    def reorder(self, order: Order) -> None:
        # What is out by another order stays out; from here on the model asks only of what is given.
        self.in_loop(lambda: self.cursor.reorder(order))
        self.cursor._enough = ENOUGH
        self.order = order

    @precondition(lambda self: sum(map(len, self.log.values())) > 15)
    @rule()
    def everything_comes_to_an_end(self) -> None:
        """Whatever has happened: all that is ours is delivered, and nothing is held back for ever."""
        for number in self.owned:
            self.arrive(number, len(self.log[number]))
        self.now += 10
        self.in_loop(self.cursor._due)
        for _ in range(sum(map(len, self.log.values())) + 1):
            for place in sorted(self.out):
                lease = self.out.pop(place)
                assert self.ends(lease)
                self.settled.add(place)
            self.take(5)
            if not self.out:
                break
        assert {(number, each.offset) for number in self.owned for each in self.log[number]} <= self.settled
        for number in self.owned:
            assert self.cursor.partitions[number].offsets.position == len(self.log[number])

    @invariant()
    def no_commit_passes_an_unsettled_event(self) -> None:
        for number, partition in self.cursor.partitions.items():
            assert all((number, offset) in self.settled for offset in range(partition.offsets.position))
            again = Offsets(*partition.state)
            for each in self.log[number][again.position :]:
                if not again.arrived(each.offset):
                    assert (number, each.offset) in self.settled

    @invariant()
    def who_is_full_has_enough(self) -> None:
        """A partition that has less is read, by the member: it must have been told."""
        for number, partition in self.cursor.partitions.items():
            assert not partition.full or partition.unread >= ENOUGH, number

    @invariant()
    def what_is_held_is_counted(self) -> None:
        for partition in self.cursor.partitions.values():
            assert partition.unread == sum(lease.record is not None for lease in partition.known.values())
            assert partition.bytes == sum(lease.size for lease in partition.known.values())


TestCursor = CursorMachine.TestCase
TestCursor.settings = settings(
    max_examples=int(HISTORIES or 60), stateful_step_count=50, deadline=None, derandomize=HISTORIES is None
)
