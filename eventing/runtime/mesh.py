"""A whole mesh in one event loop: how tests get one without a process of its own.

async with Mesh() as mesh:
…  # mesh.ingress_url, mesh.kubeconfig
"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from eventing.errors import EventingError, StartError
from eventing.runtime import manifests
from eventing.runtime.back_ends import configurations_of
from eventing.runtime.child import leaves
from eventing.runtime.control import Control
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.data_plane import DataPlaneRole
from eventing.runtime.ingress_tls import check
from eventing.runtime.listeners import bind, port_of
from eventing.runtime.mesh_client import MeshClient
from eventing.runtime.settings import DATA_PLANE_NAME, ChildSettings, DeliverySettings, Endpoints, IngressSettings
from eventing.runtime.tokens import Tokens

__all__ = ["Mesh"]


class Mesh:
    """An async context manager: ready when entered, drained and stopped when left.

    `data_dir` None: a temporary one, removed at the end. `manifests` are files, directories or `-`, applied before it is
    ready. A port of 0 picks a free one. `ingress` is how events come in, https among it;
    `delivery` where they may go; `kafka` where KafkaChannels are kept, HOST:PORT or several with commas
    between, `rabbitmq` where RabbitmqChannels are, an AMQP URL. Raises StartError where it cannot start, ValueError for
    addresses that are nothing of the kind.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        manifests: Sequence[str] = (),
        api_port: int = 0,
        ingress_port: int = 0,
        metrics_port: int = 0,
        drain_s: float = 10.0,
        ingress: IngressSettings | None = None,
        delivery: DeliverySettings | None = None,
        kafka: str = "",
        rabbitmq: str = "",
    ) -> None:
        self._given_dir = data_dir
        self._manifests = manifests
        self._ports = {"api": api_port, "ingress": ingress_port, "metrics": metrics_port}
        self._drain_s = drain_s
        self._ingress = ingress or IngressSettings()
        self._delivery = delivery or DeliverySettings()
        given = {name: address for name, address in (("kafka", kafka), ("rabbitmq", rabbitmq)) if address}
        self._config_maps, self._secrets = configurations_of(given)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._directory: DataDirectory | None = None
        self._endpoints: Endpoints | None = None
        self._running: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    @property
    def endpoints(self) -> Endpoints:
        if self._endpoints is None:
            raise EventingError("the mesh is not running: use it inside `async with`")
        return self._endpoints

    @property
    def api_url(self) -> str:
        return self.endpoints.api

    @property
    def ingress_url(self) -> str:
        """Events go to `{ingress_url}/NAMESPACE/CHANNEL`."""
        return self.endpoints.ingress

    @property
    def metrics_url(self) -> str:
        return self.endpoints.metrics

    @property
    def data_dir(self) -> Path:
        if self._directory is None:
            raise EventingError("the mesh is not running: use it inside `async with`")
        return self._directory.path

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"

    def client(self) -> MeshClient:
        """A synchronous client to it (in a thread of its own: it would stop this very event loop)."""
        directory = DataDirectory(self.data_dir)
        return MeshClient(self.endpoints, Tokens.of(directory).admin, directory.ingress_ca)

    async def __aenter__(self) -> Self:
        if self._given_dir is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="eventing-mesh-")
        path = Path(self._temporary.name) / "data" if self._temporary else self._given_dir
        assert path is not None
        self._directory = DataDirectory(path.absolute())
        try:
            check(self._ingress)
            # Waiting for another mesh to go would block this loop.
            self._directory.open(patience_s=0)
            settings = self._settings()
            ready = asyncio.Event()
            # A task of its own: entering and leaving may happen in different tasks, as with pytest's fixtures.
            self._running = asyncio.create_task(self._run(settings, ready))
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait({waiting, self._running}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not ready.is_set():
                await self._stopped()
                raise StartError("the mesh ended before it was ready")
            self._directory.write_endpoints(settings.endpoints)
        except BaseException:
            if self._running is not None:
                self._running.cancel()
                await asyncio.wait({self._running})
            self._clean_up()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        try:
            await self._stopped()
        finally:
            self._clean_up()

    async def _stopped(self) -> None:
        """Wait for the end of the mesh; what it cannot start for is raised as the StartError that it is."""
        assert self._running is not None
        try:
            await self._running
        except* StartError as refusals:
            raise next(leaves(refusals)) from None

    def _clean_up(self) -> None:
        self._endpoints = None
        if self._directory is not None:
            if self._directory.lock_fd >= 0:
                self._directory.remove_endpoints()
            self._directory.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _settings(self) -> ChildSettings:
        assert self._directory is not None
        listeners = {name: bind(name, "127.0.0.1", port, f"{name}_port") for name, port in self._ports.items()}
        schemes = {"api": "https", "ingress": self._ingress.scheme}
        urls = {name: f"{schemes.get(name, 'http')}://127.0.0.1:{port_of(listener)}" for name, listener in listeners.items()}
        self._endpoints = Endpoints(urls["api"], urls["ingress"], urls["metrics"], {DATA_PLANE_NAME: urls["metrics"]})
        return ChildSettings(
            role="mesh",
            data_dir=str(self._directory.path),
            host="127.0.0.1",
            endpoints=self._endpoints,
            sockets={name: listener.detach() for name, listener in listeners.items()},
            drain_s=self._drain_s,
            manifests_fd=self._spool(),
            config_maps=self._config_maps,
            secrets=self._secrets,
            ingress=self._ingress,
            delivery=self._delivery,
        )

    def _spool(self) -> int | None:
        if not self._manifests:
            return None
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            file.write(manifests.dump(manifests.read(self._manifests)))
            file.flush()
            return os.dup(file.fileno())

    async def _run(self, settings: ChildSettings, ready: asyncio.Event) -> None:
        """Control until the data plane has stopped, as the supervisor has it."""
        control_ready, control_stop = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Control(settings).run(started=control_ready.set, stop=control_stop))
            await control_ready.wait()
            await DataPlaneRole(settings).run(started=ready.set, stop=self._stop)
            control_stop.set()
