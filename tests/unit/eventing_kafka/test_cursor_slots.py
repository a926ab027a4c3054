"""A consumer with several slots keeps them filled: one that found nothing is not forgotten because others go on."""

import asyncio
from collections.abc import Sequence
from typing import Any

from eventing.channels import Budget, ChannelHost, Order
from eventing_kafka.cursor import KafkaCursor
from eventing_kafka.offsets import Offsets
from eventing_kafka.partition import Partition
from tests.unit.eventing_kafka.test_cursor_machine import Quiet, Record


class Worker(Quiet):
    """Takes as the delivery worker does: for all free slots when it is woken, for one when one is settled."""

    def __init__(self, slots: int) -> None:
        super().__init__(lambda number: [])
        self.slots = slots
        self.out: list[Any] = []
        self.cursor: KafkaCursor

    def wake(self) -> None:
        self.out += self.cursor.take(self.slots - len(self.out))

    def settle(self, partition: int) -> None:
        lease = next(lease for lease in self.out if lease.partition.number == partition)
        self.out.remove(lease)
        assert self.cursor.settle(lease)
        self.out += self.cursor.take(1)

    def lost(self, leases: Sequence[Any]) -> None: ...


async def test_a_partition_that_ran_dry_is_taken_from_again_while_others_never_do() -> None:
    worker = Worker(3)
    host = ChannelHost(Budget(1 << 30), asyncio.get_running_loop().time, process="p", receipts="p")
    cursor = worker.cursor = KafkaCursor(
        worker,  # type: ignore[arg-type]
        worker,
        uid="uid",
        order=Order.PARTITION,
        source="/kafka",
        host=host,
        name="a subscription",
    )
    cursor.member = worker  # type: ignore[assignment]
    cursor.owns([Partition(number, Offsets(0), None) for number in range(3)])
    for number in range(3):
        cursor.arrived(number, [Record(number, offset, None) for offset in range(1 if number == 0 else 10)])
    await asyncio.sleep(0)
    assert len(worker.out) == 3

    worker.settle(0)  # nothing more of it: a slot is free
    assert len(worker.out) == 2
    for number in (1, 2, 1, 2):  # a slot for each that ends: these take all they ask for
        worker.settle(number)
    await asyncio.sleep(0)
    cursor.arrived(0, [Record(0, 1, None)])
    await asyncio.sleep(0)
    assert sorted(lease.partition.number for lease in worker.out) == [0, 1, 2]
