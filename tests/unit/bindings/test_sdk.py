"""CloudEvents' own Python SDK and the mesh understand each other, in both directions and both modes."""

from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v03.event import CloudEvent as CloudEventV03
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given

from eventing.bindings.http import decode, event_head, in_format, payload
from eventing.event import Event
from tests.unit.bindings.messages import events, parsed

ATTRIBUTES = {
    "id": "a b%20",
    "source": "/shop",
    "type": "com.example.order",
    "subject": 'Größe "XL" €',
    "time": "2026-01-31T12:00:00Z",
    "datacontenttype": "application/json",
    "partitionkey": "42",
}


def head_of(message: HTTPMessage) -> str:
    return "".join(f"{name}: {value}\n" for name, value in message.headers.items())


def message_of(event: Event) -> HTTPMessage:
    """The message as the SDK gets it from a web framework: header values as Latin-1 text."""
    lines = event_head(event).decode("latin-1").split("\r\n")
    return HTTPMessage(dict(line.split(": ", 1) for line in lines if line), payload(event))


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
@pytest.mark.parametrize("data", [{"n": 1}, {"text": "€"}, None])
@pytest.mark.parametrize(("kind", "version"), [(CloudEvent, "1.0"), (CloudEventV03, "0.3")])
def test_from_the_sdk(write: Any, data: Any, kind: Any, version: str) -> None:
    from datetime import UTC, datetime

    sent = kind(ATTRIBUTES | {"specversion": version, "time": datetime(2026, 1, 31, 12, tzinfo=UTC)}, data)
    message = write(sent)
    (event,) = decode(*parsed(head_of(message), message.body))
    assert event.attributes == ATTRIBUTES | {"specversion": version}
    again = from_http_event(message_of(event))
    assert again.get_attributes() == sent.get_attributes()
    assert again.get_data() == data or (data is None and not again.get_data())


@pytest.mark.parametrize("data", [b"\x00\xff", "text ü", {"a": [1, None]}])
def test_through_both_formats_to_the_sdk(data: Any) -> None:
    names = {"bytes": "application/octet-stream", "str": "text/plain", "dict": "application/json"}
    content_type = names[type(data).__name__]
    sent = CloudEvent({"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "datacontenttype": content_type}, data)
    for write in (to_binary_event, to_structured_event):
        message = write(sent)
        (event,) = decode(*parsed(head_of(message), message.body))
        for format_ in ("json", "binary"):
            assert from_http_event(message_of(in_format(event, format_))).get_data() == data


@given(events)
def test_whatever_the_mesh_sends_the_sdk_reads_alike(event: Event) -> None:
    attributes = {name: value for name, value in event.attributes.items() if name != "time"}
    plain = Event(attributes | {"datacontenttype": "application/octet-stream"}, event.data)
    read = from_http_event(message_of(plain))
    assert {
        name: value for name, value in read.get_attributes().items() if value is not None and name != "time"
    } == plain.attributes
    data = read.get_data() or b""
    assert (data.encode() if isinstance(data, str) else data) == event.data
