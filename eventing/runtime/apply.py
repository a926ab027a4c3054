"""Server-side apply of manifests."""

from collections.abc import Iterable

from eventing.errors import ApiError, ApiUnavailableError, ObjectNotFoundError, StartError
from eventing.kube import KubeClient
from eventing.runtime.manifests import FIELD_MANAGER, Manifest

__all__ = ["apply"]


async def apply(client: KubeClient, manifests: Iterable[Manifest]) -> None:
    """Apply each, in order. Fields that others have set meanwhile are taken over: what is in the file holds.

    Raises StartError naming the manifest that was refused, and the field where the server names one.
    """
    for manifest in manifests:
        body = manifest.body
        name = f"{body['kind']} {body['metadata']['name']}"
        try:
            kind = await client.kind_of(body["apiVersion"], body["kind"])
        except ObjectNotFoundError as error:
            raise StartError(
                f"{manifest.origin}: kind: {body['kind']} of apiVersion {body['apiVersion']} is not served here"
            ) from error
        namespace = (body["metadata"].get("namespace") or "default") if kind.namespaced else None
        try:
            await client.patch(
                kind,
                namespace,
                body["metadata"]["name"],
                body,
                content_type="application/apply-patch+yaml",
                field_manager=FIELD_MANAGER,
                force=True,
            )
        except ApiUnavailableError:
            raise
        except ApiError as error:
            raise StartError(f"{manifest.origin}: {name} was refused: {error.message}") from error
