"""The AMQP 0-9-1 binding: a message to an Event and back (CloudEvents AMQP Protocol Binding 1.0.2).

Events are written as Knative's RabbitMQ components write them: attributes as headers under their own names, `datacontenttype` as
the property and the header `content-type`, the data as the body. Beside them travel the trace context, `knative-…`, how many
channels the event has been through, and the receipt of its acceptance. Both content modes are read, and headers with the prefix
of the AMQP binding (`cloudEvents:` or `cloudEvents_`) too; an attribute whose own name means something else is written with it.

What a message is made of apart from that is the same as in Kafka: this module is a table of names before eventing.bindings.kafka.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

from eventing.bindings.json_format import STRUCTURED_MEDIA_TYPE, encode_structured
from eventing.bindings.kafka import RECEIPT_HEADER
from eventing.bindings.kafka import decode as decode_record
from eventing.bindings.kafka import encode as encode_record
from eventing.errors import InvalidEventError
from eventing.event import Event, check_attributes

__all__ = ["FOREIGN_TYPE", "Headers", "decode", "encode", "foreign_event"]

Headers = Sequence[tuple[bytes, bytes]]

FOREIGN_TYPE: Final = "dev.knative.rabbitmq.event"

_CONTENT_TYPE: Final = b"content-type"
_PREFIX: Final = b"cloudEvents:"
_PREFIXES: Final = (_PREFIX, b"cloudEvents_")
_LONGEST_NAME: Final = 255  # a short string
_NAMES_MAX: Final = 4096  # distinct names kept; they come from outside
_SIMPLE: Final = re.compile(rb"[a-z0-9]+")
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9]")
_NO_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
# Names of headers that travel with an event and could be those of attributes.
_TRAVELLING: Final = frozenset({b"traceparent", b"tracestate"})
_SPECVERSIONS: Final = frozenset(prefix + b"specversion" for prefix in _PREFIXES)
_DROPPED: Final = "-"


class _Sent(dict[str, bytes]):
    """Name of a record's header → name of the message's."""

    def __missing__(self, name: str) -> bytes:
        sent = name.encode()
        if sent.startswith(b"ce_"):
            sent = sent[3:]
            if sent in _TRAVELLING:
                sent = _PREFIX + sent
        if len(self) < _NAMES_MAX:
            self[name] = sent
        return sent


class _Received(dict[bytes, str]):
    """Name of a message's header → name of the record's; `_DROPPED` for what is neither the event's nor travels with it."""

    def __missing__(self, name: bytes) -> str:
        attribute = name[len(_PREFIX) :] if name.startswith(_PREFIXES) else b""
        if attribute == b"datacontenttype":
            attribute, name = b"", _CONTENT_TYPE
        if attribute:
            received = f"ce_{attribute.decode('utf-8', 'replace')}"
        elif _SIMPLE.fullmatch(name) and name not in _TRAVELLING:
            received = f"ce_{name.decode()}"
        else:
            received = name.decode("utf-8", "replace").lower()
            if received.startswith("ce_"):
                received = _DROPPED
        if len(self) < _NAMES_MAX and len(name) <= 64:
            self[name] = received
        return received


_SENT: Final = _Sent()
_RECEIVED: Final = _Received()


def encode(event: Event, receipt: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Content type (b"" where the event has none), headers and body of the message that stores the event; with `receipt` as the
    text of its receipt.

    A structured event is stored in binary mode, unless that would lose what says how its data is to be read: then as it came."""
    _, body, headers = encode_record(event, receipt)
    sent = _SENT
    content_type = b""
    message = []
    for name, value in headers:
        if name == "content-type":
            content_type = value
        message.append((sent[name], value))
    if max(map(len, map(itemgetter(0), message))) > _LONGEST_NAME:
        return _in_structured_mode(event, message)
    return content_type, message, body


def _in_structured_mode(event: Event, message: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """The name of an attribute is longer than that of a header can be: the event is stored as JSON."""
    content_type = STRUCTURED_MEDIA_TYPE + b"; charset=utf-8"
    kept = [(name, value) for name, value in message if _travels(name) and name != _CONTENT_TYPE]
    return content_type, [(_CONTENT_TYPE, content_type), *kept], event.structured or encode_structured(event)


def _travels(name: bytes) -> bool:
    """Whether it is no attribute's name."""
    return b"-" in name or name in _TRAVELLING


def decode(content_type: bytes, headers: Headers, body: bytes) -> tuple[Event, bytes]:
    """The event of a message, validated, and the text of the receipt with which it was accepted (b"" where there is none).

    `content_type` is the property, which stands in where the header of that name is missing. Raises InvalidEventError naming
    every fault: the message is no CloudEvent."""
    received = _RECEIVED
    record: list[tuple[str, bytes | None]] = []
    typed = prefixed = False
    for name, value in headers:
        known = received[name]
        if known == "content-type":
            if typed:
                continue
            typed = True
        elif name in _SPECVERSIONS:
            prefixed = True
        record.append((known, value))
    if prefixed:
        # Then headers without the prefix are an application's own.
        record = [(received[name], value) for name, value in headers if name.startswith(_PREFIXES) or _travels(name)]
        typed = "content-type" in dict(record)
    if not typed and content_type:
        record.append(("content-type", content_type))
    return decode_record(body, record)


def foreign_event(
    source: str, content_type: bytes, headers: Headers, body: bytes, *, message_id: str = "", timestamp: int | None = None
) -> Event:
    """The event that stands for a message which is none; its data is untouched.

    Its id is that of the message, else is made of what it says, so that one that comes again is known for the same."""
    id_ = _printable(message_id) if message_id else ""
    if not id_:
        digest = hashlib.sha256(body)
        for name, value in headers:
            digest.update(b"%d:%b=%d:%b" % (len(name), name, len(value), value))
        id_ = digest.hexdigest()
    attributes = {"specversion": "1.0", "id": id_, "source": source, "type": FOREIGN_TYPE}
    if timestamp is not None:
        try:
            moment = datetime.fromtimestamp(timestamp, UTC)
        except (ValueError, OverflowError, OSError):
            pass  # some clients write milliseconds, or worse
        else:
            attributes["time"] = moment.isoformat().replace("+00:00", "Z")
    for name, value in [(_CONTENT_TYPE, content_type), *headers]:
        if not value or name == RECEIPT_HEADER.encode():
            continue
        # One of CloudEvents' own media types would make subscribers look for the event in the data, where none is.
        if name == _CONTENT_TYPE and not value.strip().lower().startswith(b"application/cloudevents"):
            attributes.setdefault("datacontenttype", _readable(value))
        elif simple := _NOT_A_NAME.sub("", name.decode("utf-8", "replace").lower()):
            attributes.setdefault(f"rabbitmqheader{simple}", _readable(value))
    try:
        check_attributes(attributes)
    except InvalidEventError:
        # Only the content type can be wrong, and it says what cannot be said to a subscriber.
        attributes.pop("datacontenttype", None)
    return Event(attributes, body)


def _printable(text: str) -> str:
    return "" if _NO_CHARACTER.search(text) else text


def _readable(value: bytes) -> str:
    """The text that the bytes are, or their base64."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
    return _printable(text) or base64.b64encode(value).decode()
