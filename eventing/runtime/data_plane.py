"""The role `dataplane`: ingress, channels, delivery, journal."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from eventing.channels import channel_factories
from eventing.dataplane import DataPlane, DataPlaneSettings
from eventing.delivery.addresses import address_guard
from eventing.errors import StartError
from eventing.kube import Cluster, KubeClient
from eventing.observe.traces import tracing
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.ingress_tls import IngressTls
from eventing.runtime.settings import ChildSettings, data_plane_names
from eventing.runtime.tokens import Tokens
from eventing.wire.request import ServerLimits
from eventing.wire.shared_listener import Loads

__all__ = ["DataPlaneRole"]


log = logging.getLogger(__name__)

_REFRESH_S: Final = 60.0  # certificates are replaced days before they end


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
        tls = IngressTls(settings.ingress) if settings.ingress.certificate else None
        try:
            data_plane = DataPlane(
                name=settings.data_plane,
                client=client,
                factories=channel_factories(),
                ingress=socket.socket(fileno=settings.sockets["ingress"]),
                admin=socket.socket(fileno=settings.sockets["metrics"]),
                token=tokens.admin,
                settings=DataPlaneSettings(
                    workers=settings.workers,
                    drain_s=settings.drain_s,
                    journal=settings.journal,
                    failures=directory.journal,
                    server=_limits(settings.ingress.max_event_bytes),
                    guard=address_guard(settings.delivery.allow_ranges, settings.delivery.deny_ranges),
                ),
                tls=tls.context if tls else None,
                tracing=tracing("dataplane", settings.data_plane if settings.workers > 1 else ""),
                loads=_loads(settings),
            )
            async with asyncio.TaskGroup() as tasks:
                refreshing = tasks.create_task(_refresh(tls)) if tls else None
                await data_plane.run(started=started, stop=stop)
                if refreshing is not None:
                    refreshing.cancel()
        finally:
            await client.aclose()


def _loads(settings: ChildSettings) -> Loads | None:
    """None where this process has the ingress for itself."""
    names = data_plane_names(settings.workers)
    return Loads(settings.loads_fd, len(names), names.index(settings.data_plane)) if settings.loads_fd >= 0 else None


def _limits(max_event_bytes: int) -> ServerLimits:
    usual = ServerLimits()
    return ServerLimits(
        body_bytes=max_event_bytes,
        # Several of the largest at the same time, whatever that is; and the time for one over a slow line (64 KiB/s).
        held_bytes=max(usual.held_bytes, 8 * max_event_bytes),
        body_s=max(usual.body_s, max_event_bytes / (64 << 10)),
    )


async def _refresh(tls: IngressTls) -> None:
    """Follow the certificate's files."""
    while True:
        await asyncio.sleep(_REFRESH_S)
        try:
            if tls.refresh():
                log.info("the ingress has a new certificate")
        except StartError as error:
            log.error("the new certificate of the ingress is not used", extra={"reason": str(error)})
