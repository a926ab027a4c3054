"""A client for the tests: one line per request, (code, body) as answer."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from eventing.apiserver import ApiServer

__all__ = ["SHAPES", "Client", "Watch", "shape"]

SHAPES = "/apis/shapes.example.com/v1/namespaces/default/shapes"
MERGE = "application/merge-patch+json"


def shape(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "shapes.example.com/v1", "kind": "Shape", "metadata": {"name": name}, "spec": spec}


class Watch:
    """An open watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any] | None:
        """The next event; None at the end."""
        async with asyncio.timeout(10):
            line = await self.response.content.readline()
        return json.loads(line) if line else None

    async def take(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events if event]


class Client:
    """Talks to one server as the admin, unless another token is given."""

    def __init__(self, session: aiohttp.ClientSession, url: str, server: ApiServer) -> None:
        self.session = session
        self.url = url
        self.server = server

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "admin-token",
        content_type: str = "application/json",
        headers: Any = None,
        **params: Any,
    ) -> tuple[int, Any]:
        code, answer, _ = await self.ask_all(
            method, path, body, token=token, content_type=content_type, headers=headers, **params
        )
        return code, answer

    async def ask_all(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "admin-token",
        content_type: str = "application/json",
        headers: Any = None,
        **params: Any,
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        lines = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            lines["Content-Type"] = content_type
            body = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        request = self.session.request(method, self.url + path, data=body, headers={**lines, **(headers or {})}, params=params)
        async with request as response:
            text = await response.read()
            is_json = response.headers.get("content-type", "").startswith("application/json")
            return response.status, json.loads(text) if is_json else text, response

    async def get(self, path: str, **params: str) -> Any:
        code, body = await self.ask("GET", path, **params)
        assert code == 200, body
        return body

    async def create(self, path: str, obj: Any, **params: str) -> Any:
        code, body = await self.ask("POST", path, obj, **params)
        assert code == 201, body
        return body

    async def patch(self, path: str, patch: Any, content_type: str = MERGE, **params: str) -> Any:
        code, body = await self.ask("PATCH", path, patch, content_type=content_type, **params)
        assert code in {200, 201}, body
        return body

    async def apply(self, path: str, obj: Any, manager: str, force: str = "false") -> tuple[int, Any]:
        params = {"fieldManager": manager, "force": force}
        return await self.ask("PATCH", path, obj, content_type="application/apply-patch+yaml", **params)

    @asynccontextmanager
    async def watch(self, path: str, headers: Any = None, **params: Any) -> AsyncIterator[Watch]:
        lines = {"Authorization": "Bearer admin-token", **(headers or {})}
        async with self.session.get(self.url + path, params={"watch": "true", **params}, headers=lines) as response:
            assert response.status == 200, await response.read()
            yield Watch(response)

    async def gone(self, path: str) -> None:
        """Return when the object is no more."""
        async with asyncio.timeout(10):
            while (await self.ask("GET", path))[0] != 404:
                await asyncio.sleep(0.01)
