"""The Kafka binding: a record to an Event and back (CloudEvents Kafka Protocol Binding 1.0.2).

Events are written in binary content mode: attributes as `ce_…` headers in UTF-8, `datacontenttype` as `content-type`, the data as
the record's value, `partitionkey` as its key too. Both content modes are read. Beside the event travel, as headers of their own,
what travels with it by HTTP (tracing, `knative-…`), how many channels it has been through, and the receipt of its acceptance.

A record that comes from elsewhere and is no event becomes one (`foreign_event`), as Knative's KafkaSource makes it.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

from eventing.bindings.http import HOPS_HEADER, KNOWN_LENGTH, KNOWN_MAX, HeaderName, structured_head
from eventing.bindings.json_format import STRUCTURED_MEDIA_TYPE, decode_structured
from eventing.errors import Fault, InvalidEventError
from eventing.event import Event, check_attributes, is_timestamp

__all__ = ["FOREIGN_TYPE", "RECEIPT_HEADER", "Headers", "decode", "encode", "foreign_event"]

Headers = Sequence[tuple[str, bytes | None]]

RECEIPT_HEADER: Final = "eventing-receipt"
"""Text of the receipt with which the event was accepted."""
FOREIGN_TYPE: Final = "dev.knative.kafka.event"

_HOPS: Final = HOPS_HEADER.decode()
_PARTITION_KEY_LINE: Final = b"ce-partitionkey: "
_NAMES_MAX: Final = 4096  # distinct header names kept; they come from outside
_PLANS_MAX: Final = 1024
_LINES_MAX: Final = 1024
_ID, _SOURCE, _TYPE, _SPECVERSION, _TIME = (1 << place for place in range(5))  # the bits of eventing.bindings.http
_REQUIRED: Final = _ID | _SOURCE | _TYPE | _SPECVERSION
_HEAD: Final = b"%b%b" + HOPS_HEADER + b": %d\r\ncontent-length: %d\r\n\r\n"
# What a value may consist of if it is to stand in a header of HTTP as it is: printable ASCII without space, quote and percent.
_PLAIN: Final = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'"%')
_TOKEN: Final = re.compile(r"[A-Za-z0-9-]+")
_EXTENSION: Final = re.compile(r"[a-z0-9]+")
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9]")
_NO_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class _Sent(dict[bytes, str]):
    """Name of a line of an event's HTTP head → name of the record's header."""

    def __missing__(self, line: bytes) -> str:
        name = line.decode("ascii")
        name = f"ce_{name[3:]}" if name.startswith("ce-") else name
        if len(self) < _NAMES_MAX:
            self[line] = name
        return name


class _Received(dict[str, HeaderName]):
    """Name of a record's header → what it is called by HTTP, classified once."""

    def __missing__(self, name: str) -> HeaderName:
        if name.startswith("ce_"):
            line = f"ce-{name[3:]}"
        else:
            # What HTTP cannot carry stays behind; and with a dash it is no attribute here.
            line = name.lower() if _TOKEN.fullmatch(name) and not name.startswith("ce-") else "-"
        header = HeaderName(line.encode("utf-8", "replace"))
        if len(self) < _NAMES_MAX and len(name) <= 64:
            self[name] = header
        return header


_SENT: Final = _Sent()
_RECEIVED: Final = _Received()


def encode(event: Event, receipt: bytes) -> tuple[bytes | None, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers of the record that stores the event; with `receipt` as the text of its receipt.

    A structured event is stored in binary mode, unless that would lose what says how its data is to be read: then as it came.
    """
    wire = event.wire
    key: bytes | None = None
    if wire is not None and event.structured is None and b"%" not in wire:
        # Nothing is escaped, so the lines of the head are the attributes' own bytes; the two that end it are the binding's.
        headers = []
        for line in wire[: wire.rindex(HOPS_HEADER)].split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            headers.append((_SENT[name], value))
        if _PARTITION_KEY_LINE in wire:
            key = event.attributes.get("partitionkey", "").encode() or None
        headers.append((RECEIPT_HEADER, receipt))
        if event.hops:
            headers.append((_HOPS, b"%d" % event.hops))
        return key, event.data, headers
    attributes = event.attributes
    key = attributes.get("partitionkey", "").encode() or None
    value = event.data
    if event.structured is not None and value and "datacontenttype" not in attributes:
        value = event.structured
        headers = [("content-type", STRUCTURED_MEDIA_TYPE + b"; charset=utf-8")]
    else:
        headers = [
            ("content-type" if name == "datacontenttype" else f"ce_{name}", text.encode()) for name, text in attributes.items()
        ]
    headers += [(name.decode("ascii"), text) for name, text in event.headers]
    headers.append((RECEIPT_HEADER, receipt))
    if event.hops:
        headers.append((_HOPS, b"%d" % event.hops))
    return key, value, headers


class _Plan:
    """How records with the same header names in the same order are read; one producer's are alike.

    `known` picks the values of which only those found valid are let through, and `lines` has the lines that they make: they
    repeat from record to record. `varied` picks the others, `varied_lines` is what they make, `left` what is left of that once
    all that may stand in a header is gone. Not `plain`: such records are read thoroughly.
    """

    __slots__ = (
        "hops", "judges", "known", "known_lines", "left", "lines", "origin", "plain", "raw_id", "time", "travelling", "varied",
        "varied_lines",
    )  # fmt: skip

    def __init__(self, names: tuple[str, ...]) -> None:
        known: list[int] = []
        varied: list[int] = []
        self.lines: dict[object, bytes] = {}
        self.judges: list[tuple[set[bytes], bool]] = []  # and whether it is the content type
        self.travelling: list[tuple[int, bytes]] = []
        self.raw_id = self.time = self.hops = self.origin = -1
        known_lines, varied_lines = b"", b""
        extensions = {"datacontenttype", "dataschema", "schemaurl"}
        seen = 0
        plain = True
        for position, key in enumerate(names):
            name = _RECEIVED[key]
            if name.bit:
                plain = plain and not seen & name.bit
                seen |= name.bit
                if name.known is not None:
                    known.append(position)
                    self.judges.append((name.known, name.attribute == "datacontenttype"))
                    known_lines += name.line + b"%b\r\n"
                    continue
                if name.bit == _ID:
                    self.raw_id = position
                elif name.bit == _TIME:
                    self.time = position
            elif name.attribute is not None:
                # Names that are given twice, are none, or have a rule for their value are for the thorough way.
                plain = plain and bool(_EXTENSION.fullmatch(name.attribute)) and name.attribute not in extensions
                extensions.add(name.attribute)
            elif name.travels:
                self.travelling.append((position, name.lower))
            else:
                if name.hops:
                    plain = plain and self.hops < 0
                    self.hops = position
                elif key == RECEIPT_HEADER:
                    self.origin = position
                continue
            varied.append(position)
            varied_lines += name.line + b"%b\r\n"
        self.plain = plain and seen & _REQUIRED == _REQUIRED and b"%" not in (known_lines + varied_lines).replace(b"%b\r\n", b"")
        self.left = b" \r\n" * len(varied)
        self.known_lines, self.varied_lines = known_lines, varied_lines
        if self.plain:  # two are required of both, so each gives a tuple
            self.known, self.varied = itemgetter(*known), itemgetter(*varied)

    def judged(self, values: tuple[bytes, ...]) -> bytes | None:
        """The lines of values that are all known to be valid; None where one is not."""
        for value, (judge, is_content_type) in zip(values, self.judges, strict=True):
            if value not in judge or not _stands_as_it_is(value, is_content_type):
                return None
        if len(self.lines) >= _LINES_MAX:
            self.lines.clear()
        lines = self.lines[values] = self.known_lines % values
        return lines


class _Plans(dict[tuple[str, ...], _Plan]):
    def __missing__(self, names: tuple[str, ...]) -> _Plan:
        plan = _Plan(names)
        if len(self) < _PLANS_MAX and len(names) <= 32 and sum(map(len, names)) <= 1024:
            self[names] = plan
        return plan


_PLANS: Final = _Plans()


def decode(value: bytes | None, headers: Headers) -> tuple[Event, bytes]:
    """The event of a record, validated, and the text of the receipt with which it was accepted (b"" where there is none).

    Raises InvalidEventError naming every fault: the record is no CloudEvent.

    As by HTTP nearly every event is plain, and its head is made of its values as they are (bindings.http.decode). Here they
    must be looked at for what would break out of the head, since no parser of HTTP has been over them.
    """
    event = None
    if headers:
        names, values = zip(*headers, strict=True)
        plan = _PLANS[names]
        if plan.plain:
            event = _decode_plainly(plan, values, value or b"")
    if event is None:
        return _decode_thoroughly(value or b"", headers)
    return event, values[plan.origin] or b"" if plan.origin >= 0 else b""


def _decode_plainly(plan: _Plan, values: tuple[bytes, ...], data: bytes) -> Event | None:
    """None: a value is missing, empty, invalid, not known to be valid, or would have to be encoded."""
    known = plan.known(values)
    lines = plan.lines.get(known) or plan.judged(known)
    varied = plan.varied(values)
    if lines is None or b"" in varied or None in varied:
        return None
    head = plan.varied_lines % varied
    if head.translate(None, _PLAIN) != plan.left or (plan.time >= 0 and not is_timestamp(values[plan.time])):
        return None
    hops = _hops(values[plan.hops]) if plan.hops >= 0 else 0
    travelling: tuple[tuple[bytes, bytes], ...] = ()
    if plan.travelling:
        travelling = tuple([(name, values[position]) for position, name in plan.travelling])
    return Event.of_head(_HEAD % (lines, head, hops + 1, len(data)), data, values[plan.raw_id], travelling, hops)


def _decode_thoroughly(data: bytes, headers: Headers) -> tuple[Event, bytes]:
    attributes: dict[str, str] = {}
    travelling: list[tuple[bytes, bytes]] = []
    faults: list[Fault] = []
    hops = 0
    origin = b""
    structured = False
    for key, text in headers:
        name = _RECEIVED[key]
        attribute = name.attribute
        if attribute is not None:
            shown = "content-type" if attribute == "datacontenttype" else key
            if text is None or (not text and attribute == "datacontenttype"):
                continue
            if key == "ce_datacontenttype":
                faults.append(Fault(key, "is the header content-type in binary mode"))
            elif attribute in attributes:
                faults.append(Fault(shown, "header is given twice"))
            else:
                try:
                    attributes[attribute] = text.decode()
                except UnicodeDecodeError:
                    faults.append(Fault(shown, "is not UTF-8"))
            structured = structured or (attribute == "datacontenttype" and text[:23].lower() == b"application/cloudevents")
        elif name.hops:
            hops = max(hops, _hops(text))
        elif name.travels and text and not text.translate(None, _PLAIN + b' "%'):
            travelling.append((name.lower, text))  # what HTTP cannot carry is not the event's and stays behind
        elif key == RECEIPT_HEADER:
            origin = text or b""
    if structured:
        media_type = attributes["datacontenttype"].partition(";")[0].strip().lower()
        if media_type.encode() != STRUCTURED_MEDIA_TYPE:
            raise InvalidEventError([Fault("content-type", f"event format {media_type!r} is not supported")])
        event = decode_structured(data)
        event.headers, event.hops = tuple(travelling), hops
        event.wire = structured_head(event)
        return event, origin
    if faults:
        raise InvalidEventError(faults)
    check_attributes(attributes)
    for key, text in headers:
        name = _RECEIVED[key]
        if name.known is None or not text or name.bit == _SPECVERSION or len(text) > KNOWN_LENGTH:
            continue
        if _stands_as_it_is(text, name.attribute == "datacontenttype"):  # the plain way of HTTP goes by it, too
            if len(name.known) >= KNOWN_MAX:
                name.known.clear()
            name.known.add(text)
    return Event(attributes, data, None, tuple(travelling), hops=hops), origin


def _stands_as_it_is(value: bytes, is_content_type: bool) -> bool:
    """Whether the value stands in a head of HTTP as it is: a content type is never encoded there."""
    if is_content_type:
        return not value.translate(None, _PLAIN + b' "') and value == value.strip()
    return not value.translate(None, _PLAIN)


def _hops(text: bytes | None) -> int:
    digits = (text or b"").strip()[:6]
    return int(digits) if digits.isdigit() else 0


def foreign_event(
    source: str, partition: int, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
) -> Event:
    """The event that stands for a record which is none: what Knative's KafkaSource makes of it, data untouched.

    The id names the record, so that one that comes again is known for the same."""
    attributes = {
        "specversion": "1.0",
        "id": f"partition:{partition}/offset:{offset}",
        "source": source,
        "type": FOREIGN_TYPE,
        "subject": f"partition:{partition}#{offset}",
    }
    if timestamp_ms >= 0:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
        attributes["time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if key:
        attributes["key"] = attributes["partitionkey"] = _readable(key)
    for name, text in _readable_headers(headers):
        # One of CloudEvents' own media types would make subscribers look for the event in the data, where none is.
        if name == "content-type" and not text.strip().lower().startswith("application/cloudevents"):
            attributes["datacontenttype"] = text
        elif simple := _NOT_A_NAME.sub("", name.lower()):
            attributes.setdefault(f"kafkaheader{simple}", text)
    data = value or b""
    try:
        check_attributes(attributes)
    except InvalidEventError:
        # Only the content type can be wrong, and it says what cannot be said to a subscriber.
        attributes.pop("datacontenttype", None)
    return Event(attributes, data)


def _readable(value: bytes) -> str:
    """The text that the bytes are, or their base64."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
    return text if not _NO_CHARACTER.search(text) else base64.b64encode(value).decode()


def _readable_headers(headers: Headers) -> Iterable[tuple[str, str]]:
    return ((name, _readable(value)) for name, value in headers if value)
