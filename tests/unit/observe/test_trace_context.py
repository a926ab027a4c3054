"""W3C Trace Context: what is valid, and what is left of what is not. The cases are those of the W3C's own test suite."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.observe.trace_context import TraceContext, headers_of, read

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
VALID = b"00-%b-%b-01" % (TRACE, SPAN)


def test_a_valid_one_is_taken_apart_and_made_again() -> None:
    found = read([VALID], [b"congo=t61rcWkgMzE"])
    assert found == TraceContext(TRACE, SPAN, True, b"congo=t61rcWkgMzE")
    assert found is not None
    assert found.headers == ((b"traceparent", VALID), (b"tracestate", b"congo=t61rcWkgMzE"))


@pytest.mark.parametrize(
    ("given", "sampled"),
    [
        (VALID[:-2] + b"00", False),
        (VALID[:-2] + b"03", True),
        (b" " + VALID + b"\t", True),
        (b"cc" + VALID[2:], True),
        (b"cc" + VALID[2:] + b"-what-the-future-will-be-like", True),
    ],
)
def test_valid(given: bytes, sampled: bool) -> None:
    assert read([given]) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "given",
    [
        [],
        [VALID, VALID],
        [b""],
        [b"ff" + VALID[2:]],
        [VALID + b"-extra"],
        [b"cc" + VALID[2:] + b".what"],
        [VALID.upper()],
        [VALID[:-1]],
        [VALID + b"0"],
        [b"00-%b-%b-01" % (b"0" * 32, SPAN)],
        [b"00-%b-%b-01" % (TRACE, b"0" * 16)],
        [b"00-%b-%b-01" % (TRACE[:-1] + b"g", SPAN)],
        [b"00-1-2-01"],
    ],
)
def test_what_is_not_valid_is_none(given: list[bytes]) -> None:
    assert read(given, [b"congo=1"]) is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([b"a=1,b=2"], b"a=1,b=2"),
        ([b"a=1", b"b=2"], b"a=1,b=2"),
        ([b" a=1 ,\t, b=2,"], b"a=1,b=2"),
        ([b"fw529a3039@dt=FfAAAQ"], b"fw529a3039@dt=FfAAAQ"),
        ([b""], b""),
        ([b"a=1,a=2"], b""),
        ([b"A=1"], b""),
        ([b"a"], b""),
        ([b"a=1=2"], b""),
        ([b",".join(b"k%d=1" % number for number in range(32))], b",".join(b"k%d=1" % number for number in range(32))),
        ([b",".join(b"k%d=1" % number for number in range(33))], b""),
        ([b"a=" + b"x" * 256], b"a=" + b"x" * 256),
        ([b"a=" + b"x" * 257], b""),
        ([b"a=\x7f"], b""),
    ],
)
def test_a_state_that_is_not_valid_goes_and_the_parent_stays(given: list[bytes], kept: bytes) -> None:
    assert read([VALID], given) == TraceContext(TRACE, SPAN, True, kept)


@given(st.lists(st.binary(max_size=80), max_size=3), st.lists(st.binary(max_size=80), max_size=3))
def test_whatever_comes_what_goes_on_is_valid(parents: list[bytes], states: list[bytes]) -> None:
    for given_parents in (parents, [VALID]):
        found = read(given_parents, states)
        if found is not None:
            assert read([found.traceparent], [found.state]) == found


def test_only_the_two_headers_are_trace_context() -> None:
    headers = ((b"x-request-id", b"1"), (b"tracestate", b"a=1"), (b"traceparent", b"whatever"))
    assert headers_of(headers) == headers[1:]
