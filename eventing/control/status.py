"""Status, written only where it changed, conditions and observedGeneration in the same write."""

from typing import Any

from eventing.control.reasons import INVALID
from eventing.errors import InvalidObjectError, ObjectNotFoundError
from eventing.kube import Cache, KubeClient
from eventing.resources.conditions import condition_of
from eventing.resources.kinds import Admission, Kind, Object

__all__ = ["FIELD_MANAGER", "begin_status", "deleted", "fault_of", "key_of", "merge_patch", "write_status"]

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


def fault_of(kind: Kind, obj: Object) -> str:
    """What is wrong with an object, in Knative's words; "" where nothing is.

    Admission lets no such object in, but not every API server asks our admission. Looked at once per generation.
    """
    status = obj.get("status") or {}
    before = condition_of(obj) or {}
    if status.get("observedGeneration") == obj["metadata"].get("generation", 1) and before.get("reason") != INVALID:
        return ""
    try:
        kind.validate(obj, None, Admission(user="", operation="CREATE"))
    except InvalidObjectError as error:
        return str(error)
    return ""


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
