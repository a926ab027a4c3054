"""Names to addresses, by the operating system and off the event loop.

The system's call cannot be given up once it is under way, and a name server that does not answer holds it for a minute. So each
runs in a daemon thread of its own: it neither takes a place in a pool that other names wait for, nor holds up the end of the
process. One call per name serves all who ask for that name meanwhile.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from threading import Thread
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["AT_A_TIME", "Resolver", "is_address"]

P = ParamSpec("P")
T = TypeVar("T")

AT_A_TIME: Final = 64  # names; who asks for one more waits, as long as the caller's time-out lets it

Lookup = Callable[[str], Sequence[str]]


def is_address(host: str) -> bool:
    """Whether the host is an address in its usual spelling, so that nothing has to be asked."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def look_up(host: str) -> Sequence[str]:
    """The addresses of a host in the operating system's order. Blocks. Raises socket.gaierror."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a name: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Threads(Executor):
    """A daemon thread per call."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()
        Thread(target=_run, args=(future, fn, args, kwargs), name="resolver", daemon=True).start()
        return future


def _run(future: "Future[T]", fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who asked
        future.set_exception(error)
    else:
        future.set_result(result)


class Resolver:
    """`await resolver(host)`: the host's addresses, at least one. Raises socket.gaierror, with what the system says."""

    def __init__(self, lookup: Lookup = look_up, *, at_a_time: int = AT_A_TIME) -> None:
        self._lookup = lookup
        self._threads = _Threads()
        self._at_a_time = at_a_time
        self._asked: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        if is_address(host):
            return (host,)
        while (asked := self._asked.get(host)) is None:
            if len(self._asked) < self._at_a_time:
                asked = self._ask(host)
                break
            await asyncio.wait(self._asked.values(), return_when=asyncio.FIRST_COMPLETED)
        return await asyncio.shield(asked)

    def _ask(self, host: str) -> "asyncio.Future[Sequence[str]]":
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
        self._asked[host] = asked
        asked.add_done_callback(lambda _: self._answered(host))
        return asked

    def _answered(self, host: str) -> None:
        asked = self._asked.pop(host, None)
        if asked is not None and not asked.cancelled():
            asked.exception()  # nobody may be waiting for it any more

    def close(self) -> None:
        """Nobody waits for answers any more."""
        for asked in list(self._asked.values()):
            asked.cancel()
