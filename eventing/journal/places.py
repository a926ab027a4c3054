"""To whom an event is due: numbers for channels with their subscribers, and who came and went when.

Everything is bounded: what is used no more is kept while events that were accepted under it may still be asked for.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from eventing.observe.redaction import redacted

__all__ = ["PLACES", "SUBSCRIBERS", "Place", "Places", "SubscriberEntry"]

SUBSCRIBERS: Final = 20_000
PLACES: Final = 4096  # that are used no more
DUE_MAX: Final = 400_000  # subscriber numbers in all of those
_URI: Final = 500


class Place(NamedTuple):
    """A channel and the subscribers to which its events are due. `data`: whether the journal keeps their data."""

    channel: str
    due: tuple[int, ...]
    data: bool


@dataclass(slots=True)
class SubscriberEntry:
    """Who a subscriber number stands for; `since` and `left` are of the calendar's clock, `left` 0.0: still there."""

    subscription: str  # NS/NAME
    uid: str
    uri: str  # without secrets
    channel: str = ""
    since: float = 0.0
    left: float = 0.0
    closed: bool = False  # it left with its channel

    @property
    def gone(self) -> bool:
        return self.left > self.since


class Places:
    """The numbers that acceptances and attempts are recorded with. Numbers count from 1; those of places that keep no data are
    negative, so that whoever writes an acceptance sees it without asking."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._places: dict[int, Place] = {}
        self._current: dict[str, int] = {}  # channel → the number last given
        self._past: deque[int] = deque()
        self._past_due = 0
        self._number = 0
        self._subscribers: dict[int, SubscriberEntry] = {}
        self._subscriber_number = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, channel: str, due: tuple[int, ...], *, data: bool) -> int:
        """A number for this from now on. Who is new among those due came now, who is no more left now."""
        self._number += 1
        number = self._number if data else -self._number
        now = self._wall()
        before = self._places.get(self._current.get(channel, 0))
        known = set(before.due) if before else set()
        for subscriber in set(due) - known:
            entry = self._subscribers.get(subscriber)
            if entry is not None:
                entry.channel, entry.since = channel, now
        for subscriber in known.difference(due):
            entry = self._subscribers.get(subscriber)
            if entry is not None:
                entry.left = now
        self._places[number] = Place(channel, due, data)
        self._current[channel] = number
        return number

    def forget(self, number: int) -> None:
        """The number is used no more; what was accepted under it is still to be read for a while."""
        place = self._places.get(number)
        if place is None:
            return
        self._past.append(number)
        self._past_due += len(place.due)
        while len(self._past) > PLACES or (self._past_due > DUE_MAX and len(self._past) > 1):
            oldest = self._past.popleft()
            gone = self._places.pop(oldest)
            self._past_due -= len(gone.due)
            if self._current.get(gone.channel) == oldest:
                del self._current[gone.channel]

    def close(self, number: int) -> None:
        """The channel is gone, and with it all that its events are due to."""
        for subscriber in self.place(number).due:
            entry = self._subscribers.get(subscriber)
            if entry is not None:
                entry.left, entry.closed = self._wall(), True
        self.forget(number)

    def place(self, number: int) -> Place:
        return self._places.get(number) or Place("", (), data=True)

    def place_of(self, subscriber: int) -> int:
        """The number that the subscriber's channel has now; 0 where it has none."""
        entry = self._subscribers.get(subscriber)
        return self._current.get(entry.channel, 0) if entry is not None else 0

    def of(self, channel: str) -> set[int]:
        """Every number that stands for the channel."""
        return {number for number, place in self._places.items() if place.channel == channel}

    def subscriber(self, subscription: str, uid: str, uri: str) -> int:
        """A number for a subscriber."""
        self._subscriber_number += 1
        self._subscribers[self._subscriber_number] = SubscriberEntry(subscription, uid, redacted(uri, _URI))
        self._subscribers.pop(self._subscriber_number - SUBSCRIBERS, None)
        return self._subscriber_number

    def rename(self, number: int, subscription: str, uid: str, uri: str) -> None:
        """The subscriber of this number has another address now."""
        entry = self._subscribers.get(number)
        if entry is None:
            self._subscribers[number] = SubscriberEntry(subscription, uid, redacted(uri, _URI))
        else:
            entry.subscription, entry.uid, entry.uri = subscription, uid, redacted(uri, _URI)

    def entry(self, subscriber: int) -> SubscriberEntry | None:
        return self._subscribers.get(subscriber)

    def entries(self) -> Iterator[tuple[int, SubscriberEntry]]:
        return iter(list(self._subscribers.items()))
