"""Status, written only where it changed, conditions and observedGeneration in the same write."""

from typing import Any

from eventing.errors import ObjectNotFoundError
from eventing.kube import Cache, KubeClient
from eventing.resources.kinds import Object

__all__ = ["FIELD_MANAGER", "begin_status", "deleted", "key_of", "merge_patch", "write_status"]

FIELD_MANAGER = "eventing-controller"


def key_of(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def deleted(obj: Object) -> bool:
    """Somebody has deleted the object; it is only there until its finalizers are done."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def begin_status(obj: Object) -> Object:
    """A status to work on, which speaks of the object's present generation.

    Its fields are the cached object's own: they are replaced, never altered (a channel's may hold thousands of entries).
    """
    status: Object = dict(obj.get("status") or {})
    status["observedGeneration"] = obj["metadata"].get("generation", 1)
    return status


async def write_status(client: KubeClient, cache: Cache, obj: Object, status: Object) -> None:
    """Write what differs from the object's status, if anything does. An object that is gone meanwhile needs none."""
    changes = merge_patch(obj.get("status") or {}, status)
    if not changes:
        return
    namespace, name = key_of(obj)
    # The uid makes it this object or none: another of the same name has a life of its own.
    body = {"metadata": {"uid": obj["metadata"]["uid"]}, "status": changes}
    try:
        written = await client.patch(cache.kind, namespace, name, body, subresource="status", field_manager=FIELD_MANAGER)
    except ObjectNotFoundError:
        return
    cache.remember(written)


def merge_patch(old: Object, new: Object) -> Object:
    """The JSON merge patch (RFC 7386) that makes `new` of `old`; {} where they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif value != before or key not in old:
            patch[key] = value
    return patch
