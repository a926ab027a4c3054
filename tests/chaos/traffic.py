"""Producers that keep on sending, and what was answered to each event."""

import asyncio
import json
import random
from dataclasses import dataclass, field

from eventing.bindings.http import event_head
from tests.support.data_plane import Client, make_event

__all__ = ["Sent", "Traffic"]


@dataclass(slots=True)
class Sent:
    """One event. `receipt` is "" where no 202 came: then it may have been stored or not."""

    number: int
    data: bytes
    key: str = ""
    answered: bool = False
    receipt: str = ""

    @property
    def id(self) -> str:
        return str(self.number)

    @property
    def process(self) -> str:
        """The data-plane process that accepted it, by the prefix of its receipts."""
        return self.receipt.rpartition("-")[0]

    @property
    def order(self) -> int:
        return int(self.receipt.rpartition("-")[2])


@dataclass(slots=True)
class Traffic:
    """Events numbered from 0 to a channel of the namespace `default`, by `producers` at a time.

    `keyed`: each producer gives all its events one `partitionkey`, and sends the next when the one before has been answered: events
    of a key are stored in the order of their numbers."""

    port: int
    rand: random.Random
    channel: str = "orders"
    pause_s: float = 0.004
    keyed: bool = False
    patience_s: float = 40.0  # of `until`
    sent: list[Sent] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    details: set[str] = field(default_factory=set)  # what was said to those that were answered 503
    _stop: bool = False

    @property
    def next_number(self) -> int:
        return len(self.sent)

    @property
    def oldest_unanswered(self) -> int:
        """Every event of a smaller number has been answered."""
        return next((each.number for each in self.sent[-200:] if not each.answered), self.next_number)

    @property
    def accepted(self) -> list[Sent]:
        return [each for each in self.sent if each.receipt]

    def stop(self) -> None:
        """Send nothing more."""
        self._stop = True

    async def run(self, producers: int = 2) -> None:
        """Send until `stop`; again if asked again. An ingress that is away is no fault; whoever needs it to be there looks at `accepted`."""
        self._stop = False
        await asyncio.gather(*(self._produce(f"k{number}" if self.keyed else "") for number in range(producers)))

    async def _produce(self, key: str) -> None:
        client = Client(self.port)
        try:
            while not self._stop:
                each = Sent(self.next_number, self.rand.randbytes(self.rand.choice([2, 300, 3000])), key)
                self.sent.append(each)
                try:
                    async with asyncio.timeout(20):
                        attributes = {"partitionkey": key} if key else {}
                        head = event_head(make_event(each.id, each.data, **attributes))
                        answer = await client.request("POST", f"/default/{self.channel}", head, each.data)
                except (OSError, asyncio.IncompleteReadError, TimeoutError):
                    await client.aclose()
                else:
                    self.statuses.add(answer.status)
                    if answer.status == 202:
                        each.receipt = answer.headers["eventing-receipt"]
                    elif answer.status == 503:
                        self.details.add(json.loads(answer.body)["detail"])
                each.answered = True
                await asyncio.sleep(self.pause_s)
        finally:
            await client.aclose()

    async def until(self, accepted: int) -> None:
        """Wait for so many more accepted events."""
        wanted = len(self.accepted) + accepted
        try:
            async with asyncio.timeout(self.patience_s):
                while len(self.accepted) < wanted:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{len(self.accepted)} of {wanted} events accepted; answers: {self.statuses}") from None
