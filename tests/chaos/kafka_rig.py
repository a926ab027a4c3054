"""A mesh with a Kafka channel, for tests of faults."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from eventing.back_end_settings import SETTINGS_NAMESPACE
from eventing.resources.core import CONFIG_MAP, SECRET
from eventing.resources.kinds import Object
from eventing_kafka import names
from eventing_kafka.kind import KAFKA_CHANNEL
from tests.chaos.rig import DATA_PLANE, Rig, open_rig

__all__ = ["DATA_PLANE", "KafkaRig", "kafka_rig", "settings"]

KafkaRig = Rig


@asynccontextmanager
async def kafka_rig(
    data: Path,
    bootstrap: str,
    seed: int,
    *arguments: str,
    partitions: int = 4,
    replicas: int = 1,
    share: float = 0.1,
    config: dict[str, str] | None = None,
    secret: Object | None = None,
    delivery: Object | None = None,
    ready: bool = True,
) -> AsyncIterator[Rig]:
    """See `open_rig`."""
    objects = [(SECRET, secret)] if secret is not None else []
    objects.append((CONFIG_MAP, settings(bootstrap, **(config or {}))))
    spec = {"numPartitions": partitions, "replicationFactor": replicas}
    async with open_rig(data, seed, KAFKA_CHANNEL, spec, objects, *arguments, share=share, delivery=delivery, ready=ready) as rig:
        yield rig


def settings(bootstrap: str, **more: str) -> Object:
    """The ConfigMap that says where Kafka is."""
    metadata = {"name": names.CONFIG_MAP, "namespace": SETTINGS_NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"bootstrap.servers": bootstrap, **more}}
