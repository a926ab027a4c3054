"""What is remembered of events that went back to RabbitMQ while they waited for another try: it knows nothing of that, and most
come again to where they were."""

from typing import Final, NamedTuple

from eventing_rabbitmq.lease import RabbitmqLease

__all__ = ["Remembered", "Wait"]

_MOST: Final = 4096
_KEPT_S: Final = 60.0  # beyond the time until which the event was to wait
_Identity = tuple[bytes | None, bytes | None, bytes]


class Wait(NamedTuple):
    """`until` is of the monotonic clock."""

    until: float
    note: bytes
    deliveries: int


class Remembered:
    """Of one subscription, in this process."""

    def __init__(self) -> None:
        self._waits: dict[_Identity, Wait] = {}

    def __bool__(self) -> bool:
        return bool(self._waits)

    def put(self, lease: RabbitmqLease, until: float) -> None:
        if len(self._waits) < _MOST:
            self._waits[_identity(lease)] = Wait(until, lease.note, lease.deliveries)

    def pop(self, lease: RabbitmqLease) -> Wait | None:
        return self._waits.pop(_identity(lease), None)

    def forget_before(self, now: float) -> None:
        """Those are not coming any more: another process has them."""
        for identity in [identity for identity, wait in self._waits.items() if wait.until < now - _KEPT_S]:
            del self._waits[identity]


def _identity(lease: RabbitmqLease) -> _Identity:
    """What tells a message that comes again from others."""
    said = dict(lease.said.headers)
    id_, source = said.get(b"id"), said.get(b"source")
    return said.get(b"eventing-receipt"), source, id_ if id_ is not None else lease.body
