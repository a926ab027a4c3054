"""Events of durable channels, which this process may meet without having accepted them, and learns late of having stored.

Nothing here is asked for an event of an in-memory channel.
"""

import re
import struct
from collections import deque
from typing import Final

from eventing.journal.pages import pages

__all__ = ["KNOWN_MAX", "Foreign", "LateReceipts", "origin_of"]

KNOWN_MAX: Final = 16_384
# What a receipt looks like. The text comes with the event, out of a back end that others may write to.
_RECEIPT: Final = re.compile(r"[0-9a-f]{8}-[1-9][0-9]{0,18}")


def origin_of(text: str) -> str:
    """The text if it is that of a receipt, else ""."""
    return text if _RECEIPT.fullmatch(text) else ""


class Foreign:
    """The last events that were met and not accepted here, but by another process: under which receipt of this one, and by whom.

    Several subscriptions meet the same event, each at its own time. One that comes when `KNOWN_MAX` others have been met since
    gets another receipt; stories are put together by the receipt that the event was accepted with."""

    def __init__(self, most: int = KNOWN_MAX) -> None:
        self._most = most
        self._receipts: dict[str, int] = {}  # origin → receipt
        self._known: dict[int, tuple[str, tuple[int, ...]]] = {}  # receipt → origin, subscribers
        # A dict finds its first key behind all that were removed before it: with thousands of them that is dear.
        self._order: deque[int] = deque()  # the receipts, oldest first

    def __bool__(self) -> bool:
        return bool(self._known)

    def met(self, origin: str, subscriber: int) -> int | None:
        """A subscriber has met the event of this origin: its receipt here; None: it is to be given one, and `add`ed."""
        receipt = self._receipts.get(origin)
        if receipt is not None:
            _, subscribers = self._known[receipt]
            if subscriber not in subscribers:
                self._known[receipt] = (origin, (*subscribers, subscriber))
        return receipt

    def add(self, receipt: int, origin: str, subscriber: int) -> None:
        self._known[receipt] = (origin, (subscriber,))
        self._order.append(receipt)
        self._receipts[origin] = receipt
        if len(self._order) > self._most:
            oldest = self._order.popleft()
            gone, _ = self._known.pop(oldest)
            if self._receipts.get(gone) == oldest:
                del self._receipts[gone]

    def origin(self, receipt: int) -> str | None:
        """The receipt that it was accepted with; None: not known here (any more)."""
        known = self._known.get(receipt)
        return known[0] if known is not None else None

    def subscribers(self, receipt: int) -> tuple[int, ...]:
        """Who has met it."""
        known = self._known.get(receipt)
        return known[1] if known is not None else ()


_ENTRY: Final = struct.Struct("<QQI")


class LateReceipts:
    """Where the records are whose receipts are not in order: receipt → number of the record, of the last `size` receipts; and of
    an event that nobody has accepted, since it came into the back end otherwise, who has met it. Nothing tells that two
    subscribers have met the same one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._table = pages(_ENTRY.size * size)  # the operating system gives pages as they are first used
        self.any = False

    def add(self, receipt: int, number: int, subscriber: int = 0) -> None:
        self.any = True
        _ENTRY.pack_into(self._table, receipt % self._size * _ENTRY.size, receipt, number, subscriber)

    def number(self, receipt: int) -> int | None:
        known, number, _ = _ENTRY.unpack_from(self._table, receipt % self._size * _ENTRY.size)
        return int(number) if known == receipt else None

    def subscribers(self, receipt: int) -> tuple[int, ...]:
        known, _, subscriber = _ENTRY.unpack_from(self._table, receipt % self._size * _ENTRY.size)
        return (int(subscriber),) if known == receipt and subscriber else ()
