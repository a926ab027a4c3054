"""The pools of this process: one per origin, one sweep for all their time-outs."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

from eventing.bindings.http import HeaderNames
from eventing.delivery.addresses import AddressGuard, connect
from eventing.delivery.resolver import Resolver
from eventing.delivery.tls import TlsContexts
from eventing.wire.client import ClientLimits, Connection, Origin
from eventing.wire.pool import Connector, Pool

__all__ = ["Connections", "Target", "target", "unreachable"]

# Precise enough for time-outs of seconds, and its cost does not show (docs/decisions/0003-callbacks.md).
SWEEP_S: Final = 0.1
# 32 to 64 beat 256: fewer sockets to poll, and the same work in fewer turns of the loop.
PER_ORIGIN: Final = 64
IDLE_S: Final = 60.0
_PATH_CHARACTERS: Final = "!$%&'()*+,/:;=?@[]~"  # RFC 3986; a percent sign is taken for the escape that it should be
_CREDENTIALS: Final = re.compile(r"//[^/@]*@")


class Target:
    """A URL to deliver to, taken apart once: its origin, and the request line with the fixed headers."""

    __slots__ = ("origin", "prefix", "url")

    def __init__(self, url: str, origin: Origin, prefix: bytes) -> None:
        self.url = url
        self.origin = origin
        self.prefix = prefix


def target(url: str, *, namespace: str, ca_certs: str = "", reply: bool = False) -> Target:
    """Raises ValueError for a URL that cannot be delivered to; the message says why."""
    url.encode()  # what UTF-8 cannot express could not be told to a dead-letter sink either
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"{url!r}: the scheme must be http or https")
    if not parts.hostname:
        raise ValueError(f"{url!r}: there is no host")
    if parts.username is not None:
        raise ValueError("credentials do not belong into the URL of a subscriber")
    if parts.port == 0:
        raise ValueError(f"{url!r}: nobody can listen on port 0")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    origin = Origin(parts.scheme, host, port, ca_certs)
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_PATH_CHARACTERS)
    lines = [f"POST {path} HTTP/1.1", f"host: {origin.authority}", "user-agent: eventing-mesh", f"kn-namespace: {namespace}"]
    if reply:
        lines.append("prefer: reply")
    return Target(url, origin, ("\r\n".join(lines) + "\r\n").encode())


def unreachable(url: str, why: str) -> Target:
    """Stands for a URL that cannot be delivered to: every attempt fails for good and says why, so that an event that is due there
    ends as it would anywhere else, with a reason."""
    shown = _CREDENTIALS.sub("//", url).encode(errors="replace").decode()
    return Target(shown, Origin("", why, 0), b"")


class Connections:
    """All pools. Connects in tasks of the owner's TaskGroup."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        *,
        guard: AddressGuard | None = None,
        resolver: Resolver | None = None,
        limits: ClientLimits | None = None,
        connector: Connector | None = None,
        per_origin: int = PER_ORIGIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names = HeaderNames()
        self._tasks = tasks
        self._guard = guard or AddressGuard()
        self._resolver = resolver or Resolver()
        self._contexts = TlsContexts()
        self._limits = limits or ClientLimits()
        self._per_origin = per_origin
        self._connector = connector or self._connect
        # Whoever delivers to an origin holds its pool; one that nobody holds goes when its connections are closed.
        self._pools: WeakValueDictionary[Origin, Pool] = WeakValueDictionary()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._sweep = self._loop.call_later(SWEEP_S, self._swept)

    def _connect(self, origin: Origin, factory: Callable[[], Connection]) -> Awaitable[None]:
        return connect(origin, factory, guard=self._guard, resolve=self._resolver, contexts=self._contexts)

    def _spawn(self, coroutine: Awaitable[None]) -> object:
        return self._tasks.create_task(cast("Coroutine[Any, Any, None]", coroutine))

    def pool(self, origin: Origin) -> Pool:
        pool = self._pools.get(origin)
        if pool is None:
            pool = Pool(origin, self._connector, self._spawn, names=self.names, limits=self._limits, limit=self._per_origin)
            self._pools[origin] = pool
        return pool

    @property
    def open_connections(self) -> int:
        return sum(pool.open_connections for pool in self._pools.values())

    def _swept(self) -> None:
        now = self._clock()
        for pool in list(self._pools.values()):
            pool.sweep(now)
            if pool.unused(now, IDLE_S):
                pool.close_idle()
        self._sweep = self._loop.call_later(SWEEP_S, self._swept)

    def close(self) -> None:
        self._sweep.cancel()
        for pool in list(self._pools.values()):
            pool.close()
        self._resolver.close()
