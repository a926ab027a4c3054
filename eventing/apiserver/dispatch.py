"""From an HTTP request to a verb on a resource. There is one way for all kinds: they are data."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from eventing.apiserver.answers import ClientGoneError, answer, answer_error, read_body
from eventing.apiserver.connection import ABORT
from eventing.apiserver.failures import bad_request, invalid_options, method_not_allowed, path_not_found, unsupported_media_type
from eventing.apiserver.merge import json_patch, merge_patch, strategic_merge
from eventing.apiserver.reading import Reader, selection_of
from eventing.apiserver.registry import Registry, Resource
from eventing.apiserver.requests import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Options,
    Request,
    View,
    decode_body,
    decode_json,
    decode_yaml,
    expect_object,
    parse_target,
    parse_view,
)
from eventing.apiserver.reviews import review
from eventing.apiserver.store import Store
from eventing.apiserver.watching import Watches
from eventing.apiserver.writing import DeleteOptions, Writer
from eventing.errors import ApiError
from eventing.observe.control_metrics import ApiMetrics
from eventing.resources.kinds import Object

__all__ = ["Dispatcher", "Target", "parse_request"]

_STUCK_S: Final = 30.0  # a watcher that takes nothing for so long is cut off
_WARNING_SIZE: Final = 256
_WARNINGS_SIZE: Final = 4 * 1024
_MOST_WARNINGS: Final = 50
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names; `name` is empty for a collection, `namespace` for all of them."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


async def parse_request(scope: Scope, receive: Receive) -> Request:
    """Read a request, its body included."""
    path, parts, params = parse_target(scope["raw_path"], scope["query_string"])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    body = await read_body(receive, headers.get("content-length", "")) if scope["method"] in _WRITES else b""
    return Request(scope["method"], path, parts, params, headers, body, scope["user"])


class Dispatcher:
    """The ASGI application under `/api` and `/apis`."""

    def __init__(
        self, registry: Registry, store: Store, reader: Reader, writer: Writer, watches: Watches, metrics: ApiMetrics
    ) -> None:
        self._registry = registry
        self._store = store
        self._reader = reader
        self._writer = writer
        self._watches = watches
        self._metrics = metrics
        self._verbs: dict[tuple[str, bool], Callable[[Target, Request], Awaitable[tuple[int, bytes]]]] = {
            ("GET", True): self._get,
            ("PUT", True): self._put,
            ("PATCH", True): self._patch,
            ("DELETE", True): self._delete,
            ("GET", False): self._list,
            ("POST", False): self._post,
            ("DELETE", False): self._delete_collection,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        verb_name = resource = ""
        try:
            request = await parse_request(scope, receive)
            target = self._target(request)
            if target is not None:
                verb_name, resource = _verb_name(target, request), target.resource.key
            if target is None:
                code, body = review(request)
            elif request.method == "GET" and not target.subresource and request.flag("watch"):
                await self._watch(target, request, scope, receive, send)
                self._metrics.answered(verb_name, resource, 200, None)
                return
            else:
                method = "GET" if request.method == "HEAD" else request.method
                verb = self._verbs.get((method, bool(target.name)))
                if verb is None or (target.subresource and method == "DELETE"):
                    raise method_not_allowed()
                code, body = await verb(target, request)
        except ApiError as error:
            code = error.code
            await answer_error(send, error)
        except RecursionError:
            code = 400
            await answer_error(send, bad_request("the request is nested too deep"))
        except ClientGoneError:
            return
        else:
            await answer(send, code, body, headers=_warnings(request.warnings))
        self._metrics.answered(verb_name, resource, code, time.perf_counter() - began)

    def _target(self, request: Request) -> Target | None:
        """Raises 404 for what is not served. None for reviews, which are asked and not kept."""
        parts = request.parts
        group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[2:])
        version, rest = (rest[0], rest[1:]) if rest else ("", ())
        namespace = ""
        own = not group and len(rest) == 3 and rest[2] in {"status", "finalize"}  # of a namespace itself
        if len(rest) >= 3 and rest[0] == "namespaces" and not own:
            namespace, rest = rest[1], rest[2:]
        resource = self._registry.find(group, version, rest[0]) if rest else None
        if resource is None:
            if len(rest) == 1 and request.method == "POST" and f"{group}/{rest[0]}" in _REVIEWS:
                return None
            raise path_not_found()
        name, subresource = (*rest[1:], "", "")[:2]
        if len(rest) > 3 or bool(namespace) > resource.kind.namespaced or (rest[1:] and not name):
            raise path_not_found()
        if resource.kind.namespaced and not namespace and name:
            raise path_not_found()
        if subresource and not resource.subresource(subresource):
            raise path_not_found()
        return Target(resource, namespace, name, subresource)

    @staticmethod
    def _view(request: Request) -> View:
        return parse_view(request.headers.get("accept", ""), request.params.get("includeObject", ""))

    async def _get(self, target: Target, request: Request) -> tuple[int, bytes]:
        view = self._view(request)
        version = request.number("resourceVersion")
        return 200, self._reader.get(target.resource, (target.namespace, target.name), view, version)

    async def _list(self, target: Target, request: Request) -> tuple[int, bytes]:
        return 200, self._reader.list(target.resource, target.namespace, request, self._view(request))

    async def _post(self, target: Target, request: Request) -> tuple[int, bytes]:
        if target.resource.kind.namespaced and not target.namespace:
            raise method_not_allowed()
        view = self._view(request)
        obj = expect_object(decode_body(request), target.resource.kind)
        options = Options.of(request)
        data = await self._writer.create(target.resource, target.namespace, obj, options, request)
        return 201, self._reader.show(target.resource, data, view)

    async def _put(self, target: Target, request: Request) -> tuple[int, bytes]:
        view = self._view(request)
        obj = expect_object(decode_body(request), target.resource.kind)
        data = await self._writer.update(
            target.resource,
            (target.namespace, target.name),
            lambda _old: obj,
            Options.of(request),
            request,
            subresource=target.subresource,
            whole=True,
        )
        return 200, self._reader.show(target.resource, data, view)

    async def _patch(self, target: Target, request: Request) -> tuple[int, bytes]:
        view = self._view(request)
        key = (target.namespace, target.name)
        options = Options.of(request)
        if request.content_type == APPLY_PATCH:
            if not request.params.get("fieldManager"):
                raise invalid_options("PatchOptions", "fieldManager", "Required value: is required for apply patch")
            config = expect_object(decode_yaml(request.body))
            code, data = await self._writer.apply(target.resource, key, config, options, request, subresource=target.subresource)
            return code, self._reader.show(target.resource, data, view)
        if "force" in request.params:
            raise invalid_options("PatchOptions", "force", "Forbidden: may not be specified for non-apply patch")
        data = await self._writer.update(
            target.resource, key, self._change(target.resource, request), options, request, subresource=target.subresource
        )
        return 200, self._reader.show(target.resource, data, view)

    @staticmethod
    def _change(resource: Resource, request: Request) -> Callable[[Object], Any]:
        """What the patch does to an object. Raises 400 and 415."""
        accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
        if resource.typed:
            accepted.append(STRATEGIC_PATCH)
        if request.content_type not in accepted:
            raise unsupported_media_type(accepted)
        patch = decode_json(request.body)
        match request.content_type:
            case "application/merge-patch+json":
                return lambda obj: merge_patch(obj, patch)
            case "application/json-patch+json":
                return lambda obj: json_patch(obj, patch)
            case _:
                return lambda obj: strategic_merge(obj, patch, resource.kind.strategic_merge_keys)

    async def _delete(self, target: Target, request: Request) -> tuple[int, bytes]:
        result = await self._writer.delete(target.resource, (target.namespace, target.name), _delete_options(request))
        return 200, msgspec.json.encode(result)

    async def _delete_collection(self, target: Target, request: Request) -> tuple[int, bytes]:
        """Kubernetes' deletecollection: one deletion after the other; the answer lists what was there."""
        if target.resource.kind.namespaced and not target.namespace:
            raise method_not_allowed()
        options = _delete_options(request)
        selection = selection_of(target.resource, target.namespace, request)
        listed = self._reader.list(target.resource, target.namespace, request, View())
        for record in self._store.collection(target.resource.key).sorted():
            if selection.matches(record):
                try:
                    await self._writer.delete(target.resource, record.key, options)
                except ApiError as error:
                    if error.code != 404:
                        raise
        return 200, listed

    async def _watch(self, target: Target, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        view = self._view(request)
        if target.name:
            raise bad_request("a watch is of a collection: use fieldSelector=metadata.name=NAME")
        watcher = self._watches.open(target.resource, target.namespace, request, view)

        async def send_part(part: bytes) -> None:
            try:
                async with asyncio.timeout(_STUCK_S):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except TimeoutError:
                watcher.stop()
                if (extension := scope.get("extensions", {}).get(ABORT)) is not None:
                    extension["abort"]()

        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache, private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await watcher.run(receive, send_part)
        await send({"type": "http.response.body", "body": b""})


_REVIEWS: Final = frozenset(
    {
        "authentication.k8s.io/selfsubjectreviews",
        "authorization.k8s.io/selfsubjectaccessreviews",
        "authorization.k8s.io/selfsubjectrulesreviews",
    }
)


def _warnings(texts: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """Header lines (RFC 7234, 5.5), each text once; as many as Kubernetes sends, and as Python's clients take lines."""
    lines: list[tuple[bytes, bytes]] = []
    left = _WARNINGS_SIZE
    for text in dict.fromkeys(text[:_WARNING_SIZE] for text in texts):
        left -= len(text)
        if left < 0 or len(lines) == _MOST_WARNINGS:
            break
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        printable = "".join(letter if letter.isprintable() else "?" for letter in escaped)
        lines.append((b"warning", f'299 - "{printable}"'.encode()))
    return lines


_VERBS: Final = {
    ("GET", True): "get",
    ("HEAD", True): "get",
    ("PUT", True): "update",
    ("DELETE", True): "delete",
    ("GET", False): "list",
    ("HEAD", False): "list",
    ("POST", False): "create",
    ("DELETE", False): "deletecollection",
}


def _verb_name(target: Target, request: Request) -> str:
    """As Kubernetes names it; "" for what is none."""
    if request.method == "PATCH":
        return "apply" if request.content_type == APPLY_PATCH else "patch"
    if request.method == "GET" and not target.subresource and request.flag("watch"):
        return "watch"
    return _VERBS.get((request.method, bool(target.name)), "")


def _delete_options(request: Request) -> DeleteOptions:
    """From the body, else from the query."""
    body = decode_body(request) if request.body.strip() else {}
    if not isinstance(body, dict):
        raise bad_request("DeleteOptions must be an object")
    preconditions = body.get("preconditions") or {}
    propagation = body.get("propagationPolicy") or request.params.get("propagationPolicy", "")
    if body.get("orphanDependents") and not propagation:
        propagation = "Orphan"
    dry_run = body.get("dryRun") or ([request.params["dryRun"]] if request.params.get("dryRun") else [])
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        text = f'Unsupported value: {json.dumps(propagation)}: supported values: "Background", "Foreground", "Orphan"'
        raise invalid_options("DeleteOptions", "propagationPolicy", text)
    if dry_run not in ([], ["All"]):
        raise invalid_options("DeleteOptions", "dryRun", f'Unsupported value: {json.dumps(dry_run)}: supported values: "All"')
    if not isinstance(preconditions, dict):
        raise bad_request("preconditions must be an object")
    uid, version = preconditions.get("uid") or "", preconditions.get("resourceVersion") or ""
    return DeleteOptions(str(uid), str(version), propagation, dry_run == ["All"])
