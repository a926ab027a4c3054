"""The frames written and read by hand against those of pamqp, which another has written."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.header import ContentHeader

from eventing_rabbitmq import frames

names = st.text("abcXYZ019", min_size=1, max_size=20).map(str.encode)
texts = st.text(max_size=30)
# What a foreign client may write into a table.
values = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(1 << 62), 1 << 62),
    st.floats(allow_nan=False, width=32),
    st.none(),
    st.integers(0, 2_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.lists(texts, max_size=2),
    st.dictionaries(st.text("abc", min_size=1), texts, max_size=2),
    st.binary(max_size=10).map(bytearray),
)


def unmarshalled(data: bytes) -> list[Any]:
    found = []
    while data:
        size, _, method = frame.unmarshal(data)
        found.append(method)
        data = data[size:]
    return found


@given(st.lists(st.tuples(names, st.binary(max_size=300)), max_size=6), st.binary(max_size=200), st.integers(0, 1 << 40))
def test_a_message_is_what_pamqp_reads(headers: list[tuple[bytes, bytes]], body: bytes, number: int) -> None:
    header = frames.content_header(b"text/plain", headers, len(body), 1_700_000_000)
    publication = frames.Publication(7, b"exchange", 64 + frames.FRAME_OVERHEAD)
    publish, content, *bodies = unmarshalled(publication.frames(b"%d" % number, header, body))
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("exchange", str(number), True)
    assert (content.body_size, content.properties.content_type, content.properties.delivery_mode) == (len(body), "text/plain", 2)
    assert content.properties.timestamp == datetime.fromtimestamp(1_700_000_000, UTC)
    assert b"".join(part.value for part in bodies) == body
    read = frames.properties(header)
    assert read == frames.Properties(b"text/plain", headers, 1_700_000_000, b"")


@given(st.dictionaries(st.text("abcdefg", min_size=1, max_size=9), values, max_size=6), st.none() | texts.filter(bool))
def test_what_another_client_writes_is_read(headers: dict[str, Any], message_id: str | None) -> None:
    written = commands.Basic.Properties(
        content_type="a/b", content_encoding="gzip", headers=headers, delivery_mode=1, priority=3, correlation_id="c",
        reply_to="r", expiration="1", message_id=message_id, timestamp=datetime(2026, 1, 1, tzinfo=UTC), app_id="app",
    )  # fmt: skip
    read = frames.properties(ContentHeader(0, 5, written).marshal())
    assert (read.content_type, read.message_id) == (b"a/b", (message_id or "").encode())
    assert read.timestamp == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    found = dict(read.headers)
    for name, value in headers.items():
        if isinstance(value, bool):
            assert found[name.encode()] == (b"true" if value else b"false")
        elif isinstance(value, str):
            assert found[name.encode()] == value.encode()
        elif isinstance(value, int | float):
            assert type(value)(found[name.encode()]) == value
        elif isinstance(value, datetime):
            assert found[name.encode()] == value.isoformat().replace("+00:00", "Z").encode()
        else:
            assert name.encode() not in found


@given(st.binary(max_size=60))
def test_what_is_no_header_is_refused_and_nothing_else_happens(garbage: bytes) -> None:
    with suppress(ValueError):
        frames.properties(b"\0\x3c\0\0" + bytes(8) + garbage)


@pytest.mark.parametrize("multiple", [True, False])
def test_acknowledgements_are_what_pamqp_reads_and_writes(multiple: bool) -> None:
    (ack,) = unmarshalled(frames.ack(3, 1 << 40, multiple=multiple))
    assert isinstance(ack, commands.Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (1 << 40, multiple)
    (nack,) = unmarshalled(frames.nack(3, 5))
    assert isinstance(nack, commands.Basic.Nack)
    assert (nack.delivery_tag, nack.multiple, nack.requeue) == (5, False, True)
    for method in (commands.Basic.Ack(9, multiple), commands.Basic.Nack(9, multiple, True)):
        assert frames.confirmation(frame.marshal(method, 1)[7:-1]) == (9, multiple)


@given(st.text(max_size=20), st.integers(1, 1 << 60), st.booleans(), st.text("abc.", max_size=20))
def test_deliveries_and_returns_are_read(tag: str, number: int, again: bool, exchange: str) -> None:
    deliver = commands.Basic.Deliver(tag, number, again, exchange, "key")
    assert frames.delivery(frame.marshal(deliver, 1)[7:-1]) == (number, again, not exchange)
    returned = commands.Basic.Return(312, "NO_ROUTE", exchange, "17")
    assert frames.returned(frame.marshal(returned, 1)[7:-1]) == (312, b"17")
