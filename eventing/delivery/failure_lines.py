"""A log line for each event that is lost or dead-lettered: what an operator greps for. Bounded in their rate, since a dead
subscriber with a full queue behind it makes ten thousand of them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from eventing.observe.redaction import redacted

__all__ = ["FailureLines"]

log = logging.getLogger(__name__)

PER_SECOND: Final = 10  # lines, once the burst is used up
BURST: Final = 50


class FailureLines:
    """Of one process. What is not listed is summed up in a line of its own within a second, and counted in `unlisted`."""

    def __init__(
        self,
        receipt_text: Callable[[int], str],
        *,
        clock: Callable[[], float] = time.monotonic,
        per_second: float = PER_SECOND,
        burst: float = BURST,
    ) -> None:
        self.unlisted = 0
        self._receipt_text = receipt_text
        self._clock = clock
        self._per_second = per_second
        self._burst = self._allowed = burst
        self._asked_at = clock()
        self._untold: Counter[str] = Counter()  # by reason
        self._timer: asyncio.TimerHandle | None = None

    def dropped(self, receipt: int, subscription: str, reason: str, *, status: int = 0, detail: str = "") -> None:
        """The event ended at this subscription without reaching anybody. `detail` is for people; secrets in it are masked."""
        self._tell("event dropped", receipt, subscription, reason, status, detail)

    def dead_lettered(self, receipt: int, subscription: str, reason: str, *, sink: str) -> None:
        """The event went to the dead-letter sink."""
        self._tell("event dead-lettered", receipt, subscription, reason, 0, sink)

    def _tell(self, message: str, receipt: int, subscription: str, reason: str, status: int, detail: str) -> None:
        now = self._clock()
        self._allowed = min(self._burst, self._allowed + (now - self._asked_at) * self._per_second)
        self._asked_at = now
        if self._allowed < 1:
            self.unlisted += 1
            self._untold[reason] += 1
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(1.0, self.flush)
            return
        self._allowed -= 1
        fields: dict[str, object] = {
            "receipt": self._receipt_text(receipt), "subscription": subscription, "reason": reason,
        }  # fmt: skip
        if status:
            fields["status"] = status
        if detail:
            fields["detail"] = redacted(detail)
        log.warning(message, extra=fields)

    def flush(self) -> None:
        """Sum up what was not listed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._untold:
            log.warning(
                "more events failed than are listed",
                extra={"unlisted": sum(self._untold.values()), "by_reason": dict(self._untold)},
            )
            self._untold.clear()
