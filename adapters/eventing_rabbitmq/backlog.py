"""How far a subscription is behind: what RabbitMQ was last seen to hold for it, and what has become of that since (C-23)."""

import time
from collections import deque
from typing import Final

from eventing.channels import Lag
from eventing_rabbitmq.lease import RabbitmqLease

__all__ = ["Backlog"]

_DELAYED_MAX: Final = 4096


class Backlog:
    """`arrived` counts the messages that came since RabbitMQ was last asked."""

    def __init__(self) -> None:
        self.arrived = 0
        self._put_away = 0  # into delay queues, since then
        self._seen: tuple[int, int, float] | None = None  # not handed out, consumers that share it, when
        self._delayed: deque[tuple[float, int]] = deque()  # what waits in delay queues: until when, and the time of the message

    def ask(self) -> int:
        """RabbitMQ is about to be asked: begin to count anew. How many came since the last time."""
        arrived, self.arrived, self._put_away = self.arrived, 0, 0
        return arrived

    def seen(self, ready: int, consumers: int, now: float) -> None:
        """So many are not handed out, in the queue and its delay queues; so many processes count their share of them."""
        self._seen = (ready, consumers, now)

    def delayed(self, lease: RabbitmqLease, until: float) -> None:
        """An event was put into a delay queue."""
        if lease.said.timestamp is not None and len(self._delayed) < _DELAYED_MAX:
            self._delayed.append((until, lease.said.timestamp))
        self._put_away += 1

    def lag(self, here: int, oldest: RabbitmqLease | None, now: float) -> Lag:
        """`here`: how many are in this process, of which `oldest` came first."""
        if self._seen is None:
            return Lag(None, None, None)
        ready, consumers, as_of = self._seen
        ready = -(-max(0, ready - self.arrived) // max(1, consumers))
        while self._delayed and self._delayed[0][0] <= now:
            self._delayed.popleft()
        timestamps = [oldest.said.timestamp] if oldest is not None and oldest.said.timestamp is not None else []
        timestamps += [timestamp for _, timestamp in list(self._delayed)[:1]]
        age = max(0.0, time.time() - min(timestamps)) if timestamps else None
        return Lag(events=ready + self._put_away + here, bytes=None, oldest_s=age, as_of=as_of)
