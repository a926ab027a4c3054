"""The CloudEvent as the mesh carries it: its attributes, and the raw bytes of its data, which nobody alters.

CloudEvents 1.0.2, "Context Attributes". Version 0.3 is accepted too and never upgraded (Knative's channel data-plane
assertions CDP-02, CDP-03).
"""

import re
from typing import Final

from eventing.errors import Fault, InvalidEventError

__all__ = ["REQUIRED_ATTRIBUTES", "Event", "attribute_faults", "check_attributes"]

REQUIRED_ATTRIBUTES: Final = ("specversion", "id", "source", "type")
SPEC_VERSIONS: Final = frozenset({"1.0", "0.3"})

# RFC 3986 characters of a URI reference; percent signs must start an escape. Non-ASCII is let through (an IRI): producers
# send it and refusing would lose events that every other implementation takes.
_URI_REFERENCE = re.compile(r"(?:[!#$&-;=?-Z\[\]_a-z~\u00a0-\U0010ffff]|%[0-9A-Fa-f]{2})+")
_RFC3339 = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\s*;.*)?", re.DOTALL)
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]+")
# CloudEvents 1.0 §3.1.1 "String": no control characters, no lone surrogates, no noncharacters.
_FORBIDDEN_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

_REMEMBERED_MAX: Final = 4096
_VALID_SOURCES: Final[set[str | None]] = set()
_VALID_MEDIA_TYPES: Final[set[str | None]] = {None}


class Event:
    """One CloudEvent.

    `attributes` maps lower-case names to their canonical string values, `specversion` and `datacontenttype` included.
    `data` are the raw bytes of the data, undecoded. `structured` are the bytes of the whole event as it came, where it came
    in structured mode: it leaves as it came. `headers` are lines of HTTP that travel with the event without being attributes
    (tracing, `Knative-*`), as they came. `wire` caches what the HTTP binding made of all this; only the binding touches it.
    `receipt` is the number of the acceptance, given by the ingress (0: not accepted yet).
    """

    __slots__ = ("attributes", "data", "headers", "receipt", "structured", "wire")

    def __init__(
        self,
        attributes: dict[str, str],
        data: bytes = b"",
        structured: bytes | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        receipt: int = 0,
    ) -> None:
        self.attributes = attributes
        self.data = data
        self.structured = structured
        self.headers = headers
        self.receipt = receipt
        self.wire: bytes | None = None

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


def check_attributes(attributes: dict[str, str], *, printable: bool = False) -> None:
    """Return if the attributes are those of a valid event, else raise InvalidEventError that names every fault.

    The common case, all well, costs a few lookups: sources and content types repeat, so those found valid are remembered.
    What is wrong is worked out only when something is. `printable` promises that no value holds a control character.
    """
    get = attributes.get
    if (
        get("specversion") in SPEC_VERSIONS
        and get("id")
        and get("type")
        and get("source") in _VALID_SOURCES
        and get("datacontenttype") in _VALID_MEDIA_TYPES
        and ("time" not in attributes or _RFC3339.fullmatch(attributes["time"]))
        and get("subject") != ""
        and "dataschema" not in attributes
        and (printable or "".join(attributes.values()).isprintable())
    ):
        return
    faults = attribute_faults(attributes)
    if faults:
        raise InvalidEventError(faults)
    _remember(_VALID_SOURCES, attributes["source"])
    _remember(_VALID_MEDIA_TYPES, attributes.get("datacontenttype"))


def _remember(valid: set[str | None], value: str | None) -> None:
    if len(valid) >= _REMEMBERED_MAX:
        valid.clear()
    valid.add(value)


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
