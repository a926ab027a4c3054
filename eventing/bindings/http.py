"""The HTTP binding: an HTTP message to Events and back (CloudEvents HTTP Protocol Binding 1.0.2).

Header names are classified once, through a bounded table that the parsers of `eventing.wire` share: what an attribute is
called, and the bytes with which its line starts. The head of an event is built once, when the event is decoded, from the
bytes as they came.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from eventing.bindings.json_format import (
    BATCH_MEDIA_TYPE,
    STRUCTURED_MEDIA_TYPE,
    decode_batch,
    decode_structured,
    encode_structured,
)
from eventing.errors import Fault, InvalidEventError
from eventing.event import SPEC_VERSIONS, Event, check_attributes, is_timestamp

__all__ = [
    "HOPS_HEADER",
    "LOOP",
    "REASON_HEADER",
    "HeaderName",
    "HeaderNames",
    "Headers",
    "UnsupportedFormatError",
    "announces_event",
    "binary_head",
    "decode",
    "decode_reply",
    "event_head",
    "in_format",
    "payload",
    "structured_head",
    "take_along",
    "with_attributes",
]

Headers = Sequence[tuple["HeaderName", bytes]]

NAMES_MAX: Final = 4096  # distinct spellings kept; names come from outside, so the table must not grow with them
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]+")
_CHARSET = re.compile(rb"charset=\"?([^\s;\"]+)", re.IGNORECASE)
# What a hop passes on besides the event itself: Knative's dispatcher, reference "Headers"; and W3C trace context.
_TRAVELLING = frozenset({"traceparent", "tracestate", "x-request-id"})
_TRAVELLING_PREFIXES = ("knative-", "x-b3-")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "expect", "connection"})
_ASKED_FOR = frozenset({"authorization", "retry-after", "content-encoding", "eventing-reason", "location"})
# How many channels an event has been through, this one included (docs/decisions/0005-loops.md). Knative's dispatchers hand it on.
HOPS_HEADER: Final = b"knative-eventing-hops"
# Why an event was refused, in an answer to it: the one reason that a delivery tells apart.
REASON_HEADER: Final = b"eventing-reason"
LOOP: Final = b"Loop"
_END: Final = HOPS_HEADER + b": %d\r\ncontent-length: %d\r\n\r\n"
# The attributes whose values the plain way of `decode` can judge at a glance, and the values that it has found valid: sources and
# content types repeat. Bounded, since values come from outside.
_ID, _SOURCE, _TYPE, _SPECVERSION, _TIME, _SUBJECT, _CONTENT_TYPE = (1 << place for place in range(7))
_REQUIRED: Final = _ID | _SOURCE | _TYPE | _SPECVERSION
KNOWN_MAX: Final = 4096
KNOWN_LENGTH: Final = 256
_PLAIN: Final[dict[str, tuple[int, set[bytes] | None]]] = {
    "ce-id": (_ID, None),
    "ce-source": (_SOURCE, set()),
    "ce-type": (_TYPE, None),
    "ce-specversion": (_SPECVERSION, {version.encode() for version in SPEC_VERSIONS}),
    "ce-time": (_TIME, None),
    "ce-subject": (_SUBJECT, None),
    "content-type": (_CONTENT_TYPE, set()),
}
# HTTP binding §3.1.3.2: printable ASCII except space, double quote and percent is sent as it is.
_ENCODED = re.compile(rb"[^\x21\x23\x24\x26-\x7e]")


class UnsupportedFormatError(InvalidEventError):
    """The message announces an event format or a content coding that is not read here (415)."""


class HeaderName:
    """A header name, classified once.

    `attribute` is set for `ce-…` and for the content type. `bit` marks an attribute that the plain way of `decode` knows; `known`
    holds values of it that were found valid. `travels` is what goes along with the event. `kept` is False for what neither the
    binding nor an application asks for, so that the parser drops it at once; `framing` is True for the few that the server itself
    must look at.
    """

    __slots__ = ("attribute", "bit", "framing", "hops", "kept", "known", "line", "lower", "travels")

    def __init__(self, name: bytes) -> None:
        self.lower = name.lower()
        self.line = self.lower + b": "
        text = self.lower.decode("ascii", "replace")
        self.attribute = text[3:] if text.startswith("ce-") else "datacontenttype" if text == "content-type" else None
        self.bit, self.known = _PLAIN.get(text, (0, None))
        self.hops = self.lower == HOPS_HEADER
        self.travels = not self.hops and (text in _TRAVELLING or text.startswith(_TRAVELLING_PREFIXES))
        self.framing = text in _FRAMING
        self.kept = self.attribute is not None or self.travels or self.hops or text in _ASKED_FOR

    def __repr__(self) -> str:
        return f"HeaderName({self.lower!r})"


class HeaderNames(dict[bytes, HeaderName]):
    """The bounded table: spelling as sent → HeaderName. A lookup of a known spelling costs one dict access."""

    def __missing__(self, name: bytes) -> HeaderName:
        header = HeaderName(name)
        if len(self) < NAMES_MAX and len(name) <= 64:
            self[name] = header
        return header


def decode(headers: Headers, body: bytes) -> list[Event]:
    """The events of one HTTP request, validated; one, unless the request is a batch.

    Raises InvalidEventError naming every fault, UnsupportedFormatError for an event format other than JSON.

    Nearly every event is plain: the well-known attributes, each once, nothing escaped. Its lines are joined as they came, its
    values are judged as bytes, and its attributes are not taken apart unless somebody asks. All else goes the thorough way.
    """
    lines: list[bytes] = []
    travelling: tuple[tuple[bytes, bytes], ...] = ()
    seen = hops = 0
    raw_id = b""
    for name, value in headers:
        bit = name.bit
        if bit:
            known = name.known
            if known is not None:
                if value not in known:
                    break
            elif not value or (bit == _TIME and not is_timestamp(value)):
                break
            elif bit == _ID:
                raw_id = value
            if seen & bit:
                break
            seen |= bit
            lines.append(name.line + value)
        elif name.travels:
            travelling += ((name.lower, value),)
            lines.append(name.line + value)
        elif name.attribute is not None:
            break
        elif name.hops:
            hops = max(hops, _hops(value))
        elif name.lower == b"content-encoding":
            break
    else:
        if seen & _REQUIRED == _REQUIRED:
            lines.append(_END % (hops + 1, len(body)))
            wire = b"\r\n".join(lines)
            if _plain(wire):
                return [Event.of_head(wire, body, raw_id, travelling, hops)]
    return _decode_thoroughly(headers, body)


def _plain(wire: bytes) -> bool:
    """Whether no value is escaped, quoted, not ASCII, or followed by white space, which the parser leaves there and which is not
    part of it (RFC 9110 §5.5)."""
    return wire.isascii() and not (b"%" in wire or b'"' in wire or b"\t" in wire or b" \r\n" in wire)


def _decode_thoroughly(headers: Headers, body: bytes) -> list[Event]:
    content_types = []
    for name, value in headers:
        if name.bit == _CONTENT_TYPE:
            content_types.append(value)
        elif name.lower == b"content-encoding" and value.strip(b" \t").lower() not in {b"", b"identity"}:
            # The header would not reach the subscriber and the data would be something else without it.
            raise UnsupportedFormatError([Fault("content-encoding", "data is taken as it is: send it uncompressed")])
    for content_type in content_types:
        if content_type[:23].lower() == b"application/cloudevents":
            if len(content_types) > 1:
                raise InvalidEventError([Fault("content-type", "header is given twice")])
            return _decode_formatted(headers, content_type, body)
    attributes = _read_attributes(headers)
    try:
        check_attributes(attributes)
    except InvalidEventError as error:
        raise InvalidEventError([Fault(_header_of(fault.field), fault.message) for fault in error.faults]) from None
    travelling, hops = _beside(headers)
    event = Event(attributes, body, None, travelling, hops=hops)
    lines = [name.line + value for name, value in headers if (name.attribute is not None and value) or name.travels]
    lines.append(_END % (hops + 1, len(body)))
    wire = b"\r\n".join(lines)
    if not _plain(wire):
        return [event]  # its head is encoded anew, by the book
    event.wire = wire
    for name, value in headers:
        if name.known is not None and name.bit != _SPECVERSION and len(value) <= KNOWN_LENGTH:
            if len(name.known) >= KNOWN_MAX:
                name.known.clear()
            name.known.add(value)
    return [event]


def _beside(headers: Headers) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
    """What goes along with the event, and how many channels it has been through."""
    travelling = tuple((name.lower, value.strip(b" \t")) for name, value in headers if name.travels)
    return travelling, max((_hops(value) for name, value in headers if name.hops), default=0)


def _hops(value: bytes) -> int:
    text = value.strip()[:6]
    return int(text) if text.isdigit() else 0


def _read_attributes(headers: Headers) -> dict[str, str]:
    """The attributes, decoded; a name that is given twice, or is none, is a fault."""
    attributes: dict[str, str] = {}
    faults: list[Fault] = []
    for name, padded in headers:
        attribute, value = name.attribute, padded.strip(b" \t")
        if attribute is None or (name.bit == _CONTENT_TYPE and not value):
            continue
        if name.lower == b"ce-datacontenttype":
            faults.append(Fault("ce-datacontenttype", "is sent as Content-Type in binary mode"))
            continue
        if not _ATTRIBUTE_NAME.fullmatch(attribute):
            faults.append(Fault(f"ce-{attribute}", "attribute names consist of lower-case letters and digits"))
            continue
        if attribute in attributes:
            faults.append(Fault(_header_of(attribute), "header is given twice"))
            continue
        attributes[attribute] = _attribute_value(attribute, value)
    if faults:
        raise InvalidEventError(faults)
    return attributes


def announces_event(headers: Headers) -> bool:
    """Whether the head of a response says that an event follows."""
    return any(
        name.bit == _SPECVERSION or (name.lower == b"content-type" and value[:28].lower().startswith(STRUCTURED_MEDIA_TYPE))
        for name, value in headers
    )


def decode_reply(headers: Headers, body: bytes) -> Event | None:
    """The event in a response, or None where the response holds none (Knative: a body that is no event is discarded)."""
    if not announces_event(headers):
        return None
    events = decode(headers, body)
    return events[0] if len(events) == 1 else None


def _header_of(attribute: str) -> str:
    return "content-type" if attribute == "datacontenttype" else f"ce-{attribute}"


def _decode_formatted(headers: Headers, content_type: bytes, body: bytes) -> list[Event]:
    media_type, parameters = content_type, b""
    if media_type != STRUCTURED_MEDIA_TYPE:
        media_type, _, parameters = content_type.partition(b";")
        media_type = media_type.strip().lower()
    charset = _CHARSET.search(parameters) if parameters else None
    if charset and charset[1].lower() not in {b"utf-8", b"utf8", b"us-ascii"}:
        raise UnsupportedFormatError([Fault("content-type", "JSON events are UTF-8; other charsets are not supported")])
    if media_type == STRUCTURED_MEDIA_TYPE:
        events = [decode_structured(body)]
    elif media_type == BATCH_MEDIA_TYPE:
        events = decode_batch(body)
    else:
        shown = media_type.decode("ascii", "replace")
        raise UnsupportedFormatError(
            [Fault("content-type", f"event format {shown!r} is not supported; use application/cloudevents+json")]
        )
    travelling, hops = _beside(headers)
    for event in events:
        event.headers = travelling
        event.hops = hops
        event.wire = structured_head(event)
    return events


def _attribute_value(attribute: str, value: bytes) -> str:
    """HTTP binding §3.1.3.2: strip double quotes, then decode percent escapes, both only where there are any."""
    try:
        if value.isascii() and b"%" not in value and not value.startswith(b'"'):
            return value.decode("ascii")
        if len(value) >= 2 and value.startswith(b'"') and value.endswith(b'"') and attribute != "datacontenttype":
            value = re.sub(rb"\\(.)", rb"\1", value[1:-1])
        if attribute == "datacontenttype":
            return value.decode()
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InvalidEventError([Fault(f"ce-{attribute}", "is not UTF-8")]) from error


def _encode_value(value: str) -> bytes:
    return _ENCODED.sub(lambda match: b"%%%02X" % match[0][0], value.encode())


def event_head(event: Event) -> bytes:
    """The lines of the event's head and the blank line that ends them: from the cache, else built and cached.

    Content mode as received. A structured event keeps its bytes; a binary one its attributes as `ce-` lines.
    """
    if event.wire is None:
        event.wire = structured_head(event) if event.structured is not None else binary_head(event)
    return event.wire


def binary_head(event: Event) -> bytes:
    """The head of the event in binary mode, whatever mode it came in."""
    lines: list[bytes] = []
    for name, value in event.attributes.items():
        if name == "datacontenttype":
            lines += (b"content-type: ", _clean(value.encode()), b"\r\n")
        else:
            lines += (b"ce-", name.encode(), b": ", _encode_value(value), b"\r\n")
    lines += _travelling_lines(event)
    lines.append(_END % (event.hops + 1, len(event.data)))
    return b"".join(lines)


def structured_head(event: Event) -> bytes:
    """The head of an event whose payload is `event.structured`."""
    length = len(event.structured or b"")
    lines = [b"content-type: application/cloudevents+json; charset=utf-8\r\n", *_travelling_lines(event)]
    lines.append(_END % (event.hops + 1, length))
    return b"".join(lines)


def take_along(event: Event, hops: int, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Say how many channels the event has been through, and give it `headers` that are to travel with it."""
    event.hops = hops
    event.headers += headers
    if event.wire is not None:  # what else it says stays; the two lines that end it are the binding's own
        kept = event.wire[: event.wire.rindex(HOPS_HEADER)]
        added = b"".join([name + b": " + value + b"\r\n" for name, value in headers])
        event.wire = kept + added + _END % (hops + 1, len(payload(event)))


def _travelling_lines(event: Event) -> Iterable[bytes]:
    return (name + b": " + value + b"\r\n" for name, value in event.headers)


def _clean(value: bytes) -> bytes:
    return re.sub(rb"[\x00-\x1f\x7f]", b" ", value)


def payload(event: Event) -> bytes:
    """What follows `event_head` on the wire."""
    return event.data if event.structured is None else event.structured


def in_format(event: Event, format_: str) -> Event:
    """The event in the content mode that `delivery.format` asks for (`json` or `binary`); itself where it is so already."""
    if format_ == "json" and event.structured is None:
        return Event(
            event.attributes,
            event.data,
            structured=encode_structured(event),
            headers=event.headers,
            receipt=event.receipt,
            hops=event.hops,
        )
    if format_ == "binary" and event.structured is not None:
        return Event(event.attributes, event.data, headers=event.headers, receipt=event.receipt, hops=event.hops)
    return event


def with_attributes(event: Event, changes: Mapping[str, str | int | None]) -> Event:
    """A copy of the event with attributes set, or taken away (None), in the same content mode; its data is untouched.

    A number is a CloudEvents Integer: digits in binary mode, a number in JSON."""
    attributes = {name: value for name, value in event.attributes.items() if name not in changes}
    attributes |= {name: str(value) for name, value in changes.items() if value is not None}
    structured = None if event.structured is None else encode_structured(event, changes)
    return Event(attributes, event.data, structured, event.headers, event.receipt, event.hops)
