"""The role `dataplane`: ingress, channels, delivery, journal."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from eventing.channels import channel_factories
from eventing.dataplane import DataPlane, DataPlaneSettings
from eventing.kube import Cluster, KubeClient
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.settings import ChildSettings
from eventing.runtime.tokens import Tokens

__all__ = ["DataPlaneRole"]


class DataPlaneRole:
    """Runs one data plane against the embedded API server of the same data directory."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings

    async def run(self, *, started: Callable[[], None], stop: asyncio.Event) -> None:
        settings = self._settings
        directory = DataDirectory(Path(settings.data_dir))
        tokens = Tokens.of(directory)
        cluster = Cluster(settings.endpoints.api, token=tokens.data_plane, ca_data=(directory.pki / "ca.crt").read_text())
        client = KubeClient(cluster, user_agent="eventing-data-plane")
        try:
            data_plane = DataPlane(
                name="embedded",
                client=client,
                factories=channel_factories(),
                ingress=socket.socket(fileno=settings.sockets["ingress"]),
                admin=socket.socket(fileno=settings.sockets["metrics"]),
                token=tokens.admin,
                settings=DataPlaneSettings(drain_s=settings.drain_s, journal=settings.journal),
            )
            await data_plane.run(started=started, stop=stop)
        finally:
            await client.aclose()
