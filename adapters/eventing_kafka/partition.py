"""One partition in the hands of a cursor: what has been read of it and has no end yet, and what order holds back."""

from collections import deque
from typing import Any, Final

from eventing.channels import Lease, Order
from eventing.event import Event
from eventing_kafka.offsets import Offsets

__all__ = ["FILL_BYTES", "PORTION", "KafkaLease", "Lane", "Partition", "enough"]

FILL_BYTES: Final = 256 << 10
"""Bytes of a partition that are read ahead of what is handed out (C-13)."""
PORTION: Final = 64
"""Records that are read at a time. What the client has fetched beyond them stays as it came from the wire: thousands of small
objects that wait for their turn cost every cache of the processor, and the search for garbage."""
_ENOUGH: Final = 32  # with one in flight for each partition, or all for one, it lasts until the next fetch
_ENOUGH_OF_KEYS: Final = 500  # many may be of a key that is held back
_NO_EVENT: Final = Event({})


def enough(order: Order) -> int:
    """How many events of a partition, that were never handed out, are enough, so that no more are read."""
    return _ENOUGH_OF_KEYS if order is Order.KEY else _ENOUGH


class Lane:
    """Events of which one at a time may be with the consumer: those of a key, or of a partition. `taken` counts those that are
    handed out, may be, or wait for another try."""

    __slots__ = ("key", "taken", "waiting")

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.taken = 0
        self.waiting: deque[KafkaLease] = deque()

    def before(self, lease: "KafkaLease") -> bool:
        """Whether another than this one, which is taken, has to end first. Only where the order was changed on the way."""
        return self.taken > 1 or bool(self.waiting and self.waiting[0].offset < lease.offset)


class KafkaLease(Lease):
    """A record from its arrival on; handed out while `out`. Its event is made when it is first handed out."""

    __slots__ = ("key", "lane", "offset", "out", "partition", "record", "size", "timestamp")

    def __init__(self, partition: "Partition", record: Any, size: int, stored: float) -> None:
        self.event = _NO_EVENT
        self.stored = stored
        self.deliveries = 0
        self.expires = None
        self.note = b""
        self.lost = False
        self.partition = partition
        self.record = record
        self.offset: int = record.offset
        self.timestamp: int = record.timestamp
        self.key: bytes | None = record.key
        self.size = size
        self.lane: Lane | None = None
        self.out = False

    def again(self, note: bytes) -> "KafkaLease":
        """The lease in which the event comes again; this one has ended."""
        again = KafkaLease.__new__(KafkaLease)
        again.event = self.event
        again.stored = self.stored
        again.deliveries = self.deliveries + 1
        again.expires = None
        again.note = note
        again.lost = False
        again.partition = self.partition
        again.record = None
        again.offset = self.offset
        again.timestamp = self.timestamp
        again.key = self.key
        again.size = self.size
        again.lane = self.lane
        again.out = False
        return again

    def __lt__(self, other: "KafkaLease") -> bool:
        return (self.partition.number, self.offset) < (other.partition.number, other.offset)


class Partition:
    """What is known of a partition while it is this process's, and until it is known to be another's."""

    __slots__ = (
        "bytes",
        "committed",
        "far",
        "full",
        "known",
        "lane",
        "lanes",
        "number",
        "offsets",
        "tried",
        "unread",
        "unread_bytes",
    )

    def __init__(self, number: int, offsets: Offsets, committed: tuple[int, str] | None) -> None:
        self.number = number
        self.offsets = offsets
        self.committed = committed  # position and metadata as the broker has them
        self.tried = committed  # as they were last sent there
        self.known: dict[int, KafkaLease] = {}  # by offset, in their order: all that have arrived and are not settled
        self.bytes = 0  # of these
        self.unread = 0  # of these, how many were never handed out
        self.unread_bytes = 0
        self.full = False  # enough of it is read, or was when the client last had something of it
        self.lane = Lane(None)
        self.lanes: dict[bytes, Lane] = {}  # by key
        self.far: deque[KafkaLease] = deque()  # too far beyond the oldest that is not settled

    def lane_of(self, lease: KafkaLease, order: Order) -> Lane | None:
        """The lane in which the event goes; None: it goes by itself. That of a key goes with the last of its events, the
        partition's own stays."""
        if order is Order.KEY:
            key = lease.key
            if key is None:
                return None
            lane = self.lanes.get(key)
            if lane is None:
                lane = self.lanes[key] = Lane(key)
            return lane
        return None if order is Order.NONE else self.lane

    @property
    def oldest(self) -> KafkaLease | None:
        return next(iter(self.known.values()), None)

    @property
    def state(self) -> tuple[int, str]:
        """What is to be committed."""
        return self.offsets.position, self.offsets.metadata()
