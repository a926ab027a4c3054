"""Names to addresses: F20."""

import asyncio
import socket
import threading
from collections.abc import Sequence

import pytest

from eventing.delivery.resolver import Resolver, look_up

WITHIN_S = 10.0


class Servers:
    """Name servers of which some do not answer until the test lets them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("dead"):
            assert self.answer.wait(WITHIN_S)
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")
        return ["192.0.2.1", "192.0.2.2"]


async def test_addresses_are_not_asked_for() -> None:
    servers = Servers()
    resolver = Resolver(servers)
    assert await resolver("127.0.0.1") == ("127.0.0.1",)
    assert await resolver("::1") == ("::1",)
    assert servers.asked == []


async def test_names_whose_servers_do_not_answer_hold_up_no_other_name_and_not_the_loop() -> None:
    servers = Servers()
    resolver = Resolver(servers)
    dead = [asyncio.create_task(resolver(f"dead{number}")) for number in range(50)]
    async with asyncio.timeout(WITHIN_S):
        assert await resolver("alive") == ["192.0.2.1", "192.0.2.2"]
    assert not any(task.done() for task in dead)
    servers.answer.set()
    failures = await asyncio.gather(*dead, return_exceptions=True)
    assert {type(failure) for failure in failures} == {socket.gaierror}


async def test_one_question_serves_all_who_ask_it_and_outlives_who_gave_up() -> None:
    servers = Servers()
    resolver = Resolver(servers)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolver("dead")
    waiting = [asyncio.create_task(resolver("dead")) for _ in range(10)]
    await asyncio.sleep(0)
    servers.answer.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert servers.asked == ["dead"]
    with pytest.raises(socket.gaierror):
        await resolver("dead")
    assert servers.asked == ["dead", "dead"], "a failure is not kept"


async def test_no_more_than_so_many_names_at_a_time() -> None:
    servers = Servers()
    resolver = Resolver(servers, at_a_time=2)
    dead = [asyncio.create_task(resolver(f"dead{number}")) for number in range(2)]
    await asyncio.sleep(0)
    alive = asyncio.create_task(resolver("alive"))
    async with asyncio.timeout(WITHIN_S):
        while len(servers.asked) < 2:
            await asyncio.sleep(0.005)
    assert set(servers.asked) == {"dead0", "dead1"}, "and not the third"
    servers.answer.set()
    assert await alive == ["192.0.2.1", "192.0.2.2"]
    await asyncio.gather(*dead, return_exceptions=True)


async def test_closing_leaves_nobody_waiting() -> None:
    servers = Servers()
    resolver = Resolver(servers)
    waiting = asyncio.create_task(resolver("dead"))
    await asyncio.sleep(0)
    resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    servers.answer.set()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "."])
def test_names_that_are_none(host: str) -> None:
    with pytest.raises(socket.gaierror):
        look_up(host)
