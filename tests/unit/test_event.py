"""What a valid event is, and that everything wrong with one is named."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.errors import InvalidEventError
from eventing.event import Event, attribute_faults, check_attributes, is_timestamp

VALID = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "com.example.order"}


def faulty(**changes: str | None) -> list[str]:
    """The names at fault once the attributes are changed; None takes one away."""
    attributes = {name: value for name, value in (VALID | changes).items() if value is not None}
    return [fault.field for fault in attribute_faults(attributes)]


def test_the_least_that_is_valid() -> None:
    check_attributes(dict(VALID))
    check_attributes(VALID | {"specversion": "0.3"})


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_required(name: str, value: str | None) -> None:
    assert faulty(**{name: value}) == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "1.1"),
        ("specversion", "0.2"),
        ("source", "a b"),
        ("source", "50%"),
        ("source", "<x>"),
        ("source", "a\\b"),
        ("dataschema", ""),
        ("dataschema", "not a uri"),
        ("schemaurl", "{}"),
        ("subject", ""),
        ("time", "yesterday"),
        ("time", "2026-01-31"),
        ("time", "2026-01-31T12:00:00"),
        ("time", "2026-13-01T12:00:00Z"),
        ("time", "2026-01-31T24:00:00Z"),
        ("time", "2026-01-31T12:00:00Z\n"),
        ("time", "٢٠٢٦-01-31T12:00:00Z"),
        ("datacontenttype", "json"),
        ("datacontenttype", "a b/c"),
        ("id", "a\x00"),
        ("id", "a\x7f"),
        ("type", "line\nbreak"),
        ("subject", "\ufffe"),
        ("extension", "\ud800"),
        ("Extension", "x"),
        ("ex-tension", "x"),
        ("é", "x"),
        ("²", "x"),
        ("", "x"),
    ],
)
def test_what_is_at_fault_is_named(name: str, value: str) -> None:
    assert set(faulty(**{name: value})) == {name}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "https://example.com/a?b=c#d"),
        ("source", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
        ("source", "mailto:cncf@example.com"),
        ("source", "1-555-123-4567"),
        ("source", "/käse"),
        ("source", "%41"),
        ("time", "2026-01-31T12:00:00Z"),
        ("time", "2026-01-31t12:00:60.123456789+01:30"),
        ("datacontenttype", "application/json"),
        ("datacontenttype", 'text/plain; charset="utf-8"'),
        ("subject", "a b €"),
        ("partitionkey", "42"),
        ("id", " "),
    ],
)
def test_what_is_valid(name: str, value: str) -> None:
    assert faulty(**{name: value}) == []


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidEventError) as refused:
        check_attributes({"specversion": "2.0", "id": "", "time": "now", "Bad": "x"})
    assert [fault.field for fault in refused.value.faults] == ["id", "source", "type", "specversion", "time", "Bad"]
    assert not refused.value.retriable
    assert "source: required attribute is missing" in str(refused.value)


@given(st.dictionaries(st.text(), st.text()))
def test_any_text_is_judged_and_nothing_else_happens(attributes: dict[str, str]) -> None:
    faults = attribute_faults(attributes)
    assert faults or {"id", "source", "type", "specversion"} <= set(attributes)


def test_time_of_bytes_and_text_are_judged_alike() -> None:
    for text in ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00", "x", "", "2026-02-30T23:59:60+00:00"):
        assert is_timestamp(text.encode()) == (not text or "time" not in faulty(time=text)) or text == ""


def test_it_shows_what_it_is_and_not_its_data() -> None:
    shown = repr(Event(dict(VALID), b"secret"))
    assert re.search(r"id='1'", shown)
    assert "secret" not in shown


VALUES = st.sampled_from(
    ["1.0", "0.3", "", "/s", "t", "a b", "text/plain", "nonsense", "2026-01-01T00:00:00Z", "x\x00", "é", "%zz"]
)
NAMES = st.sampled_from(
    ["specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "myext", "My-ext"]
)


@given(st.lists(st.dictionaries(NAMES, VALUES), min_size=1, max_size=8))
def test_what_was_valid_before_makes_nothing_valid_that_is_not(events: list[dict[str, str]]) -> None:
    valid = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    for attributes in [valid | event for event in events] + events + [valid]:
        try:
            check_attributes(attributes)
        except InvalidEventError as error:
            assert list(error.faults) == attribute_faults(attributes) != []
        else:
            assert attribute_faults(attributes) == []
