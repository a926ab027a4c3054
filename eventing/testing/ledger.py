"""The books of a test: what was sent, what was promised, and what became of it at each subscription.

The rule that they are checked against: of every event that was acknowledged,

    acknowledged  is a subset of  delivered | dead-lettered | dropped with a reason | pending

holds for each subscription that it was due to; nothing arrives where it was not due; and no event is dropped for a reason that
the test does not expect.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

__all__ = ["Ledger", "LedgerError"]

_SHOWN = 5


class LedgerError(AssertionError):
    """The books do not balance; the message says for which subscriptions and which events."""


class Ledger:
    """Events by id, subscriptions by any name that the test likes.

    `send` each event before it is sent, `acknowledge` it when the answer was 202: an event whose answer got lost may arrive or
    not. Then book what became of it. Booking twice counts: `deliveries` says how often, since at least once is the promise.
    """

    def __init__(self) -> None:
        self._due: dict[str, frozenset[str]] = {}
        self._acknowledged: set[str] = set()
        self.deliveries: Counter[tuple[str, str]] = Counter()
        self._dead_lettered: set[tuple[str, str]] = set()
        self._dropped: dict[tuple[str, str], str] = {}
        self._pending: set[tuple[str, str]] = set()

    def send(self, event_id: str, subscriptions: Iterable[str]) -> None:
        """An event is about to be sent that is due to these subscriptions."""
        if event_id in self._due:
            raise ValueError(f"{event_id!r} was sent before; a ledger needs an id per event")
        self._due[event_id] = frozenset(subscriptions)

    def acknowledge(self, event_id: str) -> None:
        if event_id not in self._due:
            raise ValueError(f"{event_id!r} is acknowledged but was never sent")
        self._acknowledged.add(event_id)

    def deliver(self, subscription: str, event_id: str) -> None:
        """The subscriber has answered success."""
        self.deliveries[subscription, event_id] += 1

    def dead_letter(self, subscription: str, event_id: str) -> None:
        self._dead_lettered.add((subscription, event_id))

    def drop(self, subscription: str, event_id: str, reason: str) -> None:
        if not reason:
            raise ValueError("a drop without a reason is a loss")
        self._dropped[subscription, event_id] = reason

    def pend(self, subscription: str, event_id: str) -> None:
        """The mesh says that it still holds the event for this subscription."""
        self._pending.add((subscription, event_id))

    @property
    def acknowledged(self) -> frozenset[str]:
        return frozenset(self._acknowledged)

    @property
    def duplicates(self) -> int:
        """Deliveries beyond the first, over all subscriptions."""
        return sum(count - 1 for count in self.deliveries.values())

    def check(self, *, drops: Iterable[str] = (), pending: bool = False, duplicates_at_most: int | None = None) -> None:
        """Raise LedgerError unless the books balance.

        `drops` are the reasons for which this test expects events to be dropped. `pending` says whether events may still be
        held; at the end of most tests nothing may be.
        """
        settled = set(self.deliveries) | self._dead_lettered | set(self._dropped) | self._pending
        due = {(name, event_id) for event_id in self._acknowledged for name in self._due[event_id]}
        arrived = set(self.deliveries) | self._dead_lettered
        expected = frozenset(drops)
        complaints = [
            *_complain("lost", "were acknowledged and are nowhere", _by_subscription(due - settled)),
            *_complain(
                "foreign",
                "arrived where they were not due",
                _by_subscription({(name, id_) for name, id_ in arrived if name not in self._due.get(id_, ())}),
            ),
            *_complain(
                "dropped",
                f"were dropped for a reason that is not expected (expected: {', '.join(sorted(expected)) or 'none'})",
                _by_subscription({(n, f"{i} ({why})") for (n, i), why in self._dropped.items() if why not in expected}),
            ),
        ]
        if not pending:
            held = self._pending - arrived - set(self._dropped)
            complaints += _complain("pending", "are still held at the end", _by_subscription(held))
        if duplicates_at_most is not None and self.duplicates > duplicates_at_most:
            complaints.append(f"duplicates: {self.duplicates}, expected at most {duplicates_at_most}")
        if complaints:
            raise LedgerError("\n".join((f"the ledger does not balance ({self.summary()}):", *complaints)))

    def summary(self) -> str:
        """One line of counts."""
        return (
            f"{len(self._due)} sent, {len(self._acknowledged)} acknowledged, {len(self.deliveries)} delivered "
            f"and {self.duplicates} of them again, {len(self._dead_lettered)} dead-lettered, {len(self._dropped)} dropped, "
            f"{len(self._pending)} pending"
        )


def _by_subscription(pairs: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for subscription, event_id in sorted(pairs):
        found[subscription].append(event_id)
    return found


def _complain(word: str, what: str, found: Mapping[str, list[str]]) -> list[str]:
    lines = []
    for subscription, ids in found.items():
        shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
        lines.append(f"{word}: at {subscription}, {len(ids)} {what}: {shown}")
    return lines
