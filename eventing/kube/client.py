"""Requests to a Kubernetes API, JSON in and out, failures as `eventing.errors.Api*`. The only module that
knows aiohttp.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec

from eventing.errors import ApiError, ApiUnavailableError, ObjectNotFoundError, ResourceExpiredError, api_error
from eventing.kube.cluster import Cluster
from eventing.resources.kinds import Kind, Object

__all__ = ["KubeClient", "Outage"]

_REQUEST_TIMEOUT_S: Final = 30.0
_CONNECT_TIMEOUT_S: Final = 10.0
_WATCH_GRACE_S: Final = 30.0
_TOKEN_S: Final = 10.0  # a cluster renews a pod's token long before the old one ends
_PAGE: Final = 500
_MAX_FRAME: Final = 64 * 1024 * 1024
MERGE_PATCH: Final = "application/merge-patch+json"

_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Outage:
    """The server has given no answer since then (monotonic clock, seconds); the error is the latest."""

    since: float
    error: str


class KubeClient:
    """A connection pool to one API server. Make it anywhere, use it within one event loop, `aclose` it there.

    `outage` is None while the server answers, be it with errors.
    """

    def __init__(self, cluster: Cluster, *, user_agent: str) -> None:
        self._cluster = cluster
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._discovered: dict[tuple[str, str], Kind] = {}
        self._token: str | None = None
        self._token_until = 0.0
        self.outage: Outage | None = None

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """One object; ObjectNotFoundError where there is none."""
        return await self._call("GET", _path(kind, namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, name: str = ""
    ) -> tuple[list[Object], str]:
        """All objects (of one namespace, or of all; of one name), read in pages, and the resource version to watch from."""
        query = {"limit": str(_PAGE)} | _selecting(name) | ({"labelSelector": label_selector} if label_selector else {})
        items: list[Object] = []
        while True:
            try:
                page = await self._call("GET", _path(kind, namespace), query)
            except ResourceExpiredError:
                if "continue" not in query:
                    raise
                # The pages' snapshot is gone: read all in one go, which needs none.
                query = {key: value for key, value in query.items() if key in {"labelSelector", "fieldSelector"}}
                items = []
                continue
            for item in page.get("items") or ():
                # Items of a list do not say what they are.
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
                items.append(item)
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]

    async def create(self, kind: Kind, obj: Object, *, field_manager: str = "") -> Object:
        """Make an object; ObjectExistsError where there is one of that name."""
        path = _path(kind, obj["metadata"].get("namespace"))
        return await self._call("POST", path, _manager(field_manager), obj)

    async def replace(self, kind: Kind, obj: Object, subresource: str = "") -> Object:
        """Put the object in place of the one there; ObjectConflictError if its resourceVersion is not the
        latest.
        """
        metadata = obj["metadata"]
        path = _path(kind, metadata.get("namespace"), metadata["name"], subresource)
        return await self._call("PUT", path, None, obj)

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        """Change an object: a JSON merge patch unless `content_type` says otherwise; the object as it is
        then.
        """
        query = _manager(field_manager) | ({"force": "true"} if force else {})
        path = _path(kind, namespace, name, subresource)
        return await self._call("PATCH", path, query, body, content_type=content_type)

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        """Delete an object, dependants in the background; with `uid` only that very one, else
        ObjectConflictError.
        """
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._call("DELETE", _path(kind, namespace, name), None, options)

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str, timeout_s: float, name: str = ""
    ) -> AsyncGenerator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) as they come, until the server ends it
        (`timeout_s`).

        ResourceExpiredError: list again. Close the iterator (`contextlib.aclosing`) where it is left early.
        """
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(timeout_s))),
            **_selecting(name),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=timeout_s + _WATCH_GRACE_S)
        try:
            async with self._open().get(
                self._cluster.server + _path(kind, namespace), params=query, headers=self._headers(), timeout=timeout
            ) as response:
                self.outage = None
                if response.status != 200:
                    raise _error(response.status, response.headers, await response.read())
                async for line in _lines(response.content):
                    event = _decode(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code", 500)), {}, _encode(event["object"]))
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise self._unavailable(error) from error

    async def kind_of(self, api_version: str, kind_name: str) -> Kind:
        """The record of a kind that the server serves, by discovery, without schema; ObjectNotFoundError if
        it has none.
        """
        known = self._discovered.get((api_version, kind_name))
        if known is not None:
            return known
        group, _, version = api_version.rpartition("/")
        found = await self._call("GET", f"/apis/{api_version}" if group else f"/api/{api_version}")
        resources = found.get("resources") or ()
        for resource in resources:
            if resource["kind"] == kind_name and "/" not in resource["name"]:
                plural = resource["name"]
                kind = Kind(
                    group=group,
                    version=version,
                    kind=kind_name,
                    plural=plural,
                    schema={},
                    namespaced=bool(resource["namespaced"]),
                    status=any(other["name"] == f"{plural}/status" for other in resources),
                )
                self._discovered[api_version, kind_name] = kind
                return kind
        raise ObjectNotFoundError(404, "NotFound", f"no kind {kind_name!r} in {api_version!r}")

    def forget_kind(self, api_version: str, kind_name: str) -> None:
        """Ask again when `kind_of` is asked for it next: its definition has changed, or gone."""
        self._discovered.pop((api_version, kind_name), None)

    async def aclose(self) -> None:
        """Close all connections, open watches included."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            secure = self._cluster.server.startswith("https:")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._cluster.ssl_context() if secure else False),
                timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S),
                headers={"User-Agent": self._user_agent, "Accept": "application/json"},
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        now = time.monotonic()
        if now >= self._token_until:
            try:
                self._token = self._cluster.bearer()
            except (OSError, UnicodeDecodeError) as error:
                raise ApiUnavailableError(0, "Unauthorized", f"cannot read {self._cluster.token_file}: {error}") from error
            self._token_until = now + _TOKEN_S
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> Object:
        headers = self._headers()
        data = None
        if body is not None:
            data = _encode(body)
            headers["Content-Type"] = content_type
        try:
            async with self._open().request(
                method,
                self._cluster.server + path,
                params=query or None,
                data=data,
                headers=headers,
                allow_redirects=False,
            ) as response:
                content = await response.read()
            self.outage = None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        if not 200 <= response.status < 300:
            raise _error(response.status, response.headers, content)
        try:
            result = _decode(content) if content else {}
        except msgspec.DecodeError as error:
            raise self._unavailable(error) from error
        return result if isinstance(result, dict) else {}

    def _unavailable(self, error: Exception) -> ApiUnavailableError:
        cause = str(error) or type(error).__name__
        self.outage = Outage(self.outage.since if self.outage else time.monotonic(), cause)
        return ApiUnavailableError(0, "Unreachable", f"no usable answer from {self._cluster.server}: {cause}")


def _selecting(name: str) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={name}"} if name else {}


def _path(kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
    parts = [kind.path]
    if kind.namespaced and namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts += [kind.plural, *(quote(part, safe="") for part in (name, subresource) if part)]
    return "/".join(parts)


def _manager(field_manager: str) -> dict[str, str]:
    return {"fieldManager": field_manager} if field_manager else {}


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    """The lines of a stream, of any length up to _MAX_FRAME (the reader's own limit is 64 KiB)."""
    parts: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            if parts:
                line = b"".join((*parts, line))  # noqa: PLW2901 - the line is what it is with its beginning
                parts.clear()
                size = 0
            if line:
                yield line
        if rest:
            parts.append(rest)
            size += len(rest)
            if size > _MAX_FRAME:
                raise ApiError(500, "FrameTooLarge", f"the server sent a watch event of more than {_MAX_FRAME} bytes")
    if parts:
        yield b"".join(parts)


def _error(code: int, headers: Mapping[str, str], content: bytes) -> ApiError:
    """The error of an answer: its Status object where it has one, else its beginning."""
    status: Any = None
    with contextlib.suppress(msgspec.DecodeError):
        status = _decode(content)
    error = api_error(code, status, content[:200].decode(errors="replace"))
    with contextlib.suppress(ValueError):
        error.retry_after = float(headers.get("Retry-After", ""))
    return error
