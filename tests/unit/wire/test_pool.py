"""The client's pools without sockets: who gets a connection, and what follows its end."""

import asyncio
from collections.abc import Callable

from eventing.wire.client import Connection, Origin
from tests.unit.wire.network import OK, REQUEST, Asker, Network, wire
from tests.unit.wire.transports import FakeTransport


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
