"""What is served: `/api`, `/apis` and the documents of groups, plain and aggregated."""

from typing import Any, Final

import msgspec

from eventing.apiserver.failures import path_not_found
from eventing.apiserver.registry import CUSTOM_VERBS, Registry, Resource

__all__ = ["Discovery", "aggregated_version"]

_STATUS_VERBS: Final = ["get", "patch", "update"]


def aggregated_version(accept: str) -> str:
    """The version of the aggregated discovery document that the client wants first; "" for the plain ones."""
    for entry in accept.split(","):
        params = dict(part.strip().partition("=")[::2] for part in entry.split(";")[1:])
        if params.get("as") == "APIGroupDiscoveryList" and params.get("g") == "apidiscovery.k8s.io":
            if params.get("v") in {"v2", "v2beta1"}:
                return params["v"]
        elif entry.split(";")[0].strip() in {"application/json", "*/*"}:
            return ""
    return ""


class Discovery:
    """The documents, made from the registry and kept until it changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._made: dict[tuple[str, ...], bytes] = {}
        self._generation = -1

    def roots(self, family: str, aggregated: str) -> bytes:
        """`/api` or `/apis`."""
        return self._cached((family, aggregated))

    def group(self, group: str) -> bytes:
        """`/apis/GROUP`. Raises 404."""
        if group not in self._registry.groups():
            raise path_not_found()
        return self._cached(("group", group))

    def version(self, group: str, version: str) -> bytes:
        """`/apis/GROUP/VERSION` or `/api/v1`. Raises 404."""
        if version not in self._registry.groups().get(group, {}):
            raise path_not_found()
        return self._cached(("version", group, version))

    def _cached(self, key: tuple[str, ...]) -> bytes:
        if self._generation != self._registry.generation:
            self._made.clear()
            self._generation = self._registry.generation
        if key not in self._made:
            self._made[key] = msgspec.json.encode(self._make(key))
        return self._made[key]

    def _make(self, key: tuple[str, ...]) -> dict[str, Any]:
        groups = self._registry.groups()
        match key:
            case ("api", ""):
                return {"kind": "APIVersions", "versions": list(groups[""]), "serverAddressByClientCIDRs": []}
            case ("apis", ""):
                listed = [_group(name, versions) for name, versions in groups.items() if name]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case (("api" | "apis") as family, aggregated):
                chosen = {name: versions for name, versions in groups.items() if bool(name) == (family == "apis")}
                singulars = frozenset(resource.singular for resource in self._registry)
                return {
                    "kind": "APIGroupDiscoveryList",
                    "apiVersion": f"apidiscovery.k8s.io/{aggregated}",
                    "metadata": {},
                    "items": [_aggregated(name, versions, singulars) for name, versions in chosen.items()],
                }
            case ("group", group):
                return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
            case (_, group, version):
                resources = [entry for resource in groups[group][version] for entry in _entries(resource)]
                name = f"{group}/{version}" if group else version
                return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}
        raise LookupError(key)


def _group(name: str, versions: dict[str, list[Resource]]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _entries(resource: Resource) -> list[dict[str, Any]]:
    kind = resource.kind
    entry: dict[str, Any] = {
        "name": kind.plural,
        "singularName": resource.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(CUSTOM_VERBS),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    entries = [entry]
    if kind.status:
        status = {"name": f"{kind.plural}/status", "singularName": "", "namespaced": kind.namespaced, "kind": kind.kind}
        entries.append({**status, "verbs": _STATUS_VERBS})
    return entries


def _aggregated(name: str, versions: dict[str, list[Resource]], singulars: frozenset[str]) -> dict[str, Any]:
    listed = [
        {"version": version, "resources": [_aggregated_entry(each, singulars) for each in resources], "freshness": "Current"}
        for version, resources in versions.items()
    ]
    return {"metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None}, "versions": listed}


def _aggregated_entry(resource: Resource, singulars: frozenset[str]) -> dict[str, Any]:
    """A category that is also the name of one kind is left to that kind here, for kubectl's sake (decision 0008).

    kubectl looks at categories before names, and refuses "get channel NAME" where the category `channel` holds several kinds.
    """
    kind = resource.kind
    response = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": response,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(CUSTOM_VERBS),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    categories = [each for each in kind.categories if each == resource.singular or each not in singulars]
    if categories:
        entry["categories"] = categories
    if kind.status:
        entry["subresources"] = [{"subresource": "status", "responseKind": response, "verbs": _STATUS_VERBS}]
    return entry
