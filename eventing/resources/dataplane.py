"""DataPlane: one object per live data-plane process, in which it reports what it has applied.

There are no heartbeats: a process makes its object at start, writes its status when it has applied a
channel's generation, and deletes it at a clean stop, so an idle mesh writes nothing.
"""

from typing import Final

from pydantic import Field

from eventing.resources.channelable import AGE_COLUMN
from eventing.resources.kinds import Column, Kind
from eventing.resources.schema import Int64, Model, object_schema

__all__ = ["DATA_PLANE", "DATA_PLANE_NAMESPACE"]

DATA_PLANE_NAMESPACE: Final = "knative-eventing"


class DataPlaneSpec(Model):
    """Which process this is."""

    instance: str | None = Field(None, description="One incarnation of the process; a restarted one has another.")


class Applied(Model):
    """The generation of one channel that is in force."""

    uid: str | None = Field(None, description="UID of the channel.")
    generation: Int64 | None = Field(None, description="Generation of the channel.")


class DataPlaneStatus(Model):
    """What the process has applied."""

    applied: dict[str, Applied] | None = Field(
        None, description="By channel, PLURAL.GROUP/NAMESPACE/NAME: what the process has applied."
    )


DATA_PLANE: Final = Kind(
    group="internal.eventing-mesh.dev",
    version="v1alpha1",
    kind="DataPlane",
    plural="dataplanes",
    schema=object_schema(
        "A live data-plane process and what it has applied. Written by the mesh itself.",
        spec=DataPlaneSpec,
        status=DataPlaneStatus,
    ),
    columns=(Column("Instance", ".spec.instance"), AGE_COLUMN),
)
