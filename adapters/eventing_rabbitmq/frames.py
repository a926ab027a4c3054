"""Frames of AMQP 0-9-1. What every event costs is written and read here, by hand; all other methods are pamqp's.

aiormq makes a task, two futures and half a dozen objects of each message, either way (docs/decisions/0002-channel-port.md,
C-04: 132 to 154 µs per publish); a frame is a few bytes put together.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

__all__ = [
    "ACK",
    "BODY",
    "CANCEL",
    "DELIVER",
    "FRAME_OVERHEAD",
    "HEADER",
    "HEARTBEAT",
    "HEARTBEAT_FRAME",
    "METHOD",
    "NACK",
    "RETURN",
    "Properties",
    "Publication",
    "ack",
    "confirmation",
    "content_header",
    "delivery",
    "nack",
    "properties",
    "returned",
]

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
HEARTBEAT_FRAME: Final = b"\x08\0\0\0\0\0\0\xce"
FRAME_OVERHEAD: Final = 8

# Methods by the four bytes that they begin with.
DELIVER: Final = b"\0\x3c\0\x3c"
RETURN: Final = b"\0\x3c\0\x32"
ACK: Final = b"\0\x3c\0\x50"
NACK: Final = b"\0\x3c\0\x78"
CANCEL: Final = b"\0\x3c\0\x1e"
_PUBLISH: Final = b"\0\x3c\0\x28\0\0"
_MANDATORY: Final = b"\x01"
_END: Final = b"\xce"

_FRAME: Final = struct.Struct(">BHI")
_LONG: Final = struct.Struct(">I")
_TAGGED: Final = struct.Struct(">BHI4sQBB")
_TAG: Final = struct.Struct(">Q")
_CONTENT: Final = struct.Struct(">HHQH")

_CONTENT_TYPE: Final = 1 << 15
_HEADERS: Final = 1 << 13
_DELIVERY_MODE: Final = 1 << 12
_TIMESTAMP: Final = 1 << 6
_PERSISTENT: Final = b"\x02"
_FIELDS_MAX: Final = 4096


class _Fields(dict[bytes, bytes]):
    """Name of a header → what its field in the table begins with: the name, and that a long string follows."""

    def __missing__(self, name: bytes) -> bytes:
        field = b"%c%bS" % (len(name), name)
        if len(self) < _FIELDS_MAX:
            self[name] = field
        return field


_FIELDS: Final = _Fields()


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """The frame that acknowledges a delivery; with `multiple` all before it too."""
    return _TAGGED.pack(METHOD, channel, 13, ACK, tag, multiple, 0xCE)


def nack(channel: int, tag: int) -> bytes:
    """The frame that puts a delivery back into its queue."""
    return _TAGGED.pack(METHOD, channel, 13, NACK, tag, 2, 0xCE)


def content_header(content_type: bytes, headers: Sequence[tuple[bytes, bytes]], size: int, timestamp: int) -> bytes:
    """The payload of the header frame of a persistent message with `size` bytes of body. ValueError: it cannot be written so."""
    fields = _FIELDS
    table: list[bytes] = []
    for name, value in headers:
        table += (fields[name], _LONG.pack(len(value)), value)
    written = b"".join(table)
    flags = _HEADERS | _DELIVERY_MODE | _TIMESTAMP
    typed = b""
    if content_type and len(content_type) < 256:
        flags |= _CONTENT_TYPE
        typed = b"%c%b" % (len(content_type), content_type)
    return b"".join(
        (_CONTENT.pack(60, 0, size, flags), typed, _LONG.pack(len(written)), written, _PERSISTENT, _TAG.pack(timestamp))
    )


class Publication:
    """What all messages that are published to one place on one AMQP channel begin with."""

    __slots__ = ("_begin", "_channel", "_payload_max")

    def __init__(self, channel: int, exchange: bytes, frame_max: int) -> None:
        self._channel = channel
        self._begin = _PUBLISH + b"%c%b" % (len(exchange), exchange)
        self._payload_max = frame_max - FRAME_OVERHEAD

    def frames(self, routing_key: bytes, header: bytes, body: bytes) -> bytes:
        """A mandatory message."""
        channel = self._channel
        method = b"%b%c%b%b" % (self._begin, len(routing_key), routing_key, _MANDATORY)
        start = (_FRAME.pack(METHOD, channel, len(method)), method, b"\xce", _FRAME.pack(HEADER, channel, len(header)), header)
        size = len(body)
        if 0 < size <= self._payload_max:
            return b"".join((*start, b"\xce", _FRAME.pack(BODY, channel, size), body, _END))
        parts = [*start, _END]
        for at in range(0, size, self._payload_max):
            part = body[at : at + self._payload_max]
            parts += (_FRAME.pack(BODY, channel, len(part)), part, _END)
        return b"".join(parts)


def delivery(payload: bytes) -> tuple[int, bool, bool]:
    """Of a method basic.deliver: its tag, whether it is said to come again, and whether it came by the default exchange."""
    at = 5 + payload[4]
    return _TAG.unpack_from(payload, at)[0], payload[at + 8] & 1 == 1, payload[at + 9] == 0


def confirmation(payload: bytes) -> tuple[int, bool]:
    """Of a method basic.ack or basic.nack: the tag, and whether it stands for all before it too."""
    return _TAG.unpack_from(payload, 4)[0], payload[12] & 1 == 1


def returned(payload: bytes) -> tuple[int, bytes]:
    """Of a method basic.return: its code and the routing key of the message."""
    code = int.from_bytes(payload[4:6])
    at = 7 + payload[6]  # behind the text
    at += 1 + payload[at]  # behind the exchange
    return code, payload[at + 1 : at + 1 + payload[at]]


class Properties(NamedTuple):
    """What the header of a message says, as far as it is of use here; headers whose value has no text form are left out."""

    content_type: bytes
    headers: list[tuple[bytes, bytes]]
    timestamp: int | None
    message_id: bytes


def properties(payload: bytes) -> Properties:
    """Of a header frame. ValueError where it is not what AMQP says."""
    try:
        return _properties(payload)
    except (IndexError, struct.error, KeyError, OverflowError) as error:
        raise ValueError(f"the header of a message cannot be read: {error!r}") from error


def _properties(payload: bytes) -> Properties:
    flags = int.from_bytes(payload[12:14])
    at = 14
    content_type = message_id = b""
    headers: list[tuple[bytes, bytes]] = []
    timestamp = None
    for bit in range(15, 5, -1):
        if not flags & 1 << bit:
            continue
        if bit == 13:
            (length,) = _LONG.unpack_from(payload, at)
            at += 4
            headers = _table(payload, at, at + length)
            at += length
        elif bit in {12, 11}:
            at += 1
        elif bit == 6:
            (timestamp,) = _TAG.unpack_from(payload, at)
            at += 8
        else:
            stop = at + 1 + payload[at]
            if bit == 15:
                content_type = payload[at + 1 : stop]
            elif bit == 7:
                message_id = payload[at + 1 : stop]
            at = stop
    return Properties(content_type, headers, timestamp, message_id)


def _table(payload: bytes, at: int, end: int) -> list[tuple[bytes, bytes]]:
    found = []
    while at < end:
        stop = at + 1 + payload[at]
        name = payload[at + 1 : stop]
        kind = payload[stop]
        at = stop + 1
        if kind == 0x53:  # S
            stop = at + 4 + _LONG.unpack_from(payload, at)[0]
            found.append((name, payload[at + 4 : stop]))
            at = stop
            continue
        number = _NUMBERS.get(kind)
        if number is not None:
            (value,) = number.unpack_from(payload, at)
            at += number.size
            found.append((name, _text(kind, value)))
        elif kind in b"AFx":
            at += 4 + _LONG.unpack_from(payload, at)[0]
        else:
            at += _SKIPPED[kind]
    return found


def _text(kind: int, value: float) -> bytes:
    if kind == 0x74:  # t
        return b"true" if value else b"false"
    if kind == 0x54:  # T
        try:
            return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z").encode()
        except (ValueError, OSError):
            pass
    return repr(value).encode()


# Types of fields, as RabbitMQ has them.
_NUMBERS: Final = {
    kind: struct.Struct(">" + code)
    for kind, code in zip(b"tbBsuIilLfdT", ("?", "b", "B", "h", "H", "i", "I", "q", "q", "f", "d", "Q"), strict=True)
}
_SKIPPED: Final = {0x44: 5, 0x56: 0}  # decimals; void
