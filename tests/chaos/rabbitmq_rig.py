"""A mesh with a RabbitMQ channel, for tests of faults."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from eventing.back_end_settings import SETTINGS_NAMESPACE
from eventing.resources.core import CONFIG_MAP, SECRET
from eventing.resources.kinds import Object
from eventing_rabbitmq import names
from eventing_rabbitmq.kind import RABBITMQ_CHANNEL
from tests.chaos.rig import Rig, open_rig

__all__ = ["SECRET_NAME", "exchange", "queue", "rabbitmq_rig", "secret"]

SECRET_NAME = "rabbitmq-login"


@asynccontextmanager
async def rabbitmq_rig(
    data: Path,
    url: str,
    seed: int,
    *arguments: str,
    queue_type: str = "quorum",
    config: dict[str, str] | None = None,
    **more: Any,
) -> AsyncIterator[Rig]:
    """See `open_rig`."""
    metadata = {"name": names.CONFIG_MAP, "namespace": SETTINGS_NAMESPACE}
    told = {"auth.secret.ref.name": SECRET_NAME, **(config or {})}
    objects = [(SECRET, secret(url)), (CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": told})]
    async with open_rig(data, seed, RABBITMQ_CHANNEL, {"queueType": queue_type}, objects, *arguments, **more) as rig:
        yield rig


def secret(url: str) -> Object:
    """What says where RabbitMQ is, and who comes."""
    metadata = {"name": SECRET_NAME, "namespace": SETTINGS_NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"url": base64.b64encode(url.encode()).decode()}}


def exchange(rig: Rig) -> str:
    return names.exchange_of(_channel(rig))


def queue(rig: Rig, name: str) -> str:
    """Of a Subscription."""
    return names.queue_of(_channel(rig), rig.changes.live[name].uid)


def _channel(rig: Rig) -> Object:
    return {"metadata": {"namespace": "default", "name": rig.traffic.channel}}
