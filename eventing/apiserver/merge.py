"""Patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and the strategic merge patch of the core kinds."""

from collections.abc import Mapping
from typing import Any

import jsonpatch
import jsonpointer

from eventing.apiserver.failures import bad_request, failure
from eventing.resources.kinds import Object

__all__ = ["json_patch", "merge_patch", "strategic_merge"]

_MAX_OPERATIONS = 10_000


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with the patch applied (RFC 7386 §2); neither is altered, parts are shared."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def json_patch(target: Object, operations: Any) -> Any:
    """The target with the operations applied. A test that fails is 422, as is a path that leads nowhere."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is an array of operations")
    if len(operations) > _MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(operations)}"
        raise failure(413, "RequestEntityTooLarge", message)
    try:
        return jsonpatch.JsonPatch(operations).apply(target)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"invalid JSON patch: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        text = _failed_test(target, operations) if isinstance(error, jsonpatch.JsonPatchTestFailed) else str(error)
        message = f"the server rejected our request due to an error in our request: {text}"
        raise failure(422, "Invalid", message) from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # The library lets these through where an operation does not fit the document ("add" below a number).
        raise failure(422, "Invalid", f"the JSON patch does not fit the object: {error}") from None


def _failed_test(target: Any, operations: list[Any]) -> str:
    """Which test failed, as Kubernetes says it."""
    for operation in operations:
        try:
            target = jsonpatch.JsonPatch([operation]).apply(target)
        except jsonpatch.JsonPatchTestFailed:
            return f"testing value {operation['path']} failed: test failed"
    return "a test failed"


def strategic_merge(target: Any, patch: Any, keys: Mapping[str, str], path: str = "") -> Any:
    """The target with a strategic merge patch applied.

    `keys` says how lists merge: path to merge key, "" for a set of plain values; other lists are replaced. Directives:
    `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/NAME`, `$setElementOrder/NAME`.
    """
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive not in {None, "replace", "delete", "merge"}:
        raise bad_request(f"Unknown patch type found: {directive}")
    body = {name: value for name, value in patch.items() if not name.startswith("$")}
    if directive == "delete":
        return {}
    if directive == "replace" or not isinstance(target, dict):
        target = {}
    retained = patch.get("$retainKeys")
    result = {name: value for name, value in target.items() if not isinstance(retained, list) or name in retained}
    for name, value in body.items():
        below = f"{path}.{name}" if path else name
        if value is None:
            result.pop(name, None)
        elif isinstance(value, list) and below in keys:
            result[name] = _merge_list(result.get(name) or [], value, keys, below)
        else:
            result[name] = strategic_merge(result.get(name), value, keys, below)
    for name, value in patch.items():
        kind, _, field = name.partition("/")
        if kind == "$deleteFromPrimitiveList" and isinstance(result.get(field), list):
            result[field] = [item for item in result[field] if item not in value]
        elif kind == "$setElementOrder" and isinstance(result.get(field), list):
            live = target.get(field) if isinstance(target.get(field), list) else []
            result[field] = _ordered(result[field], value, keys.get(f"{path}.{field}" if path else field, ""), live)
    return result


def _merge_list(current: list[Any], patch: list[Any], keys: Mapping[str, str], path: str) -> list[Any]:
    key = keys[path]
    if not key:
        return current + [item for item in patch if item not in current]
    result = list(current)
    for item in patch:
        if not isinstance(item, dict):
            raise bad_request(f"cannot merge {path}: its elements must be objects")
        if item.get("$patch") == "replace" and len(item) == 1:
            result = []
            continue
        if key not in item:
            raise bad_request(f"cannot merge {path}: an element lacks the merge key {key}")
        at = next((i for i, old in enumerate(result) if isinstance(old, dict) and old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic_merge({}, item, keys, path))
        else:
            result[at] = strategic_merge(result[at], item, keys, path)
    return result


def _ordered(items: list[Any], order: Any, key: str, live: list[Any]) -> list[Any]:
    """What `order` names comes in its order; the rest keeps its own, each before what it was before in the live list."""
    if not isinstance(order, list):
        return items

    def place(item: Any, among: list[Any]) -> int:
        identity = item.get(key) if key and isinstance(item, dict) else item
        return among.index(identity) if identity in among else -1

    def identities(given: list[Any]) -> list[Any]:
        return [item.get(key) if key and isinstance(item, dict) else item for item in given]

    ranks, places = identities(order), identities(live)
    listed = sorted((item for item in items if place(item, ranks) >= 0), key=lambda item: place(item, ranks))
    rest = [item for item in items if place(item, ranks) < 0]
    result = []
    while listed and rest:
        before = 0 <= place(rest[0], places) < place(listed[0], places)
        result.append(rest.pop(0) if before else listed.pop(0))
    return result + listed + rest
