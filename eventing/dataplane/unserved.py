"""A channel that this process knows of and cannot serve: its producers are told why, and when to come again."""

import asyncio
from collections.abc import Sequence
from typing import Final

from eventing.channels import Capabilities, Consumer, Cursor, Order
from eventing.errors import ChannelUnavailableError
from eventing.event import Event
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber

__all__ = ["RETRY_AFTER_S", "UnservedChannel"]

# Somebody must restart the mesh: producers that ask more often would learn nothing new.
RETRY_AFTER_S: Final = 30.0


class UnservedChannel:
    """Takes the place of a channel in the table. Nothing is stored, nobody can subscribe; `why` is for people."""

    capabilities = Capabilities(durable=False, orders=frozenset({Order.NONE}), replay=False, atomic_batch=True, max_event_bytes=0)

    def __init__(self, why: str) -> None:
        self.why = why

    def publish(self, events: Sequence[Event]) -> "asyncio.Future[None] | None":
        """Raises ChannelUnavailableError: 503, since the same request may succeed once the mesh runs otherwise."""
        raise ChannelUnavailableError(f"the channel is not served: {self.why}", RETRY_AFTER_S)

    def order(self, subscriber: Subscriber) -> Order:
        return Order.NONE

    def attach(self, subscriber: Subscriber, consumer: Consumer, *, order: Order = Order.NONE) -> Cursor:
        raise ChannelUnavailableError(f"the channel is not served: {self.why}", RETRY_AFTER_S)

    def configure(self, channel: Object) -> None:
        """Nothing of it is in force."""

    async def aclose(self, deadline: float) -> None:
        """Nothing is open."""
