"""The client's connections without sockets: what an answer is, and what is none."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.wire.client import JOIN_MAX, READ_MAX, ClientLimits, Memo
from tests.unit.wire.network import OK, REQUEST, Asker, Network, wire


async def answered(*chunks: bytes, end: bool = False, **options: Any) -> Asker:
    """One exchange on a new connection."""
    network = Network(**options)
    asker = Asker()
    network.pool.wait(asker)
    await network.settle()
    assert asker.got is not None
    asker.got.send(asker, *REQUEST, 1e9)
    for chunk in chunks:
        if asker.got.transport is not None:
            asker.got.data_received(chunk)
    if end and asker.got.transport is not None:
        asker.got.eof_received()
        asker.got.connection_lost(None)
    return asker


@pytest.mark.parametrize(
    ("sent", "status", "headers", "body"),
    [
        (OK, 200, [], b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nCE-ID: 1\r\nserver: x\r\n\r\nabc", 200, [(b"ce-id", b"1")], b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, [], b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nce-id: 2\r\n\r\n", 200, [], b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, [], b""),
        (
            b"HTTP/1.1 503 No\r\nX-Reason: why\r\nRetry-After: 7\r\nServer: x\r\ncontent-length: 0\r\n\r\n",
            503,
            [(b"x-reason", b"why"), (b"retry-after", b"7"), (b"server", b"x"), (b"content-length", b"0")],
            b"",
        ),
        (
            b"HTTP/1.1 301\r\nLocation: /x\r\nDate: now\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nserver: late\r\n\r\n",
            301,
            [(b"location", b"/x"), (b"date", b"now"), (b"transfer-encoding", b"chunked")],
            b"a",
        ),
        (
            b"HTTP/1.1 103 X\r\nlink: early\r\n\r\nHTTP/1.1 400 \r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 0\r\n\r\n",
            400,
            [(b"x-a", b"1"), (b"x-a", b"2"), (b"content-length", b"0")],
            b"",
        ),
    ],
)
def test_answers(sent: bytes, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """However they are cut, once parsed and once remembered; and the connection is used again."""

    async def main() -> None:
        for size in (len(sent), 1, 5):
            asker = await answered(*(sent[at : at + size] for at in range(0, len(sent), size)))
            assert asker.answers == [(status, headers, body)]
            connection = asker.got
            assert connection is not None
            assert connection.pool.idle == [connection]
            for _ in range(3):
                again = connection.pool.take()
                assert again is connection
                again.send(asker, *REQUEST, 1e9)
                again.data_received(sent)
            assert asker.answers == [(status, headers, body)] * 4

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", "ConnectionLost"),
        (b"HTTP/1.1 200 OK\r\ncontent-len", "ConnectionLost"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", "ConnectionLost"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "ConnectionLost"),
        (b"nonsense\r\n\r\n", "ProtocolError"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "ProtocolError"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nx: y\n\r\n", "ProtocolError"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20, "HeadersTooLarge"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2000, "HeadersTooLarge"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + b"x" * 101, "BodyTooLarge"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101, "BodyTooLarge"),
    ],
)
async def test_answers_that_are_none(sent: bytes, kind: str) -> None:
    for size in (len(sent) or 1, 1, 7):
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        asker = await answered(*pieces, end=True, limits=ClientLimits(header_bytes=1000, header_count=10, body_bytes=100))
        assert asker.answers == []
        assert [failure.kind for failure in asker.failures] == [kind]
        assert asker.got is not None
        assert asker.got.pool.open_connections == 0


async def test_a_body_without_length_ends_with_the_connection() -> None:
    asker = await answered(b"HTTP/1.1 200 OK\r\n\r\nab", b"c", end=True)
    assert asker.answers == [(200, [], b"abc")]
    assert asker.got is not None
    assert asker.got.pool.open_connections == 0


@pytest.mark.parametrize("sent", [OK + OK, OK + b"rubbish", OK + b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", OK + b"H"])
async def test_what_comes_behind_an_answer_costs_the_connection_and_nothing_else(sent: bytes) -> None:
    asker = await answered(sent)
    assert asker.answers == [(200, [], b"")]
    assert asker.failures == []
    assert asker.got is not None
    late = asker.got
    if late.transport is not None:  # it came as one piece too late to be seen
        late.data_received(b"TTP/1.1 200 OK\r\n")
    assert late.transport is None


@pytest.mark.parametrize("event", [True, False])
@pytest.mark.parametrize("status", [200, 500])
async def test_a_long_body_is_kept_where_it_is_an_event(event: bool, status: int) -> None:
    """So that answers in hand cost little, however many there are and whatever they say."""
    size = 1 << 19
    head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n" % (status, size, b"ce-specversion: 1.0\r\n" if event else b"")
    asker = await answered(head, *[b"x" * 1024] * (size // 1024))
    ((got, _, body),) = asker.answers
    assert got == status
    assert len(body) == (size if event else READ_MAX)
    assert asker.got is not None
    assert asker.got.transport is not None, "it is read to its end, and the connection kept"


async def test_an_answer_nobody_asked_for_ends_the_connection() -> None:
    asker = await answered(OK)
    assert asker.got is not None
    asker.got.data_received(OK)
    assert asker.got.transport is None
    assert asker.got.pool.take() is None


@given(st.binary(max_size=100), st.randoms(use_true_random=False))
def test_any_bytes_end_in_exactly_one_way(noise: bytes, rand: random.Random) -> None:
    pieces = [
        OK,
        noise,
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"transfer-encoding: chunked\r\n",
        b"1\r\nx\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 103 X\r\n\r\n",
    ]
    stream = b"".join(rand.choices(pieces, k=rand.randint(0, 6)))
    cuts = sorted(rand.randint(0, len(stream)) for _ in range(5))

    async def outcome(*chunks: bytes) -> object:
        asker = await answered(*chunks, end=True)
        assert len(asker.answers) + len(asker.failures) == 1
        return asker.answers or asker.failures[0].kind

    async def main() -> None:
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        whole = await outcome(stream)
        assert await outcome(*filter(None, chunks)) == whole

    asyncio.run(main())


async def test_large_payloads_are_not_copied_together() -> None:
    asker = await answered()
    assert asker.got is not None
    asker.got.send(asker, b"p", b"h", b"x" * JOIN_MAX, 1e9)
    assert wire(asker.got).written.endswith(b"ph" + b"x" * JOIN_MAX)


async def test_a_first_request_is_not_sent_again() -> None:
    asker = await answered(end=True)
    assert [failure.kind for failure in asker.failures] == ["ConnectionLost"]


def test_what_is_remembered_of_answers_is_bounded() -> None:
    memo = Memo()
    for number in range(1000):
        memo.learn(b"HTTP/1.1 200 OK\r\nx: %d\r\n\r\n" % number, 200, [])
    assert len(memo) <= Memo.ENTRIES_MAX
    for number in range(1000, 3000):
        memo.learn(b"HTTP/1.1 200 OK\r\nx: %d\r\n\r\n" % number, 200, [])
    before = dict(memo)
    memo.learn(b"HTTP/1.1 200 OK\r\nnew: 1\r\n\r\n", 200, [])
    assert memo == before, "where every answer differs it stops learning"
    memo = Memo()
    memo.learn(b"x" * 600 + b"\r\n\r\n", 200, [])
    memo.learn(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, [])
    memo.learn(b"HTTP/1.1 100 Continue\r\n\r\n", 100, [])
    assert not memo
