"""The pytest plugin: fixtures for whoever has the mesh installed.

It is loaded in every pytest run of such an environment, so it imports next to nothing before a fixture is asked for.
The asynchronous fixtures work with pytest-asyncio in either mode, and with anyio's plugin.
"""

from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from eventing.testing.clock import VirtualClock
    from eventing.testing.proxy import TcpProxy
    from eventing.testing.sinks import Sink

__all__ = ["sink", "tcp_proxy", "virtual_clock"]


def _asynchronous(function: Callable[..., Any]) -> Any:
    """A fixture that pytest-asyncio runs in its strict mode too. Where it is installed, pytest has loaded it anyway."""
    if find_spec("pytest_asyncio") is None:
        return pytest.fixture(function)
    import pytest_asyncio

    return pytest_asyncio.fixture(function)


@pytest.fixture
def virtual_clock() -> "VirtualClock":
    """A clock that stands still; `virtual_clock.run(main())` runs a coroutine on a loop that lives in it."""
    from eventing.testing.clock import VirtualClock

    return VirtualClock()


@_asynchronous
async def sink() -> AsyncIterator["Sink"]:
    """An HTTP sink on loopback, listening; see `eventing.testing.sinks.Sink`."""
    from eventing.testing.sinks import Sink

    async with Sink() as listening:
        yield listening


@_asynchronous
async def tcp_proxy() -> AsyncIterator[Callable[..., Any]]:
    """Puts TCP proxies before servers, closed with the test.

    `proxy = await tcp_proxy(host, port)` gives a listening `eventing.testing.proxy.TcpProxy`.
    """
    from contextlib import AsyncExitStack

    from eventing.testing.proxy import TcpProxy

    async with AsyncExitStack() as stack:

        async def before(host: str, port: int) -> "TcpProxy":
            return await stack.enter_async_context(TcpProxy(host, port))

        yield before
