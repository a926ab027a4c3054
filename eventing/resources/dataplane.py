"""DataPlane: one object per live data-plane process, in which it reports what it has applied.

There are no heartbeats, so that an idle mesh writes nothing: a process makes its object afresh at start, which ends the claims
of an earlier one of that name, and writes its status when it has applied a channel's generation. Which processes there are is
said by who runs them (docs/decisions/0009-controllers.md).
"""

from typing import Any, Final

from eventing.resources.channelable import AGE_COLUMN
from eventing.resources.kinds import Column, Kind
from eventing.resources.lazy_schema import LazySchema

__all__ = ["DATA_PLANE", "DATA_PLANE_NAMESPACE", "NEEDS_ONE_WORKER", "needs_one_worker"]

DATA_PLANE_NAMESPACE: Final = "knative-eventing"
NEEDS_ONE_WORKER: Final = "NeedsOneWorker"  # reason of a channel that several data-plane processes cannot serve


def _schema() -> dict[str, Any]:
    # The data plane writes these objects and has no use for their models (see LazySchema).
    from eventing.resources.dataplane_models import DataPlaneSpec, DataPlaneStatus
    from eventing.resources.schema import object_schema

    description = "A live data-plane process and what it has applied. Written by the mesh itself."
    return object_schema(description, spec=DataPlaneSpec, status=DataPlaneStatus)


def needs_one_worker(kind: Kind, workers: int) -> str:
    """What is told of a channel that lives in one process, where there are several."""
    return (
        f"{kind.kind}s live in the memory of one data-plane process, and this mesh runs {workers}: "
        "start it without --workers, or use a KafkaChannel"
    )


DATA_PLANE: Final = Kind(
    group="internal.eventing-mesh.dev",
    version="v1alpha1",
    kind="DataPlane",
    plural="dataplanes",
    schema=LazySchema(_schema),
    columns=(Column("Instance", ".spec.instance"), AGE_COLUMN),
)
