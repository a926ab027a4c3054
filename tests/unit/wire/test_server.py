"""The server's state machine: what it takes, what it refuses, what it bounds. Sockets are in test_server_sockets.py."""

import asyncio
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.wire.server import HttpServer, ServerLimits
from eventing.wire.server_connection import PIECE, PIECES_MAX
from tests.unit.wire.transports import Peer, answers_of

POST = b"POST /a HTTP/1.1\r\nhost: x\r\n"
SMALL = ServerLimits(body_bytes=100, header_bytes=1000, header_count=5, head_s=10, body_s=60, idle_s=75)


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (POST + b"content-length: 3\r\n\r\nabc", (b"POST", b"/a", b"abc")),
        (POST + b"\r\n", (b"POST", b"/a", b"")),
        (b"\r\n\r\n" + POST + b"content-length: 0\r\n\r\n", (b"POST", b"/a", b"")),
        (POST + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;ext=1\r\nc\r\n0\r\n\r\n", (b"POST", b"/a", b"abc")),
        (POST + b"Transfer-Encoding:  Chunked \r\n\r\n0\r\n\r\n", (b"POST", b"/a", b"")),
        (b"POST http://x/a?b HTTP/1.1\r\nhost: x\r\n\r\n", (b"POST", b"http://x/a?b", b"")),
        (b"POST /a HTTP/1.0\r\n\r\n", (b"POST", b"/a", b"")),
        (b"OPTIONS /a HTTP/1.1\r\nhost: x\r\n\r\n", (b"OPTIONS", b"/a", b"")),
    ],
)
async def test_what_is_taken(sent: bytes, seen: tuple[bytes, bytes, bytes]) -> None:
    peer = Peer().send(sent)
    assert peer.seen == [seen]
    assert peer.statuses == [202]
    assert peer.transport.closed == (b"HTTP/1.0" in sent)


@pytest.mark.parametrize(
    ("name", "status", "sent"),
    [
        ("length and coding", 400, POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("coding and length", 400, POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n"),
        ("folded header", 400, POST + b"x: a\r\n b\r\n\r\n"),
        ("bare LF", 400, b"POST /a HTTP/1.1\nhost: x\n\n"),
        ("one bare LF", 400, POST + b"x: a\ncontent-length: 0\r\n\r\n"),
        ("bare CR", 400, POST + b"x: a\rb\r\n\r\n"),
        ("two lengths", 400, POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
        ("length list", 400, POST + b"content-length: 3, 3\r\n\r\nabc"),
        ("signed length", 400, POST + b"content-length: +3\r\n\r\nabc"),
        ("hexadecimal length", 400, POST + b"content-length: 0x3\r\n\r\nabc"),
        ("length beyond 64 bits", 400, POST + b"content-length: 99999999999999999999999\r\n\r\n"),
        ("two hosts", 400, POST + b"host: x\r\n\r\n"),
        ("no host", 400, b"POST /a HTTP/1.1\r\n\r\n"),
        ("unknown coding", 501, POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("coding not last", 400, POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ("two codings", 501, POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("space before the colon", 400, POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("bad chunk size", 400, POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n"),
        ("bare LF in a chunk", 400, POST + b"transfer-encoding: chunked\r\n\r\n1\nx\n0\n\n"),
        ("chunk size beyond 64 bits", 400, POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
        ("chunk longer than said", 400, POST + b"transfer-encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n"),
        ("length in a trailer", 400, POST + b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 9\r\n\r\n"),
        ("NUL in a value", 400, POST + b"x: a\0b\r\n\r\n"),
        ("bad name", 400, POST + b"x(y): a\r\n\r\n"),
        ("empty name", 400, POST + b": a\r\n\r\n"),
        ("space in the target", 400, b"POST /a b HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("unknown method", 405, b"FOO / HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("unknown version", 400, b"POST / HTTP/1.2\r\nhost: x\r\n\r\n"),
        ("HTTP/2 preface", 400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS", 405, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("coding in HTTP/1.0", 400, b"POST /a HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("HTTP/0.9", 505, b"POST /a\r\n\r\n"),
        ("HTTP/2 without a preface", 505, b"POST /a HTTP/2.0\r\nhost: x\r\n\r\n"),
        ("tunnel", 405, b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\nbytes"),
    ],
)
async def test_what_is_refused(name: str, status: int, sent: bytes) -> None:
    """A13; and nothing behind it is looked at."""
    peer = Peer().send(sent + POST + b"content-length: 0\r\n\r\n")
    assert peer.statuses == [status], name
    assert peer.seen == []
    assert peer.refusals[0][0] == status
    assert peer.transport.eof
    assert b"connection: close\r\n" in peer.transport.written
    peer.send(POST + b"\r\n")
    assert peer.statuses == [status]


async def test_a_refusal_says_why_as_a_problem() -> None:
    peer = Peer().send(b"POST /a HTTP/1.1\r\n\r\n")
    assert b"content-type: application/problem+json\r\n" in peer.transport.written
    ((status, body),) = answers_of(peer.transport.written)
    problem = json.loads(body)
    assert (problem["status"], problem["title"]) == (status, "Bad Request")
    assert "Host" in problem["detail"]


async def test_pipelined_requests_are_answered_in_order() -> None:
    peer = Peer()
    peer.send(b"".join(b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n%d" % (n, n) for n in range(9)))
    assert peer.seen == [(b"POST", b"/%d" % n, b"%d" % n) for n in range(9)]
    assert peer.statuses == [202] * 9


async def test_pipelined_requests_wait_for_the_answer_before_them() -> None:
    peer = Peer(answer=False)
    peer.send(b"".join(b"POST /%d HTTP/1.1\r\nhost: x\r\n\r\n" % n for n in range(3)) + b"POST /3 HTTP/1.1\r\nho")
    assert [target for _, target, _ in peer.seen] == [b"/0"]
    assert not peer.transport.reading, "what is not wanted yet is not read"
    for number in range(3):
        peer.requests[number].respond(200, b"", b"%d" % number)
        await asyncio.sleep(0)
    assert [target for _, target, _ in peer.seen] == [b"/0", b"/1", b"/2"]
    assert answers_of(peer.transport.written) == [(200, b"0"), (200, b"1"), (200, b"2")]
    assert peer.transport.reading
    peer.connection.check_time(asyncio.get_running_loop().time() + 11)
    assert peer.statuses[-1] == 408, "the head that has begun to come is still timed"


async def test_a_request_is_answered_once() -> None:
    peer = Peer().send(POST + b"\r\n")
    with pytest.raises(RuntimeError, match="once"):
        peer.requests[0].respond(200)


async def test_an_answer_to_a_client_that_has_gone_is_dropped() -> None:
    peer = Peer(answer=False).send(POST + b"\r\n")
    peer.connection.connection_lost(None)
    peer.requests[0].respond(202)
    assert peer.transport.written == b""
    assert not peer.server.connections


async def test_a_client_may_close_its_side_and_read_the_answer() -> None:
    peer = Peer(answer=False).send(POST + b"\r\n")
    assert peer.connection.eof_received()
    peer.requests[0].respond(202)
    assert peer.statuses == [202]
    assert peer.transport.closed


async def test_half_a_request_and_the_end_is_the_end() -> None:
    assert not Peer().send(POST + b"content-length: 5\r\n\r\nab").connection.eof_received()
    assert not Peer().connection.eof_received()


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_connection_close(version: bytes) -> None:
    peer = Peer().send(b"POST / " + version + b"\r\nhost: x\r\nconnection: close\r\n\r\n" + POST + b"\r\n")
    assert len(peer.requests) == 1
    assert peer.statuses == [202]
    assert b"connection: close\r\n" in peer.transport.written
    assert peer.transport.closed


async def test_http_1_0_keeps_the_connection_where_asked() -> None:
    """And is told so: ApacheBench (`ab -k`) waits for the end otherwise."""
    peer = Peer()
    for number in range(6):  # that is often enough for a shape to be learnt
        peer.send(b"POST / HTTP/1.0\r\nconnection: keep-alive\r\nce-id: %d\r\ncontent-length: 0\r\n\r\n" % number)
    assert peer.statuses == [202] * 6
    assert peer.transport.written.count(b"connection: keep-alive\r\n") == 6
    peer.send(POST + b"connection: keep-alive\r\n\r\n")
    assert peer.transport.written.count(b"connection: keep-alive\r\n") == 6, "HTTP/1.1 does so by itself"
    peer.send(b"POST / HTTP/1.0\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    assert peer.transport.written.endswith(b"connection: close\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue "])
async def test_who_expects_100_continue_gets_it(value: bytes) -> None:
    peer = Peer().send(POST + b"expect: " + value + b"\r\ncontent-length: 3\r\n\r\n")
    assert peer.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.send(b"abc", POST + b"content-length: 1\r\n\r\n", b"x")
    assert peer.statuses == [100, 202, 202]
    assert [body for _, _, body in peer.seen] == [b"abc", b"x"]


async def test_who_expects_100_continue_and_is_too_large_gets_413_instead() -> None:
    peer = Peer(SMALL).send(POST + b"expect: 100-continue\r\ncontent-length: 101\r\n\r\n")
    assert peer.statuses == [413]


@pytest.mark.parametrize(
    "upgrade", [b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n", b"connection: Upgrade\r\nupgrade: websocket\r\n"]
)
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"content-length: 3\r\n\r\nabc", b"abc"),
        (b"content-length: 0\r\n\r\n", b""),
        (b"\r\n", b""),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
    ],
)
async def test_an_offer_to_upgrade_is_ignored_and_the_body_is_read(upgrade: bytes, framing: bytes, body: bytes) -> None:
    """Java's HttpClient offers h2c with every first request of a connection."""
    sent = POST + b"ce-id: 1\r\n" + upgrade + framing + b"POST /b HTTP/1.1\r\nhost: y\r\n\r\n"
    for split in (len(sent), 1, 7):
        peer = Peer().send(*(sent[at : at + split] for at in range(0, len(sent), split)))
        assert peer.seen == [(b"POST", b"/a", body), (b"POST", b"/b", b"")]
        assert peer.requests[0].header(b"ce-id") == b"1"
        assert (peer.requests[0].host, peer.requests[1].host) == (b"x", b"y")
        assert peer.statuses == [202, 202]
        assert not peer.transport.closed
    peer = Peer(SMALL).send(POST + upgrade + b"transfer-encoding: chunked\r\n\r\n" + b"65\r\n" + b"x" * 0x65)
    assert peer.statuses == [413]
    peer = Peer().send(POST + upgrade.replace(b"connection: ", b"connection: close, ") + framing)
    assert peer.statuses == [202]
    assert peer.transport.closed


async def test_trailers_do_not_become_headers() -> None:
    peer = Peer().send(
        POST + b"ce-id: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nce-id: 2\r\nexpect: 100-continue\r\nhost: z\r\n\r\n"
    )
    assert [(name.lower, value) for name, value in peer.requests[0].headers] == [(b"ce-id", b"1")]
    assert peer.requests[0].host == b"x"
    peer.send(POST + b"content-length: 1\r\n\r\n")
    assert peer.statuses == [202]


# bounds


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("by length", b"content-length: 101\r\n\r\n"),
        ("by chunks", b"transfer-encoding: chunked\r\n\r\n32\r\n" + b"x" * 50 + b"\r\n33\r\n" + b"x" * 51),
    ],
)
async def test_a_body_beyond_the_limit(name: str, sent: bytes) -> None:
    peer = Peer(SMALL).send(POST + sent)
    assert peer.statuses == [413], name
    assert peer.seen == []
    assert peer.refusals[0][0] == 413
    assert Peer(SMALL).send(POST + b"content-length: 100\r\n\r\n" + b"x" * 100).statuses == [202]


async def test_a_head_beyond_the_limit() -> None:
    for piece in (b"x: y\r\n", b"ce-x: " + b"y" * 500 + b"\r\n", b"z" * 100):
        peer = Peer(SMALL)
        peer.send(POST)
        sent = 0
        while not peer.transport.eof and sent < 10 * PIECE:
            peer.send(piece)
            sent += len(piece)
        assert peer.statuses == [431]
        assert sent <= SMALL.header_bytes + PIECE + len(piece)
    assert Peer(SMALL).send(POST + b"x: " + b"y" * 100_000).statuses == [431], "whatever its pieces"
    assert Peer(SMALL).send(b"POST /" + b"a" * 100_000).statuses == [431]


async def test_headers_are_counted_before_the_head_is_whole() -> None:
    peer = Peer(ServerLimits(header_count=100)).send(POST + b"x: y\r\n" * 60, b"x: y\r\n" * 60)
    assert peer.statuses == [431]
    assert peer.connection._headers == []


async def test_a_body_of_tiny_chunks_is_not_kept_as_tiny_pieces() -> None:
    peer = Peer().send(POST + b"transfer-encoding: chunked\r\n\r\n")
    chunks = [b"2\r\n%b\r\n" % (b"%02d" % (number % 100)) for number in range(40_000)]
    for at in range(0, len(chunks), 500):
        peer.send(b"".join(chunks[at : at + 500]))
        assert len(peer.connection._body) <= PIECES_MAX + 500
    peer.send(b"0\r\n\r\n")
    assert peer.statuses == [202]
    assert peer.seen[0][2] == b"".join(b"%02d" % (number % 100) for number in range(40_000))


async def test_what_is_kept_of_requests_that_have_not_come_whole_is_bounded_over_all_connections() -> None:
    """Ten thousand connections with a megabyte each would be ten gigabytes."""
    server = Peer(ServerLimits(held_bytes=100_000)).server
    holding = [Peer(server=server).send(POST + b"content-length: 50000\r\n\r\n" + b"x" * 20_000) for _ in range(4)]
    one_too_many = Peer(server=server).send(POST + b"content-length: 50000\r\n\r\n", *[b"x" * 10_000] * 5)
    assert one_too_many.statuses == [503]
    assert b"retry-after: 1\r\n" in one_too_many.transport.written
    whole = Peer(server=server).send(POST + b"content-length: 5\r\n\r\nabcde")
    assert whole.statuses == [202], "a request that comes whole is not concerned"
    for peer in holding[:2]:
        peer.connection.connection_lost(None)
    assert 40_000 < server.held_bytes < 45_000
    for peer in holding[2:]:
        peer.send(b"x" * 30_000)
        assert peer.statuses == [202]
    assert server.held_bytes == 0
    refused = Peer(server=server).send(POST + b"content-length: 50000\r\n\r\n" + b"x" * 20_000)
    refused.connection.check_time(asyncio.get_running_loop().time() + 61)
    assert refused.statuses == [408]
    assert server.held_bytes == 0


async def test_too_many_headers() -> None:
    assert Peer(SMALL).send(POST + b"".join(b"ce-a%d: x\r\n" % n for n in range(6)) + b"\r\n").statuses == [431]
    assert Peer(SMALL).send(POST + b"x: y\r\n" * 6 + b"\r\n").statuses == [431], "those that mean nothing too"
    peer = Peer(SMALL)
    for _ in range(3):
        peer.send(POST + b"".join(b"ce-a%d: x\r\n" % n for n in range(3)) + b"x: y\r\n" * 2 + b"\r\n")
    assert peer.statuses == [202] * 3


@pytest.mark.parametrize("endless", [b"0\r\nx: " + b"y" * 1000, b"0\r\n" + b"x: y\r\n" * 100, b"5;" + b"e" * 1000])
async def test_endless_trailers_and_chunk_extensions(endless: bytes) -> None:
    peer = Peer(SMALL).send(POST + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n", endless)
    sent = 0
    while not peer.transport.eof and sent < 10 * PIECE:
        peer.send(b"y" * 100 if not endless.endswith(b"\n") else b"x: y\r\n")
        sent += 100
    assert peer.statuses == [431]


async def test_large_bodies_one_behind_the_other_are_no_large_heads() -> None:
    request = POST + b"content-length: 60000\r\n\r\n" + b"x" * 60_000
    stream = request * 5
    for size in (1000, 4096, PIECE, 65_536, 100_000):
        peer = Peer(ServerLimits(header_bytes=1000)).send(*(stream[at : at + size] for at in range(0, len(stream), size)))
        assert peer.statuses == [202] * 5, size


async def test_a_client_that_reads_no_answers_is_given_none() -> None:
    peer = Peer()
    peer.connection.pause_writing()
    assert not peer.transport.reading
    peer.send(POST + b"\r\n")  # was on its way
    assert not peer.transport.reading, "an answer must not open the gate again"
    peer.connection.resume_writing()
    assert peer.transport.reading
    peer.answering = False
    peer.send(POST + b"\r\n")
    peer.connection.pause_writing()
    peer.connection.resume_writing()
    assert not peer.transport.reading, "the answer is still due"
    peer.requests[-1].respond(202)
    assert peer.transport.reading


async def test_too_many_connections() -> None:
    peer = Peer(ServerLimits(connections=0))
    assert peer.statuses == [503]
    assert b"retry-after: 1\r\n" in peer.transport.written


async def test_what_takes_too_long() -> None:
    now = asyncio.get_running_loop().time()
    idle = Peer(SMALL)
    idle.connection.check_time(now + 70)
    assert not idle.transport.closed
    idle.connection.check_time(now + 76)
    assert idle.transport.aborted
    assert idle.transport.written == b""

    head = Peer(SMALL).send(POST)
    head.connection.check_time(now + 9)
    assert head.statuses == []
    head.connection.check_time(now + 11)
    assert head.statuses == [408]
    head.connection.check_time(now + 14)
    assert head.transport.aborted, "a refused client may not stay"

    body = Peer(SMALL).send(POST + b"content-length: 2\r\n\r\nx")
    body.connection.check_time(now + 59)
    assert body.statuses == []
    body.connection.check_time(now + 61)
    assert body.statuses == [408]

    working = Peer(SMALL, answer=False).send(POST + b"\r\n")
    working.connection.check_time(now + 1000)
    assert not working.transport.closed, "the time that an answer takes is the application's"


async def test_what_came_whole_is_answered_before_a_refusal_closes() -> None:
    peer = Peer(answer=False).send(POST + b"\r\n" + b"nonsense\r\n\r\n")
    assert peer.statuses == []
    assert peer.refusals
    peer.requests[0].respond(202)
    assert peer.statuses == [202]
    assert peer.transport.eof or peer.transport.closed


async def test_answers_say_their_length_and_head_has_no_body() -> None:
    peer = Peer(answer=False).send(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
    peer.requests[0].respond(200, b"x: y\r\n", b"body")
    assert peer.transport.written.endswith(b"x: y\r\ncontent-length: 4\r\n\r\n")


async def test_what_an_application_raises_is_not_hidden() -> None:
    def application(_request: object) -> None:
        raise LookupError("a fault of the program")

    peer = Peer()
    peer.server.application = application
    with pytest.raises(Exception, match=r"(?i)callback|fault") as raised:
        peer.send(POST + b"\r\n")
    assert not isinstance(raised.value, AssertionError)


# fuzz

_PIECES = [
    POST, b"POST / HTTP/1.1\r\n", b"host: x\r\n", b"\r\n", b"content-length: 3\r\n", b"content-length: ", b"abc", b"0\r\n\r\n",
    b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n", b"expect: 100-continue\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"connection: close\r\n", b"ce-id: 1\r\n", b"\n", b" ", b"\0", b"CONNECT a:1 HTTP/1.1\r\n", b"x" * 300, b"GET /b HTTP/1.0\r\n",
]  # fmt: skip


async def _outcome(stream: bytes, sizes: list[int]) -> tuple[object, ...]:
    peer = Peer(SMALL)
    at = 0
    for size in sizes:
        peer.send(stream[at : at + size])
        at += size
    peer.send(stream[at:])
    return peer.seen, [[(name.lower, value) for name, value in r.headers] for r in peer.requests], peer.statuses


@given(st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=8)), max_size=12), st.randoms(use_true_random=False))
def test_how_the_bytes_are_cut_makes_no_difference(pieces: list[bytes], rand: random.Random) -> None:
    stream = b"".join(pieces)
    sizes = [rand.randint(1, 40) for _ in range(rand.randint(0, 60))]

    async def compare() -> None:
        whole = await _outcome(stream, [])
        assert await _outcome(stream, sizes) == whole
        assert await _outcome(stream, [1] * len(stream)) == whole

    asyncio.run(compare())


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_random_bytes_raise_nothing(pieces: list[bytes]) -> None:
    async def send() -> None:
        peer = Peer(SMALL).send(*pieces)
        assert not peer.requests or peer.statuses
        peer.connection.eof_received()
        peer.connection.connection_lost(None)
        assert not peer.server.connections

    asyncio.run(send())


def test_the_server_is_described_by_its_limits() -> None:
    assert HttpServer(lambda _request: None).limits == ServerLimits()
