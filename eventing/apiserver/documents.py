"""The routes: discovery, OpenAPI, version, and everything about objects for the dispatcher."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from eventing.apiserver.discovery import Discovery, aggregated_version
from eventing.apiserver.failures import failure, internal, method_not_allowed, path_not_found
from eventing.apiserver.openapi import OpenApi
from eventing.apiserver.registry import Registry
from eventing.errors import ApiError

__all__ = ["documents_app"]

# The Kubernetes release whose API this one speaks. Clients choose their dialect by it, so it stays steady.
_VERSION: Final = {
    "major": "1",
    "minor": "35",
    "gitVersion": "v1.35.0",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-12-17T12:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
_V2_TYPE: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_FOR_GOOD: Final = {"Cache-Control": "public, immutable", "Expires": "Fri, 01 Jan 2100 00:00:00 GMT"}


def documents_app(registry: Registry, dispatcher: ASGIApp, expose: Callable[[str], tuple[str, bytes]]) -> Starlette:
    """The application: `/metrics`, documents made from the registry; all else below a version is the dispatcher's."""
    discovery, openapi = Discovery(registry), OpenApi(registry)

    async def version(_request: Request) -> Response:
        return _json(msgspec.json.encode(_VERSION))

    async def roots(request: Request) -> Response:
        aggregated = aggregated_version(request.headers.get("accept", ""))
        body = discovery.roots(request.url.path.strip("/"), aggregated)
        if not aggregated:
            return _json(body)
        return _json(body, f"application/json;g=apidiscovery.k8s.io;v={aggregated};as=APIGroupDiscoveryList")

    async def core_version(request: Request) -> Response:
        return _json(discovery.version("", request.path_params["version"]))

    async def group(request: Request) -> Response:
        return _json(discovery.group(request.path_params["group"]))

    async def group_version(request: Request) -> Response:
        return _json(discovery.version(request.path_params["group"], request.path_params["version"]))

    async def openapi_v2(_request: Request) -> Response:
        # Clients that still read it take a message without fields for "no schema": they leave validation to the server.
        return Response(b"", media_type=_V2_TYPE)

    async def openapi_index(_request: Request) -> Response:
        return _json(openapi.index())

    async def openapi_document(request: Request) -> Response:
        path = request.path_params["path"]
        response, digest = _json(openapi.document(path)), openapi.hash(path)
        response.headers["ETag"] = f'"{digest}"'
        if request.query_params.get("hash") == digest:
            response.headers.update(_FOR_GOOD)
        return response

    async def paths(_request: Request) -> Response:
        groups = registry.groups()
        listed = ["/api", *(f"/api/{version}" for version in groups[""]), "/apis"]
        for name, versions in groups.items():
            if name:
                listed += [f"/apis/{name}", *(f"/apis/{name}/{version}" for version in versions)]
        return _json(
            msgspec.json.encode({"paths": [*listed, "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]})
        )

    async def measured(request: Request) -> Response:
        content_type, body = expose(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    app = Starlette(
        routes=[
            Route("/", paths),
            Route("/version", version),
            Route("/metrics", measured),
            Route("/api", roots),
            Route("/apis", roots),
            Route("/api/{version}", core_version),
            Route("/apis/{group}", group),
            Route("/apis/{group}/{version}", group_version),
            Route("/openapi/v2", openapi_v2),
            Route("/openapi/v3", openapi_index),
            Route("/openapi/v3/{path:path}", openapi_document),
            Mount("/api", app=dispatcher),
            Mount("/apis", app=dispatcher),
        ],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _unexpected},
    )
    app.router.redirect_slashes = False
    return app


def _json(body: bytes, content_type: str = "application/json") -> Response:
    return Response(body, headers={"content-type": content_type})


def _status(error: ApiError) -> Response:
    return Response(msgspec.json.encode(error.status), error.code, media_type="application/json")


async def _api_error(_request: Request, error: Any) -> Response:
    return _status(error)


async def _http_error(_request: Request, error: Any) -> Response:
    known = {404: path_not_found, 405: method_not_allowed}.get(error.status_code)
    return _status(known() if known is not None else failure(error.status_code, "", str(error.detail)))


async def _unexpected(_request: Request, error: Exception) -> Response:
    """A fault of ours: the client gets its kind only; the server's log has the rest (starlette raises it again)."""
    return _status(internal(type(error).__name__))
