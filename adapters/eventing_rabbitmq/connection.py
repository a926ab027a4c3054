"""One AMQP 0-9-1 connection to RabbitMQ, and the AMQP channels on it: a protocol of callbacks, no task and no future per message.

Whoever uses an AMQP channel gets its frames through a `Handler`, called from the loop. What is written within one turn of the
loop leaves together. A connection that shows no sign of life for two heartbeats is ended here.
"""

import asyncio
import logging
import random
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from pamqp import commands, exceptions, frame
from pamqp.base import Frame

from eventing.errors import EventingError
from eventing_rabbitmq import frames
from eventing_rabbitmq.settings import RabbitmqSettings

__all__ = ["AmqpChannel", "BrokerError", "Connection", "ConnectionLostError", "Handler", "NoAnswerError", "connect"]

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
CALL_TIMEOUT_S: Final = 10.0
_FRAME: Final = struct.Struct(">BHI")
_GREETING: Final = b"AMQP\0\0\x09\x01"
_CAPABILITIES: Final = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}
_GOODBYE_S: Final = 1.0
_NEXT_NODE_S: Final = 5.0  # after which the next node of a cluster is tried
_GIVEN_UP_MAX: Final = 200  # AMQP channels of a connection that hang; then a new connection is made


class BrokerError(EventingError):
    """The broker closed an AMQP channel or the connection; `code` is AMQP's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ConnectionLostError(EventingError):
    """There is no connection (any more)."""


class NoAnswerError(ConnectionLostError):
    """The broker does not answer a call; the AMQP channel is given up. A queue that has no leader makes it so, with a
    connection that is alive."""


class Handler(Protocol):
    """What happens on an AMQP channel."""

    def delivered(self, tag: int, header: bytes, body: bytes, *, again: bool, direct: bool) -> None:
        """A message; `direct`: it came by the default exchange."""

    def confirmed(self, tag: int, *, multiple: bool, stored: bool) -> None: ...

    def returned(self, code: int, routing_key: bytes) -> None: ...

    def cancelled(self) -> None:
        """The broker has ended the consumer: its queue is gone."""

    def closed(self, error: EventingError) -> None:
        """The channel has ended, by whomever; nothing comes after it."""


class AmqpChannel:
    """An AMQP channel. One call is under way at a time; deliveries and confirmations come beside it."""

    def __init__(self, connection: "Connection", number: int, handler: Handler) -> None:
        self.connection = connection
        self.number = number
        self.ended: asyncio.Future[EventingError] = connection.loop.create_future()
        self._handler = handler
        self._lock = asyncio.Lock()
        self._closing = False
        self._replies: deque[asyncio.Future[Any]] = deque()  # those given up are there too: their answers come
        self._content: Callable[[bytes, bytes], None] | None = None
        self._header = b""
        self._left = 0
        self._body: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.connection.write(data)

    async def call(self, method: Frame, within_s: float = CALL_TIMEOUT_S) -> Any:
        """Send a method and wait for its answer. Raises BrokerError where the broker closes the channel over it,
        ConnectionLostError, and NoAnswerError, after which the channel has ended."""
        async with self._lock:
            if self.ended.done():
                raise self.ended.result()
            reply: asyncio.Future[Any] = self.connection.loop.create_future()
            self._replies.append(reply)
            self.connection.write(frame.marshal(method, self.number))
            try:
                async with asyncio.timeout(within_s):
                    return await reply
            except TimeoutError:
                error = NoAnswerError(f"RabbitMQ gives no answer to {method.name} within {within_s:g} s")
                self.give_up(error)
                raise error from None

    async def close(self, within_s: float = CALL_TIMEOUT_S) -> None:
        """End it in order: what was written before is done when this returns."""
        if self.ended.done():
            return
        self._closing = True
        with suppress(BrokerError, ConnectionLostError):
            await self.call(commands.Channel.Close(200, "", 0, 0), within_s)

    def end(self, error: EventingError) -> None:
        if self.ended.done():
            return
        self.ended.set_result(error)
        self.connection.channels.pop(self.number, None)
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(error)
        self._replies.clear()
        self._handler.closed(error)

    def give_up(self, error: EventingError) -> None:
        """End it without waiting for the broker to agree; until it does, the number is taken."""
        if self.ended.done():
            return
        if not self._closing:
            self.connection.write(frame.marshal(commands.Channel.Close(200, "", 0, 0), self.number))
        self.end(error)
        self.connection.given_up(self)

    def received(self, kind: int, payload: bytes) -> None:
        """A frame for this channel."""
        if self.ended.done():
            self._late(kind, payload)
            return
        if kind == frames.METHOD:
            name = payload[:4]
            if name == frames.DELIVER:
                tag, again, direct = frames.delivery(payload)
                handler = self._handler
                self._content = lambda header, body: handler.delivered(tag, header, body, again=again, direct=direct)
            elif name == frames.ACK:
                tag, multiple = frames.confirmation(payload)
                self._handler.confirmed(tag, multiple=multiple, stored=True)
            elif name == frames.NACK:
                tag, multiple = frames.confirmation(payload)
                self._handler.confirmed(tag, multiple=multiple, stored=False)
            elif name == frames.RETURN:
                self._handler.returned(*frames.returned(payload))
                self._content = _ignored
            elif name == frames.CANCEL:
                self._handler.cancelled()
            else:
                self._answered(_method(payload))
        elif kind == frames.BODY:
            self._left -= len(payload)
            if self._left or self._body:
                self._body.append(payload)
            if not self._left:
                self._complete(b"".join(self._body) if self._body else payload)
                self._body = []
        elif kind == frames.HEADER:
            self._header = payload
            self._left = int.from_bytes(payload[4:12])
            if not self._left:
                self._complete(b"")

    def _late(self, kind: int, payload: bytes) -> None:
        """A frame for a channel that was given up: its close is all that counts."""
        method = _method(payload) if kind == frames.METHOD else None
        if isinstance(method, commands.Channel.Close):
            self.connection.write(frame.marshal(commands.Channel.CloseOk(), self.number))
        elif isinstance(method, commands.Channel.CloseOk):
            self.connection.channels.pop(self.number, None)

    def _complete(self, body: bytes) -> None:
        content, self._content = self._content, None
        if content is not None:
            content(self._header, body)

    def _answered(self, method: Frame) -> None:
        if isinstance(method, commands.Channel.Close):
            self.connection.write(frame.marshal(commands.Channel.CloseOk(), self.number))
            self.end(BrokerError(method.reply_code or 0, method.reply_text or ""))
        elif self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(method)
            if isinstance(method, commands.Channel.CloseOk):
                self.end(ConnectionLostError("the AMQP channel is closed"))


def _ignored(_header: bytes, _body: bytes) -> None:
    """A message that came back: what it was is known by its routing key."""


def _method(payload: bytes) -> Frame:
    _, _, method = frame.unmarshal(frames.METHOD.to_bytes(1) + b"\0\0" + len(payload).to_bytes(4) + payload + b"\xce")
    assert isinstance(method, Frame)
    return method


class Connection(asyncio.Protocol):
    """The connection. `blocked` says why the broker takes no messages now (an alarm), "" while it does; `why` why it has
    ended."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.channels: dict[int, AmqpChannel] = {}
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.blocked = ""
        self.why = ""
        self.version = ""
        self.frame_max = 131_072
        self.channel_max = 2047
        self.on_blocked: list[Callable[[], None]] = []
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._next = 0
        self._reply: asyncio.Future[Any] | None = None
        self._heartbeat_s = 0.0
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wrote = False

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._transport.set_write_buffer_limits(1 << 30)  # what may wait is bounded by those who write

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.why = self.why or (f"the connection was lost: {exc}" if exc else "the broker closed the connection")
        error = ConnectionLostError(self.why)
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
        for channel in list(self.channels.values()):
            channel.end(error)
        self.channels.clear()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        channels = self.channels
        unpack = _FRAME.unpack_from
        while end - at >= frames.FRAME_OVERHEAD:
            kind, number, size = unpack(data, at)
            stop = at + 7 + size
            if stop >= end:
                break
            if data[stop] != 0xCE:
                self.abort("what came is not AMQP 0-9-1")
                return
            payload = data[at + 7 : stop]
            at = stop + 1
            if number:
                channel = channels.get(number)
                if channel is not None:
                    channel.received(kind, payload)
            elif kind == frames.METHOD:
                self._control(_method(payload))
            elif kind != frames.HEARTBEAT:
                self.abort("what came is not AMQP 0-9-1")
                return
        self._rest = data[at:]

    def _control(self, method: Frame) -> None:
        if isinstance(method, commands.Connection.Blocked):
            self.blocked = method.reason or "an alarm"
            self._tell_blocked()
        elif isinstance(method, commands.Connection.Unblocked):
            self.blocked = ""
            self._tell_blocked()
        elif isinstance(method, commands.Connection.Close):
            self.why = f"the broker closed the connection: {method.reply_code} {method.reply_text}"
            self.write(frame.marshal(commands.Connection.CloseOk(), 0))
            if self._reply is not None and not self._reply.done():
                self._reply.set_exception(BrokerError(method.reply_code or 0, method.reply_text or ""))
            self._flush()
            if self._transport is not None:
                self._transport.close()
        elif self._reply is not None and not self._reply.done():
            self._reply.set_result(method)

    def _tell_blocked(self) -> None:
        for told in list(self.on_blocked):
            told()

    # the users' side

    def write(self, data: bytes) -> None:
        """Written with all else that is written in this turn of the loop."""
        out = self._out
        if not out:
            self.loop.call_soon(self._flush)
        out.append(data)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
            self._wrote = True
        self._out.clear()

    def abort(self, why: str) -> None:
        """End it at once."""
        self.why = self.why or why
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """End it in order, within a second."""
        if not self.ended.done() and self._reply is None:
            self.why = "it is closed here"
            with suppress(EventingError, TimeoutError):
                await self._call(commands.Connection.Close(200, "", 0, 0), _GOODBYE_S)
        self.abort("it is closed here")
        await asyncio.wait([self.ended])

    async def channel(self, handler: Handler) -> AmqpChannel:
        """A new AMQP channel. Raises BrokerError or ConnectionLostError."""
        if self.ended.done():
            raise ConnectionLostError(self.why)
        for _ in range(self.channel_max):
            self._next = self._next % self.channel_max + 1
            if self._next not in self.channels:
                break
        else:
            raise BrokerError(504, f"all {self.channel_max} AMQP channels of the connection are in use")
        channel = self.channels[self._next] = AmqpChannel(self, self._next, handler)
        try:
            await channel.call(commands.Channel.Open())
        except asyncio.CancelledError:
            channel.give_up(ConnectionLostError("it was not needed"))
            raise
        return channel

    def given_up(self, channel: AmqpChannel) -> None:
        """The broker may still use the number of an AMQP channel that has ended here."""
        self.channels[channel.number] = channel
        if sum(one.ended.done() for one in self.channels.values()) > _GIVEN_UP_MAX:
            self.abort("RabbitMQ leaves too many calls without an answer")

    async def greet(self, settings: RabbitmqSettings, name: str) -> None:
        """The handshake. Raises BrokerError where the broker refuses, ConnectionLostError."""
        assert self._transport is not None
        start = await self._call(None, CONNECT_TIMEOUT_S)
        if not isinstance(start, commands.Connection.Start):
            raise ConnectionLostError("what answers is not RabbitMQ")
        properties: dict[str, Any] = dict(start.server_properties or {})
        version = properties.get("version", "")
        self.version = version.decode() if isinstance(version, bytes) else str(version)
        about: dict[str, Any] = {
            "product": "eventing-mesh", "platform": "Python", "connection_name": name, "capabilities": dict(_CAPABILITIES)
        }  # fmt: skip
        login = f"\0{settings.user}\0{settings.password}"
        tune = await self._call(commands.Connection.StartOk(about, "PLAIN", login, "en_US"), CONNECT_TIMEOUT_S)
        if not isinstance(tune, commands.Connection.Tune):
            raise ConnectionLostError("the broker asks for more than a user and a password")
        self.frame_max = min(tune.frame_max or self.frame_max, self.frame_max)
        self.channel_max = min(tune.channel_max or self.channel_max, self.channel_max)
        heartbeat_s = settings.heartbeat_s
        self.write(frame.marshal(commands.Connection.TuneOk(self.channel_max, self.frame_max, heartbeat_s), 0))
        await self._call(commands.Connection.Open(settings.vhost), CONNECT_TIMEOUT_S)
        self._heartbeat_s = float(heartbeat_s)
        self._beat(self.loop.time())

    async def _call(self, method: Frame | None, within_s: float) -> Any:
        if self.ended.done():
            raise ConnectionLostError(self.why)
        self._reply = self.loop.create_future()
        try:
            if method is None:
                self.write(_GREETING)
            else:
                self.write(frame.marshal(method, 0))
            async with asyncio.timeout(within_s):
                return await self._reply
        finally:
            self._reply = None

    def _beat(self, due: float) -> None:
        now = self.loop.time()
        every = self._heartbeat_s / 2
        # Where the loop itself stood still, what the broker sent meanwhile has still to be read.
        if now - due < every and now - self._heard > 2 * self._heartbeat_s:
            self.abort(f"no sign of life from the broker for {2 * self._heartbeat_s:g} s")
            return
        if not self._wrote:
            self.write(frames.HEARTBEAT_FRAME)
        self._wrote = False
        self._timer = self.loop.call_later(every, self._beat, now + every)


async def connect(settings: RabbitmqSettings, name: str) -> Connection:
    """A connection that is ready for use, to any node: they are tried in an order of chance, so that connections spread. Raises
    OSError, TimeoutError, BrokerError, ConnectionLostError; of several nodes what one has said, or what the last one came to."""
    *others, last = random.sample(settings.addresses, len(settings.addresses))
    refusal: BrokerError | None = None
    for host, port in others:
        try:
            async with asyncio.timeout(_NEXT_NODE_S):
                return await _connect(settings, host, port, name)
        except BrokerError as error:
            refusal = error
        except (OSError, ConnectionLostError):
            pass  # another may be there, and the last one says it where none is
    try:
        return await _connect(settings, *last, name)
    except (OSError, ConnectionLostError) as error:
        raise refusal or error from None


async def _connect(settings: RabbitmqSettings, host: str, port: int, name: str) -> Connection:
    loop = asyncio.get_running_loop()
    context = settings.context()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, connection = await loop.create_connection(Connection, host, port, ssl=context)
    try:
        await connection.greet(settings, name)
    except exceptions.PAMQPException as error:
        connection.abort("what answers is not RabbitMQ")
        raise ConnectionLostError("what answers is not RabbitMQ") from error
    except BaseException:
        connection.abort("it was not made")
        raise
    return connection
