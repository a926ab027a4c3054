"""The controllers against a Kubernetes API that is somewhere else: a cluster's, or another mesh's."""

import asyncio

from eventing.channels import channel_factories
from eventing.control import Controllers
from eventing.errors import ObjectNotFoundError, StartError
from eventing.kube import Cluster, KubeClient
from eventing.resources.catalogue import installed_kinds

__all__ = ["run_controllers"]


async def run_controllers(cluster: Cluster, *, ingress_url: str, stop: asyncio.Event) -> None:
    """Reconcile until `stop` is set. Raises StartError where the server does not know our kinds, ApiError where it does not
    answer or does not let us in; what fails later is tried again for ever.
    """
    client = KubeClient(cluster, user_agent="eventing-controller")
    try:
        await _check_kinds(client, cluster)
        controllers = Controllers(client, factories=channel_factories(), ingress_url=ingress_url)
        async with asyncio.TaskGroup() as tasks:
            reconciling = tasks.create_task(controllers.run())
            await stop.wait()
            reconciling.cancel()
    finally:
        await client.aclose()


async def _check_kinds(client: KubeClient, cluster: Cluster) -> None:
    missing = []
    for kind in installed_kinds():
        try:
            await client.kind_of(kind.api_version, kind.kind)
        except ObjectNotFoundError:
            missing.append(f"{kind.plural}.{kind.group}" if kind.group else kind.plural)
    if missing:
        raise StartError(f"{cluster.server} does not serve {', '.join(missing)}; run: kubectl apply -f deploy/crds")
