"""The client against a small server that speaks just enough of the protocol, over real HTTP."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from eventing.errors import (
    ApiError,
    ApiUnavailableError,
    ObjectConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    ResourceExpiredError,
)
from eventing.kube import Cluster, KubeClient
from eventing.resources.kinds import Kind, Object

THING = Kind(group="example.com", version="v1", kind="Thing", plural="things", schema={})
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[KubeClient]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> KubeClient:
            runner = web.ServerRunner(web.Server(handler))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            client = KubeClient(Cluster(f"http://127.0.0.1:{runner.addresses[0][1]}", token="s3cret"), user_agent="test/1")
            stack.push_async_callback(client.aclose)
            return client

        yield start


def status(code: int, reason: str = "", message: str = "no") -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


async def test_requests_as_kubernetes_wants_them(serve: Serve) -> None:
    seen: list[tuple[str, str, str, Any]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.headers["Authorization"] == "Bearer s3cret"
        assert request.headers["User-Agent"] == "test/1"
        body = json.loads(await request.read() or b"null")
        seen.append((request.method, str(request.rel_url), request.headers.get("Content-Type", ""), body))
        return web.json_response({"ok": True})

    client = await serve(handler)
    obj: Object = {"metadata": {"namespace": "a", "name": "b/c"}}
    await client.get(THING, "a", "b")
    await client.create(THING, obj, field_manager="me")
    await client.replace(THING, obj, "status")
    await client.patch(THING, "a", "b", {"x": 1}, subresource="status")
    await client.patch(THING, "a", "b", {}, content_type="application/apply-patch+yaml", field_manager="me", force=True)
    await client.delete(THING, "a", "b", uid="7")
    root = "/apis/example.com/v1/namespaces/a/things"
    assert [(method, url) for method, url, *_ in seen] == [
        ("GET", f"{root}/b"),
        ("POST", f"{root}?fieldManager=me"),
        ("PUT", f"{root}/b%2Fc/status"),
        ("PATCH", f"{root}/b/status"),
        ("PATCH", f"{root}/b?fieldManager=me&force=true"),
        ("DELETE", f"{root}/b"),
    ]
    assert [kind for *_, kind, _ in seen[3:5]] == ["application/merge-patch+json", "application/apply-patch+yaml"]
    assert seen[5][3]["preconditions"] == {"uid": "7"}


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (404, "NotFound", ObjectNotFoundError),
        (409, "AlreadyExists", ObjectExistsError),
        (409, "Conflict", ObjectConflictError),
        (410, "Expired", ResourceExpiredError),
        (429, "TooManyRequests", ApiUnavailableError),
        (500, "InternalError", ApiUnavailableError),
        (403, "Forbidden", ApiError),
        (302, "", ApiError),
    ],
)
async def test_errors(serve: Serve, code: int, reason: str, error: type[ApiError]) -> None:
    async def handler(_request: web.BaseRequest) -> web.Response:
        answer = status(code, reason, "what went wrong")
        answer.headers["Retry-After"] = "3"
        return answer

    client = await serve(handler)
    with pytest.raises(error) as caught:
        await client.get(THING, "a", "b")
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.message, caught.value.retry_after) == (code, "what went wrong", 3.0)


async def test_an_answer_that_is_not_json_is_no_answer(serve: Serve) -> None:
    async def handler(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="<html>")

    with pytest.raises(ApiUnavailableError):
        await (await serve(handler)).get(THING, "a", "b")


async def test_no_server_and_no_secret_in_the_message() -> None:
    client = KubeClient(Cluster("http://127.0.0.1:1", token="s3cret"), user_agent="t")
    with pytest.raises(ApiUnavailableError) as caught:
        await client.get(THING, "a", "b")
    await client.aclose()
    assert caught.value.retriable
    assert "s3cret" not in str(caught.value)


async def test_list_reads_pages_and_starts_over_without_them_when_they_expire(serve: Serve) -> None:
    queries: list[dict[str, str]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        query = dict(request.query)
        queries.append(query)
        if query.get("continue") == "1":
            return status(410, "Expired")
        names = ["a", "b", "c"] if "limit" not in query else ["a"]
        metadata = {"resourceVersion": "9"} | ({"continue": "1"} if "limit" in query else {})
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": n}} for n in names]})

    items, version = await (await serve(handler)).list(THING, label_selector="x=y")
    assert [item["metadata"]["name"] for item in items] == ["a", "b", "c"]
    assert (items[0]["kind"], items[0]["apiVersion"], version) == ("Thing", "example.com/v1", "9")
    assert all(query["labelSelector"] == "x=y" for query in queries)


async def test_watch_yields_frames_of_any_size_and_ends_with_the_server(serve: Serve) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert dict(request.query) == {
            "watch": "true",
            "resourceVersion": "5",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "60",
        }
        response = web.StreamResponse()
        await response.prepare(request)
        for type_, value in (("ADDED", "x"), ("MODIFIED", "y" * 300_000), ("BOOKMARK", "")):
            frame = json.dumps({"type": type_, "object": {"value": value}}).encode() + b"\n"
            await response.write(frame[:7])
            await response.write(frame[7:])
        return response

    client = await serve(handler)
    watch = client.watch(THING, resource_version="5", timeout_s=60)
    events = [(type_, len(obj["value"])) async for type_, obj in watch]
    assert events == [("ADDED", 1), ("MODIFIED", 300_000), ("BOOKMARK", 0)]


@pytest.mark.parametrize("in_stream", [True, False])
async def test_watch_of_the_past_is_expired(serve: Serve, *, in_stream: bool) -> None:
    async def handler(_request: web.BaseRequest) -> web.Response:
        if not in_stream:
            return status(410, "Expired")
        return web.json_response({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}})

    client = await serve(handler)
    with pytest.raises(ResourceExpiredError):
        await anext(client.watch(THING, resource_version="5", timeout_s=60))


async def test_kind_of_asks_discovery_once(serve: Serve) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        resources = [
            {"name": "things", "kind": "Thing", "namespaced": True},
            {"name": "things/status", "kind": "Thing", "namespaced": True},
        ]
        return web.json_response({"resources": resources})

    client = await serve(handler)
    for _ in range(2):
        kind = await client.kind_of("example.com/v1", "Thing")
    assert (kind.group, kind.version, kind.plural, kind.status) == ("example.com", "v1", "things", True)
    with pytest.raises(ObjectNotFoundError):
        await client.kind_of("v1", "Other")
    assert asked == ["/apis/example.com/v1", "/api/v1"]
