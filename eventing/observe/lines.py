"""Lines for people and collectors: the renderer of log lines that every process shares, the lean supervisor included.

Nothing here imports `logging`: the supervisor writes its few lines without it.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["LogFormat", "emit", "lines_of", "printable", "render"]

LogFormat = Literal["text", "json"]

# C0, DEL, C1, the bidirectional overrides, line separators: what could move a cursor, hide text or start a new line.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_NEEDS_QUOTES: Final = re.compile(r'[\s"=]')


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` with everything that a terminal would obey replaced by its escape, as in `\x1b`; characters in `keep` stay."""
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def lines_of(text: str) -> str:
    """A message for people, as `printable`, further lines indented: Knative names each fault of an object on its own line."""
    return printable(text, keep="\n").replace("\n", "\n  ")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def render(
    log_format: LogFormat,
    *,
    moment: float,
    level: str,
    process: str,
    message: str,
    fields: Mapping[str, object] | None = None,
    detail: str = "",
) -> str:
    """The line, without its line end. `moment` is Unix time, `process` the role that speaks.

    `message` is constant text and what varies is in `fields`, so that lines can be counted and searched. `detail` may hold
    line breaks (a traceback): in text it follows below, indented; in JSON it is a member.
    """
    whole, milliseconds = divmod(int(moment * 1000), 1000)
    if log_format == "json":
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"
        record = {"time": stamp, "level": level.lower(), "process": process, "message": message, **(fields or {})}
        if detail:
            record["detail"] = detail
        return json.dumps(record, ensure_ascii=False, default=str)
    stamp = f"{time.strftime('%H:%M:%S', time.localtime(whole))}.{milliseconds:03d}"
    parts = [f"{stamp} {level.upper():7} {process:10} {printable(message)}"]
    parts += [f"{name}={_value(value)}" for name, value in (fields or {}).items()]
    line = "  ".join(parts)
    if detail:
        line += "".join(f"\n    {printable(below, keep=chr(9))}" for below in detail.splitlines())
    return line


def _value(value: object) -> str:
    text = printable(str(value))
    return f"'{text}'" if not text or _NEEDS_QUOTES.search(text) else text


def emit(text: str, fd: int = 1) -> None:
    """Write all of `text` at once. A reader that went away (`eventing up | head`) is no reason for a mesh to end."""
    rest = text.encode("utf-8", "backslashreplace")
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BrokenPipeError:
        return
