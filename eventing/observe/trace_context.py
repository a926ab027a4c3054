"""W3C Trace Context (level 1): the two headers by which one request is known in the traces of many systems."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["TRACEPARENT", "TRACESTATE", "Headers", "TraceContext", "headers_of", "read"]

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
Headers = tuple[tuple[bytes, bytes], ...]

# §3.2: lower-case hexadecimal. Of a version above 00 the first four fields count, and more may follow behind a dash.
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ZERO: Final = frozenset(b"0")
# §3.3: at most 32 members, each key once.
_MEMBER: Final = re.compile(
    rb"((?:[a-z][a-z0-9_*/-]{0,255})|(?:[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}))"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MEMBERS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which trace, and which span of it. The ids are hexadecimal; `state` is the tracestate, "" where there is none."""

    trace_id: bytes
    span_id: bytes
    sampled: bool
    state: bytes = b""

    @property
    def traceparent(self) -> bytes:
        return b"00-%b-%b-%02x" % (self.trace_id, self.span_id, self.sampled)

    @property
    def headers(self) -> Headers:
        """As they are sent."""
        parent = (TRACEPARENT, self.traceparent)
        return (parent, (TRACESTATE, self.state)) if self.state else (parent,)


def read(traceparents: Sequence[bytes], tracestates: Sequence[bytes] = ()) -> TraceContext | None:
    """The context that came in, from all headers of the two names. None where there is none or it is not valid: the receiver
    then starts a trace of its own. A tracestate that is not valid is dropped, and its traceparent kept (§4.3)."""
    if len(traceparents) != 1:
        return None
    match = _TRACEPARENT.fullmatch(traceparents[0].strip(b" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest) or set(trace_id) <= _ZERO or set(span_id) <= _ZERO:
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1), _state(tracestates))


def _state(values: Sequence[bytes]) -> bytes:
    members = [member.strip(b" \t") for member in b",".join(values).split(b",")]
    members = [member for member in members if member]
    matches = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match is not None}
    if len(members) > _MEMBERS_MAX or len(keys) != len(members):
        return b""
    return b",".join(members)


def headers_of(headers: Headers) -> Headers:
    """Those of the two names, as they stand."""
    return tuple((name, value) for name, value in headers if name in {TRACEPARENT, TRACESTATE})
