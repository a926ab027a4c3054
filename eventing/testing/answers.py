"""What a scripted sink answers: good answers, bad ones, and those that never end."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.client import responses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from eventing.testing.sinks import Received

__all__ = ["Answer", "Answerer", "failing_at_random"]

_ENDLESS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. The class methods name the misbehaviours; `after` puts a delay before any of them.

    `delay_s` passes before the first byte, `interval_s` between any two bytes. `cut_after` ends the connection with a reset
    after so many bytes of the answer (0: none at all), `silent_after` stops there and keeps it open. `padding` bytes follow the
    body, `padding_headers` header lines of 1 KiB the other headers; both are made as they are sent. `close` ends the connection
    in good order after the answer; `length` says whether Content-Length is sent.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay_s: float = 0.0
    interval_s: float = 0.0
    cut_after: int | None = None
    silent_after: int | None = None
    padding: int = 0
    padding_headers: int = 0
    close: bool = False
    length: bool = True
    raw: bytes | None = field(default=None, repr=False)  # sent as it is, instead of all that

    @classmethod
    def reply(cls, attributes: Mapping[str, str], data: bytes = b"", content_type: str = "application/json") -> "Answer":
        """200 with an event in binary mode; `attributes` without the `ce-`."""
        headers = tuple((f"ce-{name}", value) for name, value in attributes.items())
        return cls(200, (*headers, ("content-type", content_type)), data)

    @classmethod
    def retry_after(cls, status: int, value: str) -> "Answer":
        """A refusal with a Retry-After header: seconds, a date, or garbage."""
        return cls(status, (("retry-after", value),))

    @classmethod
    def never(cls) -> "Answer":
        """Reads the request and says nothing, for as long as the client holds the connection."""
        return cls(silent_after=0)

    @classmethod
    def cut(cls, after: int = 0) -> "Answer":
        """Resets the connection after so many bytes of an answer: 0 is before it, 20 within its head."""
        return cls(body=b"x" * 1000, cut_after=after)

    @classmethod
    def slow(cls, interval_s: float = 1.0, body: bytes = b"x" * 100) -> "Answer":
        """One byte every so often."""
        return cls(body=body, interval_s=interval_s)

    @classmethod
    def huge(cls, size: int = 1 << 30) -> "Answer":
        """A body of so many bytes, announced and sent."""
        return cls(padding=size)

    @classmethod
    def endless_headers(cls) -> "Answer":
        return cls(padding_headers=_ENDLESS)

    @classmethod
    def garbage(cls, raw: bytes = b"\x16\x03\x01 this is not HTTP\r\n\r\n") -> "Answer":
        return cls(raw=raw, close=True)

    def after(self, delay_s: float) -> "Answer":
        return replace(self, delay_s=delay_s)

    @property
    def takes_time(self) -> bool:
        """It does not go out in one write."""
        return bool(self.delay_s or self.interval_s or self.padding or self.padding_headers) or self.silent_after is not None

    def head(self) -> bytes:
        """Status line and headers, the empty line not included."""
        phrase = responses.get(self.status, "Other")
        lines = [f"HTTP/1.1 {self.status} {phrase}\r\n", *(f"{name}: {value}\r\n" for name, value in self.headers)]
        if self.length and self.status not in {204, 304} and self.status >= 200:
            lines.append(f"content-length: {len(self.body) + self.padding}\r\n")
        if self.close:
            lines.append("connection: close\r\n")
        return "".join(lines).encode("latin-1")


Answerer = Callable[["Received"], Answer]
"""Chooses the answer to a request."""


def failing_at_random(seed: int, share: float, *failures: Answer, success: Answer | None = None) -> Answerer:
    """Fails the given share of requests, each with one of `failures` (default: 500, 503, cut before and within the answer).

    The choices depend on the seed and on the order of the requests only, so that a run can be repeated.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share is between 0 and 1, not {share}")
    rand = random.Random(seed)  # noqa: S311 - to be repeatable is the point
    kinds = failures or (Answer(500), Answer(503), Answer.cut(), Answer.cut(25))
    good = success or Answer()

    def answer(_received: "Received") -> Answer:
        return rand.choice(kinds) if rand.random() < share else good

    return answer
