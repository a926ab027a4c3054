"""An API server in the loop of the test, and a client that says what it wants in one line."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from eventing.apiserver import ApiServer, CertificatePaths, ensure_certificates
from eventing.errors import Fault, InvalidObjectError
from eventing.resources.core import CORE_KINDS
from eventing.resources.kinds import Admission, Column, Kind, Object
from tests.unit.apiserver.client import Client

GROUP = "shapes.example.com"


def _default(obj: Object, admission: Admission) -> None:
    obj.setdefault("spec", {}).setdefault("by", admission.config_map("default", "painter").get("name", "nobody"))


def _validate(obj: Object, old: Object | None, admission: Admission) -> None:
    if obj["spec"].get("color") == "forbidden":
        raise InvalidObjectError("invalid value: forbidden: spec.color", [Fault("spec.color", "invalid value: forbidden")])
    if obj["spec"].get("locked") and admission.user != "controller":
        raise InvalidObjectError("only the controller locks: spec.locked")
    if old is not None and old["spec"].get("sides") != obj["spec"].get("sides"):
        raise InvalidObjectError("Immutable fields changed (-old +new): spec")


SHAPE = Kind(
    group=GROUP,
    version="v1",
    kind="Shape",
    plural="shapes",
    short_names=("sh",),
    categories=("all",),
    schema={
        "type": "object",
        "description": "A shape.",
        "properties": {
            "spec": {
                "type": "object",
                "description": "What is wanted of it.",
                "properties": {
                    "color": {"type": "string", "description": "Its color."},
                    "sides": {"type": "integer", "minimum": 3},
                    "by": {"type": "string"},
                    "locked": {"type": "boolean"},
                    "size": {"type": "integer", "default": 1},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "points": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}, "x": {"type": "integer"}, "y": {"type": "integer"}},
                        },
                    },
                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "list": {"type": "array", "items": {"type": "integer"}},
                },
            },
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    },
    columns=(
        Column("Color", ".spec.color"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Sides", ".spec.sides", "integer", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    default=_default,
    validate=_validate,
)
KINDS = (*CORE_KINDS, SHAPE)
USERS = {"admin-token": "kubernetes-admin", "controller-token": "controller"}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificatePaths:
    return ensure_certificates(tmp_path_factory.mktemp("pki"), ["localhost", "127.0.0.1"])


Serving = Callable[[Path], contextlib.AbstractAsyncContextManager[Client]]


@pytest.fixture
def serving(certificates: CertificatePaths) -> Serving:
    """Serve a database file; as often as wanted in one test."""

    @contextlib.asynccontextmanager
    async def serve(database: Path) -> AsyncIterator[Client]:
        server = ApiServer(database=database, kinds=KINDS, users=USERS)
        listener = socket.create_server(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        started = asyncio.Event()
        trust = ssl.create_default_context(cafile=str(certificates.ca_cert))
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            task = group.create_task(
                server.serve(listener, certfile=certificates.server_cert, keyfile=certificates.server_key, started=started.set)
            )
            await started.wait()
            yield Client(session, url, server)
            await server.aclose()
            await task

    return serve


@pytest.fixture
async def api(serving: Serving, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(tmp_path / "api.sqlite3") as client:
        yield client
