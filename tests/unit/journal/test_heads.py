"""Heads of answers as the journal keeps them: whole where that is possible, bounded always, without secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.bindings.http import HeaderNames
from eventing.journal.details import Details
from eventing.journal.heads import HEAD_MAX, HEADERS_MAX, VALUE_MAX, head_text, headers_of_text
from eventing.observe.lines import printable

Pairs = list[tuple[bytes, bytes]]


def kept(headers: Pairs) -> tuple[dict[str, str], int]:
    """Through the ring and back."""
    names, details = HeaderNames(), Details(1 << 14)
    detail = details.read(details.add(0, 0.0, head_text([(names[name], value) for name, value in headers]), ""))
    assert detail is not None
    return headers_of_text(detail.head)


def test_every_header_is_kept_in_order() -> None:
    headers = [(b"X-Reason", b"maintenance"), (b"Server", b"x/1"), (b"Retry-After", b"1"), (b"ce-id", b"1"), (b"X-Empty", b"")]
    found, cut = kept(headers)
    assert list(found.items()) == [
        ("x-reason", "maintenance"), ("server", "x/1"), ("retry-after", "1"), ("ce-id", "1"), ("x-empty", ""),
    ]  # fmt: skip
    assert cut == 0


def test_what_came_twice_has_both_values() -> None:
    assert kept([(b"via", b"a"), (b"x", b"1"), (b"Via", b"b")]) == ({"via": "a, b", "x": "1"}, 0)


@pytest.mark.parametrize("value", ["für morgen".encode(), "für morgen".encode("latin-1")])
def test_values_that_are_not_ascii(value: bytes) -> None:
    assert kept([(b"x-why", value)]) == ({"x-why": "für morgen"}, 0)


def test_no_terminal_is_steered() -> None:
    found, _ = kept([(b"x-evil", b"\x1b[2J\t2J" + "\u202e".encode())])
    assert found == {"x-evil": "\\x1b[2J\\x092J\\u202e"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Set-Cookie", b"session=s3cret"), (b"Authorization", b"s3cret"), (b"WWW-Authenticate", b"Negotiate s3cret"),
        (b"Proxy-Authenticate", b"s3cret"), (b"Authentication-Info", b"nextnonce=s3cret"), (b"X-Api-Key", b"s3cret"),
        (b"X-Auth-Key", b"s3cret"), (b"X-Session-Id", b"s3cret"), (b"X-CSRF-Token", b"s3cret"), (b"X-Amz-Security-Token", b"s3cret"),
        (b"Location", b"http://user:s3cret@host/p?code=s3cret"), (b"X-Echo", b"Bearer s3cret"), (b"X-Url", b"/p?s=s3cret"),
        (b"X-Echo", b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzM2NyZXQifQ.s3cret-s3cret"),
    ],
)  # fmt: skip
def test_secrets_are_masked(name: bytes, value: bytes) -> None:
    found, cut = kept([(name, value), (b"server", b"x")])
    assert "s3cret" not in str(found)
    assert "***" in found[name.lower().decode()]
    assert (found["server"], cut) == ("x", 0)


def test_a_long_value_is_shortened_and_says_so() -> None:
    found, cut = kept([(b"x-long", b"v" * 30_000), (b"x-short", b"v" * VALUE_MAX)])
    assert found == {"x-long": "v" * VALUE_MAX + "…", "x-short": "v" * VALUE_MAX}
    assert cut == 1


def test_too_many_are_counted() -> None:
    found, cut = kept([(b"x-%d" % number, b"1") for number in range(200)])
    assert len(found) == HEADERS_MAX
    assert cut == 200 - HEADERS_MAX


def test_a_small_one_behind_those_that_have_no_room_is_kept() -> None:
    found, cut = kept([*((b"x-%d" % number, b"v" * 250) for number in range(9)), (b"x-reason", b"small")])
    assert found["x-reason"] == "small"
    assert len(found) + cut == 10


@given(st.lists(st.tuples(st.from_regex(rb"[A-Za-z-]{1,100}", fullmatch=True), st.binary(max_size=600)), max_size=100))
def test_whatever_comes_it_is_bounded_and_nothing_is_lost_silently(headers: Pairs) -> None:
    headers = [(name, value.translate(None, b"\r\n\0")) for name, value in headers]
    names = HeaderNames()
    text = head_text([(names[name], value) for name, value in headers])
    assert len(text.encode()) <= HEAD_MAX
    found, cut = kept(headers)
    assert all(printable(value) == value for value in found.values())
    shown = {name.lower().decode() for name, _ in headers}
    assert set(found) <= shown
    assert cut or set(found) == shown
