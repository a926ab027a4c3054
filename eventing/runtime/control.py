"""The role `control`: the embedded API server, and the controllers as its client."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from eventing.apiserver import ApiServer
from eventing.apiserver.kubeconfig import write_kubeconfig
from eventing.apiserver.pki import certificates_for
from eventing.channels import channel_factories
from eventing.control import Controllers
from eventing.kube import Cluster, KubeClient
from eventing.observe.health import Check, State
from eventing.resources.catalogue import own_kinds
from eventing.runtime import manifests
from eventing.runtime.apply import apply, apply_options
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.ingress_tls import trust_anchors
from eventing.runtime.listeners import advertised_host
from eventing.runtime.settings import ChildSettings, data_plane_names
from eventing.runtime.tokens import Tokens

__all__ = ["Control"]

_STARTING: Final = Check("controllers", State.FAILED, "not started: manifests are being applied")


class Control:
    """Serves the API, applies the manifests of the start, and reconciles."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._controllers: Controllers | None = None

    async def run(self, *, started: Callable[[], None], stop: asyncio.Event) -> None:
        settings = self._settings
        directory = DataDirectory(Path(settings.data_dir))
        tokens = Tokens.of(directory)
        factories = channel_factories()
        hosts = dict.fromkeys((advertised_host(settings.host).strip("[]"), "localhost", "127.0.0.1", "::1"))
        certificates = await certificates_for(directory.pki, list(hosts))
        ca = certificates.ca_cert.read_text()
        ingress_ca = trust_anchors(settings.ingress)
        directory.ingress_ca.touch(mode=0o600)
        directory.ingress_ca.write_text(ingress_ca)
        write_kubeconfig(directory.kubeconfig, server=settings.endpoints.api, ca=certificates.ca_cert, token=tokens.admin)
        server = ApiServer(
            database=directory.database,
            kinds=(*own_kinds(), *(factory.kind for factory in factories.values())),
            users=tokens.users,
            allowed_hosts=list(hosts),
            ready=lambda: self._controllers.checks() if self._controllers else [_STARTING],
        )
        client = KubeClient(Cluster(settings.endpoints.api, tokens.controllers, ca), user_agent="eventing-controller")
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = asyncio.Event()
                tasks.create_task(
                    server.serve(
                        socket.socket(fileno=settings.sockets["api"]),
                        certfile=certificates.server_cert,
                        keyfile=certificates.server_key,
                        started=serving.set,
                    )
                )
                await serving.wait()
                await self._apply(Cluster(settings.endpoints.api, tokens.admin, ca))
                controllers = self._controllers = Controllers(
                    client,
                    factories=factories,
                    ingress_url=settings.endpoints.ingress,
                    ingress_ca=ingress_ca,
                    data_planes=data_plane_names(settings.workers),
                )
                server.show(controllers.collector)
                reconciling = tasks.create_task(controllers.run())
                started()
                await stop.wait()
                # Nothing writes any more when the server goes, and the store is closed in peace.
                reconciling.cancel()
                with suppress(asyncio.CancelledError):
                    await reconciling
                await server.aclose()
        finally:
            await client.aclose()

    async def _apply(self, cluster: Cluster) -> None:
        """What the command line asks for; where an option and a file differ, the file holds."""
        client = KubeClient(cluster, user_agent="eventing-up")
        try:
            await apply_options(client, self._settings.config_maps, self._settings.secrets)
            if self._settings.manifests_fd is not None:
                with os.fdopen(self._settings.manifests_fd, encoding="utf-8") as file:
                    file.seek(0)
                    given = manifests.load(file.read())
                await apply(client, given)
        finally:
            await client.aclose()
