"""Server-side apply of manifests."""

import base64
from collections.abc import Iterable, Mapping
from typing import Final

from eventing.back_end_settings import SETTINGS_NAMESPACE
from eventing.errors import ApiError, ApiUnavailableError, ObjectNotFoundError, StartError
from eventing.kube import KubeClient
from eventing.resources.core import CONFIG_MAP, SECRET
from eventing.resources.kinds import Kind
from eventing.runtime.manifests import FIELD_MANAGER, Manifest

__all__ = ["apply", "apply_options"]

_OPTIONS_MANAGER: Final = "eventing-up-options"  # beside that of files: what leaves a file must not take these along


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


async def apply_options(
    client: KubeClient, config_maps: Mapping[str, Mapping[str, str]], secrets: Mapping[str, Mapping[str, str]]
) -> None:
    """Give these keys of ConfigMaps and Secrets their values; what else is in them stays. Raises ApiError."""
    for name, data in secrets.items():  # before the ConfigMaps, which name them
        await _apply_option(client, SECRET, name, {key: base64.b64encode(value.encode()).decode() for key, value in data.items()})
    for name, data in config_maps.items():
        await _apply_option(client, CONFIG_MAP, name, dict(data))


async def _apply_option(client: KubeClient, kind: Kind, name: str, data: dict[str, str]) -> None:
    body = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": SETTINGS_NAMESPACE},
        "data": data,
    }
    await client.patch(
        kind,
        SETTINGS_NAMESPACE,
        name,
        body,
        content_type="application/apply-patch+yaml",
        field_manager=_OPTIONS_MANAGER,
        force=True,
    )
