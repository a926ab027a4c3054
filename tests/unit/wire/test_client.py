"""The client's connections and pools without sockets: who gets a connection, what an answer is, and what follows its end."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.bindings.http import HeaderName, HeaderNames
from eventing.wire.client import JOIN_MAX, READ_MAX, ClientLimits, Connection, Memo, Origin, ResponseFailure
from eventing.wire.pool import Pool
from tests.unit.wire.transports import FakeTransport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\n", b"content-length: 1\r\n\r\n", b"x"


class Asker:
    """Waits at a pool, sends one request, and notes what became of it."""

    def __init__(self, name: str = "", *, under_way: int = 0, starving: bool = False, patience_s: float = 1e9) -> None:
        self.name = name
        self.under_way = under_way
        self._starving = starving
        self._patience_s = patience_s
        self.got: Connection | None = None
        self.answers: list[tuple[int, list[tuple[bytes, bytes]], bytes]] = []
        self.failures: list[ResponseFailure] = []

    def starving(self, now: float) -> bool:
        return self._starving

    def overdue(self, now: float) -> bool:
        return now > self._patience_s

    def connected(self, connection: Connection) -> None:
        self.got = connection

    def unconnected(self, failure: ResponseFailure) -> None:
        self.failures.append(failure)

    def responded(self, connection: Connection, status: int, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None:
        self.answers.append((status, [(name.lower, value) for name, value in headers], body))
        connection.pool.put(connection)

    def failed(self, connection: Connection, failure: ResponseFailure) -> None:
        self.failures.append(failure)


class Network:
    """Opens connections on fake transports when the test says so; `fail` makes the next attempts fail."""

    def __init__(self, *, limit: int = 3, automatic: bool = True, limits: ClientLimits | None = None) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.opened: list[Connection] = []
        self.gate = asyncio.Event()
        self.fail: Exception | None = None
        if automatic:
            self.gate.set()
        self.pool = Pool(
            Origin("http", "x", 80), self._connect, self._spawn, names=HeaderNames(), limit=limit, limits=limits, connect_s=5
        )

    async def _connect(self, _origin: Origin, factory: Callable[[], Connection]) -> None:
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        connection = factory()
        connection.connection_made(FakeTransport())
        self.opened.append(connection)

    def _spawn(self, coroutine: Awaitable[None]) -> object:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def wire(connection: Connection) -> FakeTransport:
    transport: Any = connection.transport
    assert isinstance(transport, FakeTransport)
    return transport


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


# pools


async def test_the_limit_and_the_order_of_asking() -> None:
    network = Network(limit=2)
    askers = [Asker(str(number)) for number in range(5)]
    for asker in askers:
        network.pool.wait(asker)
    await network.settle()
    assert [bool(asker.got) for asker in askers] == [True, True, False, False, False]
    assert len(network.opened) == network.pool.open_connections == 2
    assert network.pool.take() is None, "nobody passes those who wait"
    first = askers[0].got
    assert first is not None
    for asker in askers[2:]:
        network.pool.put(first)
        assert asker.got is first
    network.pool.put(first)
    assert network.pool.take() is first


async def test_whoever_waits_gets_a_connection_as_long_as_there_is_room() -> None:
    """Not only whoever asked for one to be opened: connections under way never end by themselves here."""
    network = Network(limit=10, automatic=False)
    askers = [Asker() for _ in range(8)]
    for asker in askers:
        network.pool.wait(asker)
    network.gate.set()
    await network.settle()
    await network.settle()
    assert all(asker.got for asker in askers)


async def test_a_failed_connect_is_told_to_all_who_wait_and_the_next_may_succeed() -> None:
    network = Network()
    for error, kind in (
        (ConnectionRefusedError("no"), "ConnectFailed"), (PermissionError("denied"), "AddressDenied"),
        (UnicodeError("label too long"), "ConnectFailed"), (TimeoutError(), "ConnectTimeout"),
    ):  # fmt: skip
        network.fail = error
        askers = [Asker(), Asker(), Asker()]
        for asker in askers:
            network.pool.wait(asker)
        await network.settle()
        assert [asker.failures[0].kind for asker in askers] == [kind] * 3
    network.fail = None
    asker = Asker()
    network.pool.wait(asker)
    await network.settle()
    assert asker.got is not None
    assert network.pool.open_connections == 1


async def test_connecting_takes_no_longer_than_it_may() -> None:
    network = Network(automatic=False)
    network.pool._connect_s = 0.01
    asker = Asker()
    network.pool.wait(asker)
    async with asyncio.timeout(5):
        while not asker.failures:
            await asyncio.sleep(0.005)
    assert asker.failures[0].kind == "ConnectTimeout"
    await network.settle()
    assert not network.tasks


async def test_a_server_that_closes_at_once_is_a_failure_and_not_an_endless_loop() -> None:
    network = Network()

    async def closing(_origin: Origin, factory: Callable[[], Connection]) -> None:
        connection = factory()
        connection.connection_made(FakeTransport())
        network.opened.append(connection)
        connection.eof_received()
        connection.connection_lost(None)

    network.pool._connector = closing
    asker = Asker()
    network.pool.wait(asker)
    await network.settle()
    assert [failure.kind for failure in asker.failures] == ["ConnectionLost"]
    assert len(network.opened) == 1


async def test_a_stale_connection_has_its_request_sent_once_more_with_its_delivery() -> None:
    network = Network(limit=2)
    askers = [Asker("a"), Asker("b")]
    for asker in askers:
        network.pool.wait(asker)
    await network.settle()
    stale, other = askers[0].got, askers[1].got
    assert stale is not None
    assert other is not None
    for asker, connection in zip(askers, (stale, other), strict=True):
        connection.send(asker, *REQUEST, 1e9)
        connection.data_received(OK)
    assert network.pool.take() is other
    assert network.pool.take() is stale
    stale.lease, stale.number, stale.started = "the lease", 3, 42.0
    stale.send(askers[0], b"p", b"h", b"again", 77.0)
    network.pool.put(other)
    other.lease = "another"
    stale.connection_lost(ConnectionResetError())
    assert wire(other).written.endswith(b"again")
    assert (other.lease, other.number, other.started, other.deadline) == ("the lease", 3, 42.0, 77.0)
    other.connection_lost(None)
    assert [failure.kind for failure in askers[0].failures] == ["ConnectionLost"], "not a third time"


async def test_a_first_request_is_not_sent_again() -> None:
    asker = await answered(end=True)
    assert [failure.kind for failure in asker.failures] == ["ConnectionLost"]


async def test_what_takes_too_long_expires() -> None:
    network = Network()
    asker, waiting = Asker(), Asker()
    network.pool.wait(asker)
    await network.settle()
    assert asker.got is not None
    asker.got.send(asker, *REQUEST, 10.0)
    network.pool.wait(waiting)
    network.pool.sweep(9.0)
    assert asker.failures == []
    network.pool.sweep(11.0)
    assert [failure.kind for failure in asker.failures] == ["Timeout"]
    await network.settle()
    assert waiting.got is not None


async def test_who_starves_gets_a_connection_beyond_the_limit() -> None:
    network = Network(limit=2)
    stuck = [Asker(under_way=2) for _ in range(4)]
    for asker in stuck:
        network.pool.wait(asker)
    await network.settle()
    starving = Asker(starving=True)
    network.pool.wait(starving)
    network.pool.sweep(0.0)
    network.pool.sweep(0.0)
    await network.settle()
    assert network.pool.open_connections == 3
    assert starving.got is not None
    for asker in stuck:
        if asker.got is not None:
            network.pool.put(asker.got)
    network.pool.put(starving.got)
    for asker in stuck[2:]:
        assert asker.got is not None
        network.pool.put(asker.got)
    network.pool.sweep(0.0)
    assert network.pool.open_connections == 2


async def test_who_has_gone_elsewhere_is_offered_nothing() -> None:
    network = Network(automatic=False)
    gone, there = Asker(), Asker()
    network.pool.wait(gone)
    network.pool.wait(there)
    network.pool.forget(gone)
    network.pool.forget(gone)
    network.gate.set()
    await network.settle()
    assert gone.got is None
    assert there.got is not None


async def test_nobody_waits_longer_for_a_connection_than_an_attempt_may_take() -> None:
    network = Network(automatic=False)
    hasty, patient = Asker(patience_s=1.0), Asker(patience_s=9.0)
    network.pool.wait(hasty)
    network.pool.wait(patient)
    network.pool.sweep(0.5)
    assert hasty.failures == []
    network.pool.sweep(1.5)
    assert [failure.kind for failure in hasty.failures] == ["ConnectTimeout"]
    network.gate.set()
    await network.settle()
    assert hasty.got is None
    assert patient.got is not None


async def test_a_request_to_be_sent_again_keeps_the_deadline_that_it_had() -> None:
    network = Network(limit=1)
    asker = Asker()
    network.pool.wait(asker)
    await network.settle()
    connection = asker.got
    assert connection is not None
    connection.send(asker, *REQUEST, 5.0)
    connection.data_received(OK)
    assert network.pool.take() is connection
    network.gate.clear()
    connection.send(asker, *REQUEST, 5.0)
    connection.connection_lost(None)
    network.pool.sweep(4.0)
    assert asker.failures == []
    network.pool.sweep(6.0)
    assert [failure.kind for failure in asker.failures] == ["Timeout"]


async def test_a_closed_pool_lets_nobody_wait() -> None:
    network = Network(limit=1)
    asker, waiting, late = Asker(), Asker(), Asker()
    network.pool.wait(asker)
    await network.settle()
    connection = asker.got
    assert connection is not None
    connection.send(asker, *REQUEST, 1e9)
    connection.data_received(OK)
    assert network.pool.take() is connection
    connection.send(asker, *REQUEST, 1e9)
    network.pool.wait(waiting)
    network.pool.close()
    connection.connection_lost(None)
    network.pool.wait(late)
    await network.settle()
    for each in (asker, waiting, late):
        assert [failure.kind for failure in each.failures] == ["ConnectionLost"]
    assert network.pool.open_connections == 0


async def test_idle_connections_that_were_closed_are_not_given_out() -> None:
    network = Network()
    asker = Asker()
    network.pool.wait(asker)
    await network.settle()
    assert asker.got is not None
    network.pool.put(asker.got)
    asker.got.eof_received()
    assert network.pool.take() is None
    assert not network.pool.unused(0.0, 10.0)
    assert network.pool.unused(11.0, 10.0)
    network.pool.close_idle()
    assert network.pool.open_connections == 0


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
