"""A scriptable HTTP sink on plain asyncio: what a subscriber may do to the mesh, on demand.

It reads HTTP/1.1 with a parser of its own and strictly, so that a fault of ours in writing requests is not forgiven by the
library that also reads them in production.
"""

import asyncio
import itertools
import json
import re
import socket
import ssl
import struct
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from eventing.testing.answers import Answer, Answerer, failing_at_random

__all__ = ["Answer", "Answerer", "MalformedRequestError", "Received", "Sink", "failing_at_random"]

_REQUEST_LINE = re.compile(rb"([A-Z]+) ([\x21-\x7e]+) HTTP/1\.1")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t\x80-\xff]*?)[ \t]*")
_HEAD_MAX: Final = 1 << 20
_PIECE: Final = 64 << 10
TURNS: Final = 5  # of the loop: a connection that is being accepted comes to its end within them


class MalformedRequestError(AssertionError):
    """What came in is not HTTP/1.1 as RFC 9112 has it."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came. `headers` in order, names and values as sent; `at` is loop time when its last byte was read;
    `number` counts the requests to this path from 1; `connection` the connections of the sink from 1."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    at: float
    number: int
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The value of the one header of this name, whatever its case. Raises LookupError where there are several."""
        found = [value for sent, value in self.headers if sent.lower() == name.lower()]
        if len(found) > 1:
            raise LookupError(f"{name} was sent {len(found)} times: {found}")
        return found[0] if found else None

    @property
    def event_id(self) -> str | None:
        """The id of the event, binary or structured; None where the request holds none."""
        if (self.header("content-type") or "").startswith("application/cloudevents+json"):
            found = json.loads(self.body).get("id")
            return found if isinstance(found, str) else None
        return self.header("ce-id")

    @property
    def attributes(self) -> dict[str, str]:
        """The `ce-` headers without their prefix, undecoded."""
        return {name.lower()[3:]: value for name, value in self.headers if name.lower().startswith("ce-")}


class Sink:
    """An HTTP server for one test: `async with Sink() as sink`, then `sink.url + "/any/path"` is a subscriber.

    A request to a path is answered by the next of its `script`ed answers, else by what `always` said for it, else by 200. The
    moment the connection is answered, the request is in `requests`. Leaving the context ends all connections at once, and
    raises what went wrong inside: MalformedRequestError for requests that break HTTP.
    """

    def __init__(self, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = 0
        self.requests: list[Received] = []
        self.open_connections = 0
        self._tls = tls
        self._scripts: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._always: dict[str, Answerer] = {}
        self._default: Answerer = lambda _received: Answer()
        self._numbers: defaultdict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1))
        self._connections = itertools.count(1)
        self._news = asyncio.Event()
        self._accepted: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: list[Exception] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    async def start(self, port: int = 0) -> None:
        """Begin to listen; `port` 0 takes a free one, which the sink keeps when it is started again after `aclose`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, self.host, port or self.port, ssl=self._tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and end every connection. Raises what the connections ended with, if it was a fault."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if server is not None:
            for _ in range(TURNS):
                await asyncio.sleep(0)
        faults, self._faults = self._faults, []
        if faults:
            raise ExceptionGroup("the sink met", faults) if len(faults) > 1 else faults[0]

    # what it answers

    def script(self, path: str, *answers: Answer) -> None:
        """The next requests to the path get these answers, one each."""
        self._scripts[path] += answers

    def always(self, path: str, answer: Answer | Answerer) -> None:
        """What requests to the path get once their script is through."""
        self._always[path] = (lambda _received: answer) if isinstance(answer, Answer) else answer

    def otherwise(self, answer: Answer | Answerer) -> None:
        """What requests to all other paths get."""
        self._default = (lambda _received: answer) if isinstance(answer, Answer) else answer

    # what it got

    def at(self, path: str | None) -> list[Received]:
        """The requests to the path so far, in the order in which they were complete; all for None."""
        return [received for received in self.requests if path in {None, received.path}]

    def ids(self, path: str) -> set[str]:
        """Ids of the events that the path has *accepted*: answered 2xx, and the answer went out."""
        return set(self._accepted[path])

    def accepted(self, path: str) -> dict[str, float]:
        """Of the same events: the loop time at which each was accepted for the first time, in that order."""
        return dict(self._accepted[path])

    async def received(self, number: int, path: str | None = None, *, within: float = 5.0) -> list[Received]:
        """Wait for so many requests and return them. Raises AssertionError, saying what came, after `within` seconds."""
        where = f" to {path}" if path else ""
        await self.until(lambda: len(self.at(path)) >= number, within=within, what=f"{number} requests{where}")
        return self.at(path)

    async def until(self, condition: Callable[[], bool], *, within: float = 5.0, what: str = "the condition") -> None:
        """Wait until the condition holds; looks again whenever something happens at the sink."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not come within {within:g} s; the sink got {self._summary()}") from None

    def _summary(self) -> str:
        if not self.requests:
            return "nothing"
        paths = sorted({received.path for received in self.requests})
        return ", ".join(f"{len(self.at(path))} at {path}" for path in paths)

    # its connections

    def _protocol(self) -> asyncio.Protocol:
        reader = _Reader(limit=_HEAD_MAX)
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._connected(reader, writer))

    def _connected(self, reader: "_Reader", writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted in the moment of the end
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, writer))

    def _ended(self, task: "asyncio.Task[None]", writer: asyncio.StreamWriter) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # perhaps before its first step, which would have cleaned up
            writer.transport.abort()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._faults.append(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        self._news.set()

    async def _serve(self, reader: "_Reader", writer: asyncio.StreamWriter) -> None:
        connection = next(self._connections)
        in_order = False
        self.open_connections += 1
        try:
            while (request := await _read_request(reader, writer)) is not None:
                method, target, headers, body = request
                path = target.partition("?")[0]
                at = asyncio.get_running_loop().time()
                received = Received(method, target, headers, body, at, next(self._numbers[path]), connection)
                self.requests.append(received)
                self._news.set()
                script = self._scripts[path]
                answer = script.popleft() if script else self._always.get(path, self._default)(received)
                sending = _send(writer, answer)
                whole = await (_while_connected(reader, sending) if answer.takes_time else sending)
                if whole and 200 <= answer.status < 300 and answer.raw is None and (event_id := received.event_id):
                    self._accepted[path].setdefault(event_id, asyncio.get_running_loop().time())
                    self._news.set()
                if not whole or answer.close:
                    in_order = whole
                    break
        except ConnectionError:
            pass  # the other side went away, as it may at any time
        finally:
            self.open_connections -= 1
            if in_order:
                writer.close()
            else:
                writer.transport.abort()


class _Reader(asyncio.StreamReader):
    """A stream that can be asked to say when the other side has gone, while nobody reads."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[str, str, tuple[tuple[str, str], ...], bytes] | None:
    """One request; None where the client has closed instead of sending another."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ConnectionResetError("closed within a request") from error
        return None
    first, *lines = head[:-4].split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(first)
    if request_line is None:
        raise MalformedRequestError(f"request line {first!r}")
    headers = []
    for line in lines:
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            raise MalformedRequestError(f"header line {line!r}")
        headers.append((header[1].decode("ascii"), header[2].decode("latin-1")))
    names = [name.lower() for name, _ in headers]
    for name in ("host", "content-length", "transfer-encoding"):
        if names.count(name) > 1 or (name == "host" and name not in names):
            raise MalformedRequestError(f"{names.count(name)} {name} headers: {headers}")
    values = {name.lower(): value for name, value in headers}
    if "content-length" in values and "transfer-encoding" in values:
        raise MalformedRequestError("both Content-Length and Transfer-Encoding")
    if values.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if "transfer-encoding" in values:
            body = await _read_chunks(reader)
        else:
            length = values.get("content-length", "0")
            if not (length.isascii() and length.isdigit()):
                raise MalformedRequestError(f"Content-Length {length!r}")
            body = await reader.readexactly(int(length))
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("closed within a request") from error
    return request_line[1].decode(), request_line[2].decode(), tuple(headers), body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
            return bytes(body)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise MalformedRequestError("a chunk is longer than it says")


async def _while_connected(reader: "_Reader", sending: Coroutine[Any, Any, bool]) -> bool:
    """Send, but give up when the client closes meanwhile: an answer that never ends must not outlive its client."""
    loop = asyncio.get_running_loop()
    answer, gone = loop.create_task(sending), loop.create_task(reader.gone.wait())
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        return answer.done() and answer.result()
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> bool:
    """Send the answer; whether it went out whole."""
    if answer.delay_s:
        await asyncio.sleep(answer.delay_s)
    sent = 0
    limit = min((bound for bound in (answer.cut_after, answer.silent_after) if bound is not None), default=None)
    for piece in _pieces(answer):
        part = piece if limit is None else piece[: limit - sent]
        if answer.interval_s:
            for byte in part:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(answer.interval_s)
        else:
            writer.write(part)
            await writer.drain()
        sent += len(part)
        if limit is not None and sent >= limit:
            break
    if answer.silent_after is not None:
        await asyncio.Event().wait()
    if answer.cut_after is not None:
        _reset(writer)
        return False
    return True


def _pieces(answer: Answer) -> Iterable[bytes]:
    if answer.raw is not None:
        yield answer.raw
        return
    if not (answer.padding or answer.padding_headers):
        yield answer.head() + b"\r\n" + answer.body
        return
    yield answer.head()
    for number in range(answer.padding_headers):
        yield b"x-padding-%d: " % number + b"x" * 1000 + b"\r\n"
    yield b"\r\n" + answer.body
    left = answer.padding
    while left > 0:
        yield b"x" * min(left, _PIECE)
        left -= _PIECE


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
