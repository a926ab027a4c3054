"""Requests that were not accepted: the last of them, bounded."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from eventing.observe.redaction import redacted

__all__ = ["REFUSALS", "Refusal", "Refusals"]

REFUSALS: Final = 1024
_TEXT: Final = 300  # characters of each text kept: a path or an id may have 32 KB


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not accepted. `channel` is NAMESPACE/NAME, or the path where there is no such channel."""

    received: float
    peer: str
    channel: str
    event_id: str
    status: int
    detail: str


class Refusals:
    """A deque of them; what fell out is counted."""

    def __init__(self, wall: Callable[[], float], size: int = REFUSALS) -> None:
        self._wall = wall
        self._kept: deque[Refusal] = deque(maxlen=size)
        self.total = 0

    def add(self, peer: str, channel: str, event_id: str, status: int, detail: str) -> None:
        self.total += 1
        self._kept.append(
            Refusal(self._wall(), peer, redacted(channel, _TEXT), event_id[:_TEXT], status, redacted(detail, _TEXT))
        )

    @property
    def kept(self) -> tuple[Refusal, ...]:
        return tuple(self._kept)

    @property
    def overwritten(self) -> int:
        return self.total - len(self._kept)

    def since(self, position: int) -> Iterable[Refusal]:
        """Those after the first `position` that are still kept."""
        kept = self._kept
        return list(kept)[max(0, position - self.overwritten) :]
