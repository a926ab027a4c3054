"""The CloudEvent as the mesh carries it: its attributes, and the raw bytes of its data, which nobody alters.

CloudEvents 1.0.2, "Context Attributes". Version 0.3 is accepted too and never upgraded (Knative's channel data-plane
assertions CDP-02, CDP-03).
"""

import re
from typing import Final

from eventing.errors import Fault, InvalidEventError

__all__ = ["REQUIRED_ATTRIBUTES", "SPEC_VERSIONS", "Event", "attribute_faults", "check_attributes", "is_timestamp"]

REQUIRED_ATTRIBUTES: Final = ("specversion", "id", "source", "type")
SPEC_VERSIONS: Final = frozenset({"1.0", "0.3"})

# RFC 3986 characters of a URI reference; percent signs must start an escape. Non-ASCII is let through (an IRI): producers
# send it and refusing would lose events that every other implementation takes.
_URI_REFERENCE = re.compile(r"(?:[!#$&-;=?-Z\[\]_a-z~\u00a0-\U0010ffff]|%[0-9A-Fa-f]{2})+")
_RFC3339 = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_RFC3339_BYTES = re.compile(_RFC3339.pattern.encode())
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\s*;.*)?", re.DOTALL)
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]+")
# CloudEvents 1.0 §3.1.1 "String": no control characters, no lone surrogates, no noncharacters.
_FORBIDDEN_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Event:
    """One CloudEvent.

    `attributes` maps lower-case names to their canonical string values, `specversion` and `datacontenttype` included; an event
    that came in binary mode reads them from its head only when somebody asks. `data` are the raw bytes of the data, undecoded.
    `structured` are the bytes of the whole event as it came, where it came in structured mode: it leaves as it came. `headers`
    are lines of HTTP that travel with the event without being attributes (tracing, `Knative-*`), as they came. `wire` is the head
    that the HTTP binding made of all this; only the binding touches it. `raw_id` is the id as UTF-8. `receipt` is the number of
    the acceptance, given by the ingress (0: not accepted yet). `hops` counts the channels that it has been through before this
    one (docs/decisions/0005-loops.md).
    """

    __slots__ = ("_attributes", "data", "headers", "hops", "raw_id", "receipt", "structured", "wire")

    def __init__(
        self,
        attributes: dict[str, str],
        data: bytes = b"",
        structured: bytes | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        receipt: int = 0,
        hops: int = 0,
    ) -> None:
        self._attributes: dict[str, str] | None = attributes
        self.data = data
        self.structured = structured
        self.headers = headers
        self.receipt = receipt
        self.hops = hops
        self.raw_id = attributes.get("id", "").encode()
        self.wire: bytes | None = None

    @classmethod
    def of_head(cls, wire: bytes, data: bytes, raw_id: bytes, headers: tuple[tuple[bytes, bytes], ...], hops: int) -> "Event":
        """A binary-mode event known to be valid, whose head is plain: ASCII, nothing escaped, no name twice."""
        event = cls.__new__(cls)
        event._attributes = None  # noqa: SLF001 - its own class
        event.data = data
        event.structured = None
        event.headers = headers
        event.receipt = 0
        event.hops = hops
        event.raw_id = raw_id
        event.wire = wire
        return event

    @property
    def attributes(self) -> dict[str, str]:
        if self._attributes is None:
            self._attributes = _attributes_of_head(self.wire or b"")
        return self._attributes

    @property
    def id(self) -> str:
        return self.attributes["id"]

    @property
    def source(self) -> str:
        return self.attributes["source"]

    @property
    def type(self) -> str:
        return self.attributes["type"]

    def __repr__(self) -> str:
        known = " ".join(f"{name}={self.attributes.get(name)!r}" for name in ("type", "source", "id"))
        return f"<Event {known} data={len(self.data)} B>"


def _attributes_of_head(head: bytes) -> dict[str, str]:
    attributes = {}
    for line in head.decode("ascii").split("\r\n"):
        name, _, value = line.partition(": ")
        if name.startswith("ce-"):
            attributes[name[3:]] = value
        elif name == "content-type":
            attributes["datacontenttype"] = value
    return attributes


def check_attributes(attributes: dict[str, str]) -> None:
    """Return if the attributes are those of a valid event, else raise InvalidEventError that names every fault."""
    if _known_to_be_valid(attributes):
        return
    faults = attribute_faults(attributes)
    if faults:
        raise InvalidEventError(faults)
    for name in attributes:
        _known(_NAMES, name)
    _known(_SOURCES, attributes["source"])
    _known(_MEDIA_TYPES, attributes.get("datacontenttype", ""))


# Names, sources and media types repeat from event to event: those found valid are known by the whole of them. Bounded, since they
# come from outside.
_KNOWN_MAX: Final = 4096
_KNOWN_LENGTH: Final = 256
_NAMES: Final[set[str]] = set()
_SOURCES: Final[set[str]] = set()
_MEDIA_TYPES: Final[set[str]] = set()


def _known(values: set[str], value: str) -> None:
    if value and len(value) <= _KNOWN_LENGTH:
        if len(values) >= _KNOWN_MAX:
            values.clear()
        values.add(value)


def _known_to_be_valid(attributes: dict[str, str]) -> bool:
    """A glance that is enough for nearly every event; False says nothing."""
    get = attributes.get
    if get("specversion") not in SPEC_VERSIONS or get("source") not in _SOURCES or not get("id") or not get("type"):
        return False
    for name, value in attributes.items():
        if name not in _NAMES or not value.isascii() or not value.isprintable():
            return False
    time, media_type = get("time"), get("datacontenttype")
    if (time is not None and not _RFC3339.fullmatch(time)) or (media_type is not None and media_type not in _MEDIA_TYPES):
        return False
    return get("subject") != "" and "dataschema" not in attributes and "schemaurl" not in attributes


def is_timestamp(text: bytes) -> bool:
    """Whether it is an RFC 3339 timestamp."""
    return _RFC3339_BYTES.fullmatch(text) is not None


def attribute_faults(attributes: dict[str, str]) -> list[Fault]:
    """Everything that is wrong with the attributes, in the order of the specification."""
    faults: list[Fault] = []
    for name in REQUIRED_ATTRIBUTES:
        if name not in attributes:
            faults.append(Fault(name, "required attribute is missing"))
        elif attributes[name] == "":
            faults.append(Fault(name, "must not be empty"))
    version = attributes.get("specversion")
    if version and version not in SPEC_VERSIONS:
        faults.append(Fault("specversion", f"{version!r} is not supported; use 1.0 or 0.3"))
    for name in ("source", "dataschema", "schemaurl"):
        value = attributes.get(name)
        if value is not None and (value or name != "source") and not _URI_REFERENCE.fullmatch(value):
            faults.append(Fault(name, f"{value!r} is not a URI reference (RFC 3986)"))
    time = attributes.get("time")
    if time is not None and not _RFC3339.fullmatch(time):
        faults.append(Fault("time", f"{time!r} is not a timestamp (RFC 3339, as in 2026-01-31T12:00:00Z)"))
    if attributes.get("subject") == "":
        faults.append(Fault("subject", "must not be empty where it is given"))
    content_type = attributes.get("datacontenttype")
    if content_type is not None and not _MEDIA_TYPE.fullmatch(content_type):
        faults.append(Fault("datacontenttype", f"{content_type!r} is not a media type (RFC 2046)"))
    for name, value in attributes.items():
        if not _ATTRIBUTE_NAME.fullmatch(name):
            faults.append(Fault(name, "attribute names consist of lower-case letters and digits"))
        if _FORBIDDEN_CHARACTER.search(value):
            faults.append(Fault(name, "holds a control character or one that is not a character"))
    return faults
