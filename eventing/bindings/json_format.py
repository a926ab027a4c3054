"""The JSON event format: structured and batched events (CloudEvents JSON Event Format 1.0.2; 0.3 where it differs).

The data member is never decoded further than its own rules ask: JSON data keeps its bytes.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import msgspec

from eventing.errors import Fault, InvalidEventError
from eventing.event import Event, check_attributes

__all__ = ["BATCH_MEDIA_TYPE", "STRUCTURED_MEDIA_TYPE", "decode_batch", "decode_structured", "encode_structured"]

STRUCTURED_MEDIA_TYPE: Final = b"application/cloudevents+json"
BATCH_MEDIA_TYPE: Final = b"application/cloudevents-batch+json"

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_SCALAR = msgspec.json.Decoder(str | bool | int | None)
_STRING = msgspec.json.Decoder(str)
_DATA_MEMBERS: Final = frozenset({"data", "data_base64"})


def decode_batch(body: bytes) -> list[Event]:
    """The events of a batch, in order; faults name the position in the batch. An empty batch is valid and holds none."""
    try:
        members = _ARRAY.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidEventError([Fault("", f"the batch is not a JSON array of events: {error}")]) from error
    events: list[Event] = []
    faults: list[Fault] = []
    for position, member in enumerate(members):
        try:
            events.append(decode_structured(bytes(member)))
        except InvalidEventError as error:
            faults += [Fault(f"[{position}].{fault.field}".rstrip("."), fault.message) for fault in error.faults]
    if faults:
        raise InvalidEventError(faults)
    return events


def decode_structured(body: bytes) -> Event:
    """The event of a structured-mode body, validated. Raises InvalidEventError naming every fault."""
    try:
        if not body.isascii():
            body.decode()  # RFC 8259 §8.1; what keeps its bytes is not looked at otherwise
        members = _OBJECT.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidEventError([Fault("", f"the body is not a JSON object: {error}")]) from error
    attributes: dict[str, str] = {}
    faults: list[Fault] = []
    for name, raw in members.items():
        if name in _DATA_MEMBERS:
            continue
        try:
            value = _SCALAR.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            faults.append(Fault(name, f"attributes are strings, integers or booleans: {error}"))
            continue
        if value is None:
            continue  # JSON format §2.2: null is the same as absent
        attributes[name] = value if isinstance(value, str) else _canonical(value)
    if faults:
        raise InvalidEventError(faults)
    check_attributes(attributes)
    return Event(attributes, _data(attributes, members), structured=body)


def _canonical(value: int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _data(attributes: dict[str, str], members: dict[str, msgspec.Raw]) -> bytes:
    encoded = members.get("data_base64")
    raw = members.get("data")
    if encoded is not None and raw is not None:
        raise InvalidEventError([Fault("data", "data and data_base64 must not both be given")])
    if encoded is not None:
        return _base64("data_base64", encoded)
    if raw is None or bytes(raw) == b"null":
        return b""
    if attributes.get("datacontentencoding", "").lower() == "base64" and attributes["specversion"] == "0.3":
        del attributes["datacontentencoding"]  # it describes this JSON, not the data (0.3, §3.1.1)
        return _base64("data", raw)
    data = bytes(raw)
    if data.startswith(b'"') and not _is_json(attributes.get("datacontenttype")):
        return _STRING.decode(raw).encode()
    return data


def _base64(field: str, raw: msgspec.Raw) -> bytes:
    try:
        return base64.b64decode(_STRING.decode(raw), validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise InvalidEventError([Fault(field, f"is not base64 text: {error}")]) from error


def _is_json(media_type: str | None) -> bool:
    """JSON format §3.1: absent means JSON; otherwise the subtype is json or ends in +json."""
    if media_type is None:
        return True
    subtype = media_type.partition(";")[0].strip().lower().partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def encode_structured(event: Event, changes: Mapping[str, str | int | None] | None = None) -> bytes:
    """The event as a structured-mode body, with attributes set or taken away (None). JSON data keeps its bytes; other text
    travels as a string, the rest as base64. What came in structured mode keeps the bytes of each of its members."""
    if event.structured is not None:
        return msgspec.json.encode(_changed(_OBJECT.decode(event.structured), changes))
    members = _changed(event.attributes, changes)
    data = event.data
    if data:
        # `"data": null` would be read as no data at all.
        if _is_json(event.attributes.get("datacontenttype")) and _valid_json(data) and data.strip() != b"null":
            members["data"] = msgspec.Raw(data)
        elif event.attributes.get("datacontenttype", "").startswith("text/") and _is_text(data):
            members["data"] = data.decode()
        elif event.attributes["specversion"] == "0.3":
            members |= {"datacontentencoding": "base64", "data": base64.b64encode(data).decode()}
        else:
            members["data_base64"] = base64.b64encode(data).decode()
    return msgspec.json.encode(members)


def _changed(members: Mapping[str, object], changes: Mapping[str, str | int | None] | None) -> dict[str, object]:
    if not changes:
        return dict(members)
    kept = {name: value for name, value in members.items() if name not in changes}
    return kept | {name: value for name, value in changes.items() if value is not None}


def _valid_json(data: bytes) -> bool:
    if not _is_text(data):
        return False
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
