"""An AMQP channel in confirm mode: messages go out one after the other, and what becomes of each is told when it is known.

The routing key, which a fanout exchange does not look at, is the number of the message, so that one that comes back unroutable
is known. Where the routing key says where a message goes (to a delay queue), all that are on their way there count as
unroutable then.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from pamqp import commands

from eventing.errors import EventingError
from eventing_rabbitmq.connection import AmqpChannel, Connection
from eventing_rabbitmq.frames import Publication

__all__ = ["Confirming"]

NO_ROUTE: Final = 312

Token = TypeVar("Token")


class Confirming(Generic[Token]):
    """`ended(token, stored, routed)` is called once for each message that was sent: stored by all queues that it was due to;
    not routed where there was none. `lost(tokens, error)` when the channel has ended, for those whose fate is unknown."""

    def __init__(
        self,
        exchange: str,
        ended: Callable[[Token, bool, bool], None],
        lost: Callable[[list[Token], EventingError], None],
    ) -> None:
        self.channel: AmqpChannel | None = None
        self.answers = 0  # of the broker, to one message or to several
        self._exchange = exchange.encode()
        self._ended = ended
        self._lost = lost
        self._number = 0
        self._publication: Publication | None = None
        self._unconfirmed: dict[int, Token] = {}
        self._unrouted: set[int] = set()
        self._ways: dict[int, bytes] = {}  # number → routing key, where that was given

    async def open(self, connection: Connection) -> AmqpChannel:
        """Open it on a connection. Raises BrokerError, ConnectionLostError."""
        channel = await connection.channel(self)
        await channel.call(commands.Confirm.Select())
        self._number = 0
        self._publication = Publication(channel.number, self._exchange, connection.frame_max)
        self.channel = channel
        return channel

    @property
    def blocked(self) -> str:
        return self.channel.connection.blocked if self.channel is not None else ""

    def send(self, header: bytes, body: bytes, token: Token, routing_key: bytes | None = None) -> None:
        """Send a message; the channel must be open."""
        assert self.channel is not None and self._publication is not None
        self._number = number = self._number + 1
        self._unconfirmed[number] = token
        if routing_key is None:
            key = b"%d" % number
        else:
            key = self._ways[number] = routing_key
        self.channel.connection.write(self._publication.frames(key, header, body))

    # the channel's side

    def delivered(self, tag: int, header: bytes, body: bytes, *, again: bool, direct: bool) -> None:
        """Nothing is consumed here."""

    def cancelled(self) -> None:
        """Nothing is consumed here."""

    def confirmed(self, tag: int, *, multiple: bool, stored: bool) -> None:
        self.answers += 1
        unconfirmed = self._unconfirmed
        if not multiple:
            if tag in unconfirmed:
                self._ended(unconfirmed.pop(tag), stored, self._was_routed(tag))
            return
        for number in list(unconfirmed):
            if number > tag:
                break
            self._ended(unconfirmed.pop(number), stored, self._was_routed(number))

    def _was_routed(self, number: int) -> bool:
        if self._ways:
            self._ways.pop(number, None)
        if number in self._unrouted:
            self._unrouted.discard(number)
            return False
        return True

    def returned(self, code: int, routing_key: bytes) -> None:
        # It comes before the message's confirmation.
        if code != NO_ROUTE:
            return
        if self._ways:
            self._unrouted |= {number for number, way in self._ways.items() if way == routing_key}
        elif routing_key.isdigit():
            self._unrouted.add(int(routing_key))

    def closed(self, error: EventingError) -> None:
        self.channel = None
        self._publication = None
        self._unrouted.clear()
        self._ways.clear()
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        if unconfirmed:
            self._lost(list(unconfirmed.values()), error)
