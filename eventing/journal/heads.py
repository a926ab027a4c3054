"""The head of an answer as the journal keeps it: lines of text, bounded, without secrets.

The last line has no name where not all is there: it says how many headers were left out or shortened.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from eventing.bindings.http import HeaderName
from eventing.observe.lines import printable
from eventing.observe.redaction import MASK, is_secret, redacted

__all__ = ["HEADERS_MAX", "HEAD_MAX", "VALUE_MAX", "head_text", "headers_of_text"]

HEAD_MAX: Final = 2048  # bytes
HEADERS_MAX: Final = 64
VALUE_MAX: Final = 256  # characters
NAME_MAX: Final = 64
# What these say is never a secret, and looking for one takes as long as all the rest.
_HARMLESS: Final = frozenset(
    {"connection", "content-length", "content-type", "date", "keep-alive", "retry-after", "server", "transfer-encoding", "vary"}
)
_CUT_LINE: Final = 8  # bytes for the line that says what was cut


def head_text(headers: Iterable[tuple[HeaderName, bytes]]) -> str:
    """The lines, in the order in which the headers came. What is named like a secret is masked, and so are secrets in values."""
    lines: list[str] = []
    room, cut = HEAD_MAX - _CUT_LINE, 0
    for number, (name, value) in enumerate(headers):
        if number >= HEADERS_MAX or len(name.lower) > NAME_MAX:
            cut += 1
            continue
        shown, text = name.lower.decode("latin-1"), MASK
        if not _secret(shown):
            text = _decoded(value[: 2 * VALUE_MAX].strip(b" \t"))
            # A word of digits and letters cannot hold what masking looks for.
            text = text if shown in _HARMLESS or text.isalnum() else redacted(text, VALUE_MAX + 1)
            text = text[:VALUE_MAX] + "…" if len(text) > VALUE_MAX or len(value) > 2 * VALUE_MAX else text
        size = len(shown) + len(text.encode()) + 4
        if size > room:
            cut += 1
            continue
        cut += text.endswith("…")
        room -= size
        lines.append(f"{shown}: {text}")
    if cut:
        lines.append(f": {cut}")
    return "\r\n".join(lines)


@lru_cache(1024)
def _secret(name: str) -> bool:
    return is_secret(name)


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def headers_of_text(text: str) -> tuple[dict[str, str], int]:
    """The headers by name, ready to be shown, and how many were left out or shortened. Those of one name are joined by commas
    (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    cut = 0
    for line in text.split("\r\n"):
        name, _, value = line.partition(": ")
        if name:
            value = printable(value)
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        elif value.isdecimal():
            cut = int(value)
    return headers, cut
