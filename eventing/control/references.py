"""From a destination to the URI that events go to, and word to those who depend on it when that changes.

Reference: resolution of Destinations (Knative's resolver). Every kind that something refers to is followed by a cache, so
resolving costs no request and a change of what is referred to calls in whoever refers to it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from eventing.errors import EventingError, ObjectNotFoundError
from eventing.kube import Cache, Change, KubeClient
from eventing.reconcile import Key, Tracker
from eventing.resources.kinds import Kind, Object

__all__ = ["References", "Resolved", "Target", "UnresolvedError", "Watcher", "targets"]

_FIRST_LIST_S: Final = 5.0
_UNSERVED_RETRY_S: Final = 15.0
_DEFINITION: Final = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    schema={},
    namespaced=False,
)

Watcher = tuple[str, Key]
"""Which reconciler's key depends on something."""
Target = tuple[str, str, str, str]
"""apiVersion, kind, namespace, name of what it depends on."""


def targets(namespace: str, *destinations: Mapping[str, Any] | None) -> list[Target]:
    """What the destinations of an object in `namespace` refer to; those that are None, or plain URIs, to nothing."""
    references = [destination["ref"] for destination in destinations if destination and destination.get("ref")]
    return [(ref["apiVersion"], ref["kind"], ref.get("namespace") or namespace, ref["name"]) for ref in references]


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where events go."""

    uri: str
    ca_certs: str | None = None
    audience: str | None = None


class UnresolvedError(EventingError):
    """A destination leads nowhere now. `retry_after` is set where no change of an object will tell that it does."""


class References:
    """Resolves destinations; follows each kind referred to, and calls `changed` for those who depend on an object."""

    def __init__(
        self,
        client: KubeClient,
        caches: Iterable[Cache],
        *,
        changed: Callable[[Watcher], None],
        new_cache: Callable[[Kind], Cache],
        cluster_domain: str = "cluster.local",
    ) -> None:
        self._client = client
        self._changed = changed
        self._new_cache = new_cache
        self._cluster_domain = cluster_domain
        self._caches: dict[tuple[str, str], Cache] = {}
        self._listed_by: dict[tuple[str, str], float] = {}
        self._tracker: Tracker[Watcher, Target] = Tracker()
        self._to_run: asyncio.Queue[Cache] = asyncio.Queue()
        self._running: dict[Cache, asyncio.Task[None]] = {}
        self._definitions: Cache | None = None
        for cache in caches:
            self._follow(cache)

    async def run(self) -> None:
        """Run the caches of the kinds that turn up, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                cache = await self._to_run.get()
                self._running[cache] = group.create_task(cache.run(), name=f"cache-{cache.kind.plural}")

    def track(self, watcher: Watcher, targets: Iterable[Target]) -> None:
        """From now on `watcher` is called in when one of these changes, and for nothing else."""
        self._tracker.track(watcher, targets)

    async def resolve(self, destination: Mapping[str, Any], namespace: str) -> Resolved:
        """Where the destination of an object in `namespace` leads; UnresolvedError says why nowhere."""
        reference, uri = destination.get("ref"), destination.get("uri")
        if reference is None:
            if not uri:
                raise UnresolvedError("destination missing Ref and URI, expected at least one")
            found = Resolved(uri)
        else:
            found = await self._address(reference, namespace, https=bool(destination.get("CACerts")))
            if uri:
                found = Resolved(urljoin(found.uri, uri), found.ca_certs, found.audience)
        return Resolved(found.uri, destination.get("CACerts") or found.ca_certs, destination.get("audience") or found.audience)

    async def _address(self, reference: Mapping[str, Any], namespace: str, *, https: bool) -> Resolved:
        api_version, kind, name = reference["apiVersion"], reference["kind"], reference["name"]
        namespace = reference.get("namespace") or namespace
        cache = await self._cache(api_version, kind, namespace, name)
        obj = cache.get(namespace, name)
        if obj is None:
            resource = f"{cache.kind.plural}.{cache.kind.group}" if cache.kind.group else cache.kind.plural
            raise UnresolvedError(f'failed to get object {namespace}/{name}: {resource} "{name}" not found')
        if (api_version, kind) == ("v1", "Service"):
            scheme = "https" if https else "http"
            return Resolved(f"{scheme}://{name}.{namespace}.svc.{self._cluster_domain}")
        return _addressable(obj, reference, f"{kind},Namespace:{namespace},Name:{name},UID:,APIVersion:{api_version}")

    async def _cache(self, api_version: str, kind_name: str, namespace: str, name: str) -> Cache:
        known = self._caches.get((api_version, kind_name))
        if known is None:
            try:
                kind = await self._client.kind_of(api_version, kind_name)
            except ObjectNotFoundError as error:
                self._follow_definitions()
                unresolved = UnresolvedError(
                    f'failed to get object {namespace}/{name}: no matches for kind "{kind_name}" in version "{api_version}"'
                )
                unresolved.retry_after = _UNSERVED_RETRY_S
                raise unresolved from error
            # Another reconciler may have made it while this one was asking.
            known = self._caches.get((api_version, kind_name))
            if known is None:
                known = self._new_cache(kind)
                self._follow(known)
                self._listed_by[api_version, kind_name] = asyncio.get_running_loop().time() + _FIRST_LIST_S
                self._follow_definitions()
                self._to_run.put_nowait(known)
        if not known.is_synced:
            # A kind that cannot be listed (no permission, a server that hangs) must not hold up the workers for good.
            try:
                async with asyncio.timeout_at(self._listed_by.get((api_version, kind_name), 0.0)):
                    await known.synced()
            except TimeoutError as error:
                unresolved = UnresolvedError(f"failed to get object {namespace}/{name}: {known.kind.plural} cannot be listed")
                unresolved.retry_after = _UNSERVED_RETRY_S
                raise unresolved from error
        return known

    def _follow_definitions(self) -> None:
        """From the first reference to a kind that is not our own: kinds come and go with their definitions."""
        if self._definitions is None:
            self._definitions = self._new_cache(_DEFINITION)
            self._definitions.on_change(self._defined)
            self._to_run.put_nowait(self._definitions)

    def _defined(self, change: Change) -> None:
        spec = change.obj.get("spec") or {}
        group, name = spec.get("group", ""), (spec.get("names") or {}).get("kind", "")
        if change.type == "DELETED":
            for version in spec.get("versions") or ():
                self._forget(f"{group}/{version['name']}", name)
        for target in self._tracker.targets():
            if target[1] == name and target[0].rpartition("/")[0] == group:
                for watcher in self._tracker.watchers(target):
                    self._changed(watcher)

    def _forget(self, api_version: str, kind_name: str) -> None:
        """The kind is no more: what was known of it would be shown for ever."""
        self._client.forget_kind(api_version, kind_name)
        if self._listed_by.pop((api_version, kind_name), None) is not None:  # not one of those that were given
            running = self._running.pop(self._caches.pop((api_version, kind_name)), None)
            if running is not None:
                running.cancel()

    def _follow(self, cache: Cache) -> None:
        kind = cache.kind
        self._caches[kind.api_version, kind.kind] = cache

        def told(change: Change) -> None:
            if change.type == "MODIFIED" and change.old is not None and _address_of(change.obj) == _address_of(change.old):
                return
            for watcher in self._tracker.watchers((kind.api_version, kind.kind, *change.key)):
                self._changed(watcher)

        cache.on_change(told)


def _address_of(obj: Object) -> tuple[Any, Any]:
    status = obj.get("status") or {}
    return status.get("address"), status.get("addresses")


def _addressable(obj: Object, reference: Mapping[str, Any], text: str) -> Resolved:
    """The address of an object: the named one, else the first of status.addresses, else status.address."""
    address, addresses = _address_of(obj)
    described = f"&ObjectReference{{Kind:{text},ResourceVersion:,FieldPath:,}}"
    if wanted := reference.get("address"):
        address = next((one for one in addresses or () if one.get("name") == wanted), None)
        if address is None:
            raise UnresolvedError(f'address with name "{wanted}" not found for {described}')
    elif addresses:
        address = addresses[0]
    if not address:
        raise UnresolvedError(f"address not set for {described}")
    url = address.get("url")
    if not url:
        raise UnresolvedError(f"URL missing in address of {described}")
    if not urlsplit(url).hostname:
        raise UnresolvedError(f"hostname missing in address of {described}")
    return Resolved(url, address.get("CACerts"), address.get("audience"))
