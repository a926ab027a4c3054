"""The receiver against bytes that nobody should send: it answers or closes, raises nothing, and takes what was sent, else nothing.

What was sent is said by h11, another parser of HTTP, which reads the same bytes: a request that the mesh takes and h11 reads
otherwise, or not at all, is one that a proxy in front may not have seen.

The examples are the same in each run; `EVENTING_FUZZ=20 make test ARGS=tests/integration/test_ingress_fuzz.py` takes others, twenty
times as many.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventing.wire.server import ServerLimits
from eventing.wire.server_connection import ServerConnection
from tests.support.data_plane import DataPlaneRig
from tests.unit.wire.transports import FakeTransport, answers_of

pytestmark = pytest.mark.timeout(600)
# How large a head may be is counted by the pieces in which it comes, so that bound is tested elsewhere.
LIMITS = ServerLimits(body_bytes=2000, header_bytes=1 << 20, header_count=20)
FUZZ = int(os.environ.get("EVENTING_FUZZ", "0"))
Taken = tuple[bytes, bytes, bytes, bytes, bytes]  # method, target, host, id, body


def bounded(examples: int) -> settings:
    return settings(max_examples=examples * (FUZZ or 1), derandomize=not FUZZ, database=None)


class Ingress:
    """A data plane on a loop of its own, so that one serves all examples of a test; connections without a socket."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.rig: DataPlaneRig = self.runner.run(self._start())
        self.raised: list[dict[str, Any]] = []
        self.taken: list[Taken] = []
        self.recognised = 0
        self.runner.get_loop().set_exception_handler(lambda _loop, context: self.raised.append(context))
        application = self.rig.server.application

        def noted(request: Any) -> None:
            # What the application decodes is what counts: of a request whose shape is known, the server brings the event.
            identity = request.event.raw_id if request.event is not None else request.header(b"ce-id") or b""
            self.taken.append((request.method, request.target, request.host.strip(b" \t"), identity.strip(b" \t"), request.body))
            self.recognised += request.event is not None
            application(request)

        self.rig.server.application = noted

    async def _start(self) -> DataPlaneRig:
        rig = await DataPlaneRig(server_limits=LIMITS).__aenter__()
        rig.channel("orders")
        return rig

    def close(self) -> None:
        self.runner.run(self.rig.__aexit__(None, None, None))
        self.runner.close()

    def feed(self, pieces: list[bytes]) -> tuple[list[Taken], list[int], bool]:
        """What is taken of them, the status codes of the answers, and whether the server has ended the connection."""

        async def send() -> FakeTransport:
            transport = FakeTransport()
            connection = ServerConnection(self.rig.server, asyncio.get_running_loop())
            connection.connection_made(transport)
            for piece in pieces:
                if transport.closed:
                    break
                connection.data_received(piece)
                await asyncio.sleep(0)  # the turn of those that wait
            if not transport.closed:
                connection.eof_received()
            connection.connection_lost(None)
            return transport

        self.taken.clear()
        before = self.rig.journal.accepted_events
        transport = self.runner.run(send())
        statuses = [status for status, _ in answers_of(transport.written)]
        assert self.rig.journal.accepted_events - before == statuses.count(202)
        assert not self.rig.server.connections
        assert not self.raised
        return list(self.taken), statuses, transport.closed or transport.eof

    def send(self, sent: bytes) -> tuple[bytes, bool]:
        """The same over a real socket: everything that comes back until the end, and whether that was an orderly one."""

        async def exchange() -> tuple[bytes, bool]:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.rig.port)
            got = b""
            try:
                writer.write(sent)
                writer.write_eof()
                async with asyncio.timeout(20):
                    while piece := await reader.read(65536):
                        got += piece
            except ConnectionError:
                return got, False
            else:
                return got, True
            finally:
                writer.transport.abort()
                await asyncio.sleep(0)

        return self.runner.run(exchange())


@pytest.fixture(scope="module")
def ingress() -> Iterator[Ingress]:
    serving = Ingress()
    yield serving
    serving.close()


def read_by_h11(stream: bytes) -> list[Taken]:
    """The requests that h11 finds in the stream, up to what it refuses."""
    found: list[Taken] = []
    try:
        while stream:
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            # Two things that the mesh bears with and h11 does not: empty lines before a request, and more than one space in its
            # first line (RFC 9112 §2.2, §3).
            stream = re.sub(rb"^([A-Z-]+) +([^ \r\n]+) +HTTP/", rb"\1 \2 HTTP/", stream.lstrip(b"\r\n"))
            connection.receive_data(stream)
            connection.receive_data(b"")
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                break
            body = b""
            while isinstance(data := connection.next_event(), h11.Data):
                body += data.data
            if not isinstance(data, h11.EndOfMessage):
                break
            values = dict(reversed(list(request.headers)))  # the first counts, as in the mesh
            found.append((request.method, request.target, values.get(b"host", b""), values.get(b"ce-id", b""), body))
            if connection.their_state is h11.MUST_CLOSE:
                break
            stream = connection.trailing_data[0]
    except h11.RemoteProtocolError:
        pass
    return found


# Requests as clients send them.


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    body = draw(
        st.sampled_from([b"", b"{}", b'{"n":1}', b"\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"x" * 300]) | st.binary(max_size=40)
    )
    target = draw(
        st.sampled_from([b"/default/orders", b"/default/orders/", b"/default/nope", b"/", b"http://x/default/orders", b"*"])
    )
    lines = [draw(st.sampled_from([b"POST", b"POST", b"POST", b"GET", b"OPTIONS", b"PUT"])) + b" " + target + b" HTTP/1.1"]
    lines += [b"host: " + draw(st.sampled_from([b"x", b"orders-kn-channel.default", b"[::1]:80"]))]
    attributes = [
        b"ce-specversion: 1.0",
        b"ce-source: /s",
        b"ce-type: t",
        b"ce-id: %d" % draw(st.integers(0, 99)),
        b"content-type: text/plain",
    ]
    lines += draw(st.lists(st.sampled_from(attributes), unique=True, max_size=5) | st.just(attributes))
    lines += draw(
        st.lists(
            st.sampled_from(
                [b"x: y", b"accept: */*", b"expect: 100-continue", b"connection: keep-alive", b"traceparent: 00-1-2-01"]
            ),
            unique=True,
            max_size=2,
        )
    )
    if draw(st.booleans()):
        lines += [b"content-length: %d" % len(body), b"", body]
        return b"\r\n".join(lines)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    chunks = [body[at:to] for at, to in zip([0, *cuts], [*cuts, len(body)], strict=True) if to > at]
    coded = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), draw(st.sampled_from([b"", b";a=b"])), chunk) for chunk in chunks)
    trailers = draw(st.sampled_from([b"", b"ce-id: trailer\r\n"]))
    return b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", coded + b"0\r\n" + trailers, b""])[:-2] + b"\r\n"


streams = st.lists(requests(), min_size=1, max_size=3).map(b"".join)
_INSERTED = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b";", b",", b"0", b"0\r\n\r\n", b"\r\n ", b"content-length: 0\r\n", b"content-length: 7\r\n",
     b"transfer-encoding: chunked\r\n", b"transfer-encoding: identity\r\n", b"host: y\r\n", b"HTTP/1.0", b"connection: close\r\n",
     b"connection: upgrade\r\nupgrade: h2c\r\n", b"\xff", b"x" * 2100, b"x: y\r\n" * 30, b"POST /default/orders HTTP/1.1\r\n"]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A stream of good requests with a few places changed: something put in, taken out, doubled, replaced, cut off."""
    stream = draw(streams)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(stream)))
        to = min(len(stream), at + draw(st.integers(0, 12)))
        change = draw(st.sampled_from(["insert", "delete", "double", "replace", "cut", "case"]))
        if change == "insert":
            stream = stream[:at] + draw(_INSERTED) + stream[at:]
        elif change == "delete":
            stream = stream[:at] + stream[to:]
        elif change == "double":
            stream = stream[:to] + stream[at:]
        elif change == "replace":
            stream = stream[:at] + draw(st.binary(min_size=1, max_size=3)) + stream[to:]
        elif change == "case":
            stream = stream[:at] + stream[at:to].swapcase() + stream[to:]
        else:
            stream = stream[:at]
    return stream


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """What one producer sends over one connection, piece by piece: the same request again and again but for what varies, some of
    them damaged. From the third on the server may know their shape and leave its parser out."""
    more = [b"x: y", b"ce-ext: a", b"content-type: text/plain", b"ce-subject: SUBJECT", b"ce-time: 2026-01-31T12:00:00Z"]
    lines = [b"POST /default/orders HTTP/1.1", b"host: x", b"ce-specversion: 1.0", b"ce-type: t", b"ce-source: /s", b"ce-id: ID"]
    template = b"\r\n".join([*lines, *draw(st.lists(st.sampled_from(more), unique=True)), b"content-length: LENGTH\r\n\r\n"])
    pieces: list[bytes] = []
    for number in range(draw(st.integers(4, 9))):
        body = draw(st.binary(max_size=12))
        identity = draw(st.sampled_from([b"%d" % number, b"a-b", b"a b", b'"a"', b"%41", b"", b"x" * 300, b"a\tb", b"\xc3\xa4"]))
        request = template.replace(b"LENGTH", b"%d" % len(body)).replace(b"SUBJECT", b"s%d" % number).replace(b"ID", identity)
        if number > 2 and draw(st.integers(0, 2)) == 0:
            at = draw(st.integers(0, len(request)))
            to = min(len(request), at + draw(st.integers(0, 3)))
            request = request[:at] + draw(_INSERTED | st.binary(max_size=2)) + request[to:]
        if number > 2 and draw(st.integers(0, 2)) == 0:
            pieces[-1] += request + body  # pipelined: one piece, two requests
        else:
            pieces.append(request + body)
    return pieces


def agrees(taken: list[Taken], stream: bytes) -> None:
    """What the mesh took is what h11 reads, one by one from the first."""
    assert taken == read_by_h11(stream)[: len(taken)]


@given(streams)
@bounded(30)
def test_good_requests_are_all_taken_wherever_the_bytes_are_cut(ingress: Ingress, stream: bytes) -> None:
    whole = ingress.feed([stream])
    taken, statuses, _ = whole
    assert taken == read_by_h11(stream)
    assert len([status for status in statuses if status != 100]) == len(taken)
    for at in range(1, len(stream), max(1, len(stream) // 60)):
        assert ingress.feed([stream[:at], stream[at:]]) == whole
    assert ingress.feed([stream[at : at + 1] for at in range(len(stream))]) == whole


def test_one_request_cut_at_every_byte(ingress: Ingress) -> None:
    head = b"POST /default/orders HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n"
    for rest in (
        b"content-length: 3\r\n\r\nabc",
        b"transfer-encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nx: y\r\n\r\n",
    ):
        stream = head + rest
        for at in range(len(stream) + 1):
            taken, statuses, _ = ingress.feed([stream[:at], stream[at:]])
            assert (len(taken), statuses) == (1, [202])
            taken, statuses, _ = ingress.feed([stream[:at]])
            assert len(taken) == (at == len(stream)), "a request that did not come whole was taken"
            assert statuses == ([202] if at == len(stream) else [])


@given(mutated())
@bounded(300)
@example(b"POST /default/orders HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;\n\r\nx\r\n0\r\n\r\n")
def test_damaged_requests_are_taken_as_they_read_or_not_at_all(ingress: Ingress, stream: bytes) -> None:
    taken, statuses, ended = ingress.feed([stream])
    agrees(taken, stream)
    final = [status for status in statuses if status != 100]
    assert len(final) - len(taken) in {0, 1}, "each is answered, and one refusal at most"
    assert ended or len(final) == len(taken), "who is refused is closed"
    assert all(200 <= status < 500 or status in {501, 505} for status in final)
    again, slowly, _ = ingress.feed([stream[at : at + 7] for at in range(0, len(stream), 7)])
    assert (again, [status for status in slowly if status < 400]) == (taken, [status for status in statuses if status < 400])


@given(mutated() | st.binary(max_size=400) | st.lists(_INSERTED, max_size=8).map(b"".join))
@bounded(100)
def test_over_a_socket_everything_is_answered_or_closed(ingress: Ingress, stream: bytes) -> None:
    ingress.taken.clear()
    got, orderly = ingress.send(stream)
    assert not ingress.raised
    agrees(ingress.taken, stream)
    assert orderly, "the server ends a connection in order, so that the client can read why"
    assert len([status for status, _ in answers_of(got) if status != 100]) - len(ingress.taken) in {0, 1}


@given(conversations())
@bounded(150)
def test_a_known_shape_changes_nothing(ingress: Ingress, pieces: list[bytes]) -> None:
    ingress.rig.server.shapes.allow()  # as each second does; this loop runs by fits and starts
    taken, statuses, _ = ingress.feed(pieces)
    agrees(taken, b"".join(pieces))
    # In two pieces each, the parser reads them all.
    again, slowly, _ = ingress.feed([part for piece in pieces for part in (piece[:5], piece[5:])])
    assert (again, [status for status in slowly if status < 400]) == (taken, [status for status in statuses if status < 400])


def test_shapes_were_known(ingress: Ingress) -> None:
    """Otherwise the property above says nothing."""
    ingress.rig.server.shapes.allow()
    before = ingress.recognised
    head = b"POST /default/orders HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: %d\r\nce-source: /s\r\nce-type: t\r\n"
    ingress.feed([head % number + b"content-length: 1\r\n\r\nx" for number in range(10)])
    assert ingress.recognised > before
