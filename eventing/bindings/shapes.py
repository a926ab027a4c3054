"""Requests seen before: a producer sends the same head thousands of times, but for its id, its time and its length.

A `Shape` is made of the bytes of one request that was parsed and judged in full. A request whose head is the same, byte for byte,
but for the values of a few headers is parsed and judged alike, as long as those values consist of characters that mean nothing
to HTTP or to the binding: so it needs no parser, no look at each header, no judgement but of what differs. Whatever does not
match goes the thorough way, which refuses what is to be refused; a shape accepts only what that way would have accepted.
"""

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from eventing.bindings.http import HOPS_HEADER, HeaderNames, Headers
from eventing.event import Event, is_timestamp

__all__ = ["Shape", "Shapes"]

# Headers whose values may differ; all else must be the same. A value is visible ASCII without percent sign and double quote,
# which the HTTP binding decodes (§3.1.3.2); the bound keeps one that never ends from being looked at for long.
_VALUE: Final = rb"([!#$&-~]{1,256})"
_LENGTH: Final = rb"(0|[1-9][0-9]{0,8})"
_VARIABLE: Final = {
    b"ce-id": _VALUE,
    b"ce-subject": _VALUE,
    b"ce-time": _VALUE,
    b"content-length": _LENGTH,
    b"traceparent": _VALUE,
}
# With one of these in it, a head says not all about what the parser does.
_NEVER: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(:[ \t]*)([^\r\n]*)")
HEAD_MAX: Final = 2048
SHAPES_MAX: Final = 128
LEARNT_MAX: Final = 20  # per call of `Shapes.allow`: compiling a pattern takes half a millisecond, and strangers cause it


class Shape:
    """The head of a POST with one event in binary mode, but for its variable values.

    `target`, `host` and `headers` are those of the request it was made of; of `headers` those that vary tell nothing.
    """

    __slots__ = ("_head", "_hops", "_id", "_length", "_match", "_order", "_time", "_time_known", "_travelling", "headers", "host",
                 "target")  # fmt: skip

    def __init__(self, pattern: bytes, variables: Sequence[bytes], head: bytes, request: tuple[bytes, bytes, Headers],
                 travelling: tuple[tuple[bytes, bytes], ...], hops: int) -> None:  # fmt: skip
        self._match = re.compile(pattern).match
        self._id = variables.index(b"ce-id")
        self._length = variables.index(b"content-length")
        self._time = variables.index(b"ce-time") if b"ce-time" in variables else None
        self._time_known = b""
        order = [at for at in range(len(variables)) if at != self._length]
        self._order = itemgetter(*order, self._length)
        self._head = head
        traced = variables.index(b"traceparent") if b"traceparent" in variables else None
        self._travelling = [(name, value, traced if name == b"traceparent" else None) for name, value in travelling]
        self._hops = hops
        self.target, self.host, self.headers = request

    def read(self, data: bytes) -> Event | None:
        """The event, where `data` is one whole request of this shape with nothing behind it; else None."""
        match = self._match(data)
        if match is None:
            return None
        values = match.groups()
        at = match.end()
        if int(values[self._length]) != len(data) - at:
            return None
        if self._time is not None and values[self._time] != self._time_known:
            if not is_timestamp(values[self._time]):
                return None
            self._time_known = values[self._time]
        travelling: tuple[tuple[bytes, bytes], ...] = ()
        if self._travelling:
            travelling = tuple((name, value if at is None else values[at]) for name, value, at in self._travelling)
        return Event.of_head(self._head % self._order(values), data[at:], values[self._id], travelling, self._hops)


class Shapes:
    """The shapes that a server knows; bounded, since heads come from outside."""

    def __init__(self, names: HeaderNames) -> None:
        self._names = names
        self._known: dict[bytes, Shape] = {}
        self._allowed = LEARNT_MAX

    def allow(self) -> None:
        """Some more may be learnt; to be called once a second."""
        self._allowed = LEARNT_MAX

    def learn(self, data: bytes, target: bytes, host: bytes, headers: Headers, event: Event) -> Shape | None:
        """The shape of the request `data`, which was read as a POST to `target` with `event` and keeps its connection open; None
        where it is not of the plain kind."""
        end = data.find(b"\r\n\r\n")
        head = data[:end]
        if event.structured is not None or event.wire is None or not 0 < end <= HEAD_MAX or data[end + 4 :] != event.data:
            return None
        if not head.isascii() or head.count(b"\n") != head.count(b"\r\n") or not head.startswith(b"POST "):
            return None
        first, *lines = head.split(b"\r\n")
        pattern = re.escape(first)
        forwarded: list[bytes] = []
        variables: list[bytes] = []
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                return None
            name = self._names[match[1]]
            value: bytes = match[3]
            if name.lower in _NEVER:
                return None
            pattern += b"\r\n" + re.escape(match[1] + match[2])
            if name.lower in _VARIABLE:
                variables.append(name.lower)
                pattern += _VARIABLE[name.lower]
                value = b"%b"
            else:
                pattern += re.escape(value)
            if (name.attribute is not None and value) or name.travels:
                forwarded.append(name.line + value)
        if len(set(variables)) != len(variables) or not {b"ce-id", b"content-length"}.issubset(variables):
            return None
        pattern += b"\r\n\r\n"
        known = self._known.get(pattern)
        if known is not None or self._allowed <= 0:
            return known
        self._allowed -= 1
        forwarded += (HOPS_HEADER + b": %d" % (event.hops + 1), b"content-length: %b\r\n\r\n")
        if any(line.count(b"%") > line.count(b"%b") for line in forwarded):
            return None
        shape = Shape(pattern, variables, b"\r\n".join(forwarded), (target, host, headers), event.headers, event.hops)
        if not _same(shape.read(data), event):
            return None  # a value is not plain enough, or this module and the thorough way differ, which goes first
        if len(self._known) >= SHAPES_MAX:
            self._known.clear()
        self._known[pattern] = shape
        return shape


def _same(one: Event | None, other: Event) -> bool:
    return (
        one is not None
        and (one.wire, one.data, one.raw_id, one.headers, one.hops)
        == (other.wire, other.data, other.raw_id, other.headers, other.hops)
        and one.attributes == other.attributes
    )
