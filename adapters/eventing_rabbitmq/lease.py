"""A message from its arrival on, as a lease on the event that it holds."""

from typing import Final

from eventing.channels import Lease
from eventing.event import Event
from eventing_rabbitmq.frames import Properties, properties

__all__ = ["DELIVERIES_HEADER", "NOTE_HEADER", "UNTIL_HEADER", "RabbitmqLease"]

# Headers of a message that has waited, or still has to: until when (milliseconds of the wall clock), what the delivery worker
# noted, and how often the event had been handed out.
UNTIL_HEADER: Final = b"eventing-until"
NOTE_HEADER: Final = b"eventing-note"
DELIVERIES_HEADER: Final = b"eventing-deliveries"
_COUNT_HEADER: Final = b"x-delivery-count"  # a quorum queue's own
_NO_EVENT: Final = Event({})
_NOTHING: Final = Properties(b"", [], None, b"")


class RabbitmqLease(Lease):
    """Handed out while `out`. Its event is made when it is first handed out; `decoded` says whether it was."""

    __slots__ = ("_said", "body", "decoded", "delaying", "header", "out", "redelivered", "tag")

    expires: float

    def __init__(self, tag: int, header: bytes, body: bytes, *, redelivered: bool, stored: float, expires: float) -> None:
        self.event = _NO_EVENT
        self.stored = stored
        self.expires = expires
        self.deliveries = 0
        self.note = b""
        self.lost = False
        self.tag = tag
        self.header = header
        self.body = body
        self.decoded = False
        self.delaying = False  # it is on its way to a delay queue
        self.out = False
        self.redelivered = redelivered  # the broker says that it was handed out before
        self._said: Properties | None = None

    def __lt__(self, other: "RabbitmqLease") -> bool:
        return self.tag < other.tag

    @property
    def said(self) -> Properties:
        """What the message's header says; nothing where it cannot be read."""
        if self._said is None:
            try:
                self._said = properties(self.header)
            except ValueError:
                self._said = _NOTHING
        return self._said

    @property
    def size(self) -> int:
        return len(self.header) + len(self.body)

    @property
    def counted(self) -> int:
        """How often the message was handed out before, as far as it says so itself."""
        count = int(self.redelivered)
        before = 0
        for name, value in self.said.headers:
            if name == _COUNT_HEADER and value.isdigit():
                count = max(count, int(value))
            elif name == DELIVERIES_HEADER and value.isdigit():
                before = int(value[:9])
        return count + before

    def again(self, note: bytes) -> "RabbitmqLease":
        """The lease in which the event comes again; this one has ended."""
        self.out = False
        lease = RabbitmqLease(
            self.tag, self.header, self.body, redelivered=self.redelivered, stored=self.stored, expires=self.expires
        )
        lease.event = self.event
        lease.decoded = True
        lease.deliveries = self.deliveries + 1
        lease.note = note
        lease._said = self._said
        return lease
