"""What a record of a failure says beside its numbers: text, and where the record of the attempt before it is.

A ring of bytes. Successes need none of it.
"""

import struct
from typing import Final, NamedTuple

from eventing.journal.heads import HEAD_MAX
from eventing.journal.pages import pages

__all__ = ["ANSWERED", "DETAIL_BYTES", "TEXT_MAX", "Detail", "Details"]

# number of the record of the attempt before, counted from 1 (0: none); delay of the back-off; lengths: head, text
_DETAIL: Final = struct.Struct("<QfHH")
DETAIL_BYTES: Final = 8 << 20
TEXT_MAX: Final = 600  # bytes
# In a text: what is before it is ours, what is behind it the beginning of the body that came with the answer.
ANSWERED: Final = "\x1f"


class Detail(NamedTuple):
    """`previous`: number of the attempt record before this one, counted from 1; 0: there is none. `delay_s`: the back-off that
    the policy names. `head`: header lines of the answer (eventing.journal.heads). `text`: the
    error, or the beginning of the answer's body, or both with ANSWERED between them."""

    previous: int
    delay_s: float
    head: str
    text: str


class Details:
    """The ring. A position that was overwritten reads as None."""

    def __init__(self, size: int = DETAIL_BYTES) -> None:
        self._ring = pages(size)
        self._size = size
        self._written = 1  # position 0 stands for no detail

    def add(self, previous: int, delay_s: float, head: str, text: str) -> int:
        """The position of what was written."""
        raw_head, raw_text = _cut(head, HEAD_MAX), _cut(text, TEXT_MAX)
        record = _DETAIL.pack(previous, delay_s, len(raw_head), len(raw_text)) + raw_head + raw_text
        size, at = len(record), self._written
        offset = at % self._size
        if offset + size > self._size:  # never split
            at += self._size - offset
            offset = 0
        self._ring[offset : offset + size] = record
        self._written = at + size
        return at

    def read(self, at: int) -> Detail | None:
        if not at or at < self._written - self._size:
            return None
        offset = at % self._size
        previous, delay_s, head, text = _DETAIL.unpack_from(self._ring, offset)
        begin = offset + _DETAIL.size
        raw = bytes(self._ring[begin : begin + head + text])
        return Detail(previous, delay_s, raw[:head].decode(errors="replace"), raw[head:].decode(errors="replace"))


def _cut(text: str, limit: int) -> bytes:
    raw = text.encode(errors="replace")
    return raw if len(raw) <= limit else raw[: limit - 3].decode(errors="ignore").encode() + "…".encode()
