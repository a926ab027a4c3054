"""The embedded Kubernetes API server: any `Kind` it is given, over HTTPS, kept in SQLite."""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Final

import msgspec
import uvicorn
from starlette.types import ASGIApp

from eventing.apiserver.access import Access
from eventing.apiserver.admission import Admitter
from eventing.apiserver.connection import Connection
from eventing.apiserver.definitions import Definitions
from eventing.apiserver.dispatch import Dispatcher
from eventing.apiserver.documents import documents_app
from eventing.apiserver.expiry import EventExpiry
from eventing.apiserver.garbage import Garbage
from eventing.apiserver.reading import Reader
from eventing.apiserver.registry import Registry, Resource
from eventing.apiserver.requests import Options, Request
from eventing.apiserver.store import Store
from eventing.apiserver.watching import Watches
from eventing.apiserver.writing import Writer
from eventing.errors import ObjectExistsError
from eventing.observe.control_metrics import ApiMetrics
from eventing.observe.health import Check, Health, State
from eventing.observe.stalls import loop_check
from eventing.resources.kinds import Kind, Object

if TYPE_CHECKING:
    from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["ApiServer"]

_NAMESPACES: Final = ("default", "knative-eventing")
_INTERNAL_USER: Final = "system:apiserver"
_STOP_S: Final = 0.8
_POLL_S: Final = 0.01


class ApiServer:
    """One API server over one database file. Raises StartError where the file cannot be used (see Database).

    `users` maps bearer tokens to user names; `allowed_hosts` are the host names and addresses that clients may call it by;
    `ready` gives what `/readyz` says beside what the server knows itself.
    `app` is the ASGI application; it needs `running` around it. `serve` does both.
    """

    def __init__(
        self,
        *,
        database: Path,
        kinds: Sequence[Kind],
        users: Mapping[str, str],
        allowed_hosts: Iterable[str] = ("localhost", "127.0.0.1", "::1"),
        ready: Callable[[], Iterable[Check]] = tuple,
        clock: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        random: Random | None = None,
    ) -> None:
        self._clock = clock
        self._registry = Registry()
        for kind in kinds:
            self._registry.add(Resource(kind))
        self._store = Store(database, stamp=datetime.fromtimestamp(clock(), UTC).strftime("%Y%m%dT%H%M%SZ"))
        reader = Reader(self._store, clock=clock)
        self._writer = Writer(
            self._store,
            self._registry,
            Admitter(self._config_map),
            now=self._now,
            new_uid=new_uid,
            random=random or SystemRandom(),
        )
        self._watches = Watches(self._store, reader)
        self._definitions = Definitions(self._store, self._registry, self._writer, self._watches, now=self._now)
        self._writer.protects = self._definitions.protects
        self._garbage = Garbage(self._store, self._registry, self._writer)
        self._expiry = EventExpiry(self._store, clock=clock)
        metrics = self._metrics = ApiMetrics()
        dispatcher = Dispatcher(self._registry, self._store, reader, self._writer, self._watches, metrics)
        self._collectors: list[Callable[[], Collector]] = [self._collector]
        self._exposed: CollectorRegistry | None = None
        self.app: ASGIApp = Access(
            documents_app(self._registry, dispatcher, self._expose),
            users=dict(users),
            allowed_hosts=list(allowed_hosts),
            health=Health(live=lambda: [loop_check()], ready=lambda: [*self._checks(), *ready()]),
        )
        self._server: _Uvicorn | None = None

    async def serve(
        self, sock: socket.socket, *, certfile: Path, keyfile: Path, started: Callable[[], None] = lambda: None
    ) -> None:
        """Serve HTTPS on a listening socket until `aclose` or cancellation; then end the watches and return within a second.

        `started` is called once requests are answered. Takes no signals. The socket is closed at the end.
        """
        config = uvicorn.Config(
            self.app,
            http=Connection,
            loop="none",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
            timeout_keep_alive=75,
            backlog=1024,
        )
        # Connections inherit it. asyncio itself leaves it out where the socket does not name its protocol.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = self._server = _Uvicorn(config, started)
        try:
            async with self.running():
                serving = asyncio.create_task(server.serve([sock]))
                try:
                    await asyncio.shield(serving)
                finally:
                    self._watches.stop()
                    server.stop()
                    await serving
        finally:
            self._server = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The server's own work: its namespaces made, garbage collected. Closes the store at the end."""
        try:
            await self._seed()
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(work.run()) for work in (self._garbage, self._definitions, self._expiry)]
                try:
                    yield
                finally:
                    self._watches.stop()
                    for task in background:
                        task.cancel()
        finally:
            await self._store.aclose()

    async def aclose(self) -> None:
        """Make `serve` end the open watches and return."""
        self._watches.stop()
        if self._server is not None:
            self._server.stop()

    async def _seed(self) -> None:
        request = Request("POST", "", (), {}, {}, b"", _INTERNAL_USER)
        await self._definitions.show_built_in(request)
        resource = self._registry.find("", "v1", "namespaces")
        if resource is None:
            return
        for name in _NAMESPACES:
            if self._store.latest(resource.key, ("", name)) is None:
                obj: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                with contextlib.suppress(ObjectExistsError):
                    await self._writer.create(resource, "", obj, Options(manager="eventing-apiserver"), request)

    def show(self, collector: "Callable[[], Collector]") -> None:
        """`/metrics` has this too; it is made when somebody scrapes."""
        self._collectors.append(collector)
        self._exposed = None

    def _collector(self) -> "Collector":
        from eventing.observe.control_exposition import ApiCollector

        return ApiCollector(self._metrics, watches=self._watches.by_resource, objects=self._objects)

    def _expose(self, accept: str) -> tuple[str, bytes]:
        # Loaded when somebody scrapes: an idle mesh is to be small.
        from eventing.observe.exposition import expose, registry

        if self._exposed is None:
            self._exposed = registry("control", *(collector() for collector in self._collectors))
        return expose(self._exposed, accept)

    def _objects(self) -> dict[str, int]:
        return {resource: len(collection.records) for resource, collection in self._store.collections()}

    def _checks(self) -> Iterator[Check]:
        stopping = self._watches.stopping
        yield Check("api", State.FAILED if stopping else State.OK, "stopping" if stopping else "")
        fault = self._store.fault
        yield Check("store", State.DEGRADED if fault else State.OK, fault and f"the last write could not be stored: {fault}")

    def _config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        record = self._store.latest("configmaps", (namespace, name))
        return {} if record is None else (msgspec.json.decode(record.data).get("data") or {})

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Uvicorn(uvicorn.Server):
    """A uvicorn that leaves the signals to the process, and says when it serves."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        """As uvicorn's, which wakes ten times a second to look whether it should stop; this one is told."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 10
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end, for a second; then cut off who is left, so that the loop can be closed.

        uvicorn's own would log an error for clients that do not answer the end of TLS (stopped ones), and leave them open.
        """
        for listener in [*self.servers, *(sockets or ())]:
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while state.connections or state.tasks:
                    await asyncio.sleep(_POLL_S)
        for task in state.tasks:
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()
