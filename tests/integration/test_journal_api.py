"""The local API, as a program meets it: who may ask, what is described, and that what is described is what is answered."""

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from eventing.dataplane.queries import READERS_MAX
from eventing.runtime.mesh import Mesh
from tests.support.loop_thread import mesh_thread
from tests.support.manifests import CHANNEL, subscription
from tests.support.waiting import eventually

CONTRACT = Path(__file__).resolve().parents[2] / "docs" / "api" / "journal.openapi.json"
QUESTIONS = ("/trace/1", "/trace/nobody?channel=default/orders", "/tail", "/subscriptions/default/printer")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    from eventing.cli.app import run

    directory = tmp_path_factory.mktemp("mesh")
    file = directory / "orders.yaml"
    file.write_text(f"{CHANNEL}---\n{subscription('http://127.0.0.1:1/')}")
    with mesh_thread(directory / "data") as running:
        assert run(["apply", "-f", str(file), "--data-dir", str(running.data_dir)]) == 0
        eventually(lambda: ask(running, "/api/v1/subscriptions/default/printer")[0] == 200, "the Subscription is in force")
        post(running, "1")
        yield running


def post(mesh: Mesh, id_: str, type_: str = "t") -> None:
    parts = urlsplit(mesh.ingress_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request(
        "POST", "/default/orders", b"{}", {"ce-id": id_, "ce-type": type_, "ce-source": "/s", "ce-specversion": "1.0"}
    )
    assert connection.getresponse().status == 202
    connection.close()


def ask(mesh: Mesh, path: str, *, token: str | None = "", method: str = "GET") -> tuple[int, dict[str, str], Any]:
    """Status, headers and body; `token` "": the right one, None: none."""
    parts = urlsplit(mesh.metrics_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    right = json.loads((mesh.data_dir / "tokens.json").read_text())["admin"]
    headers = {} if token is None else {"Authorization": f"Bearer {token or right}"}
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.headers.items()}, json.loads(body) if body else None


@pytest.mark.parametrize("token", [None, "wrong", "t" * 43])
@pytest.mark.parametrize("path", QUESTIONS)
def test_nobody_is_told_anything_without_the_token(mesh: Mesh, path: str, token: str | None) -> None:
    status, headers, body = ask(mesh, f"/api/v1{path}", token=token)
    assert (status, headers["www-authenticate"], headers["content-type"]) == (401, "Bearer", "application/problem+json")
    assert set(body) == {"type", "title", "status", "detail"}


def test_the_description_is_the_one_that_is_published(mesh: Mesh) -> None:
    """The contract is a file: a change of it is seen, and made on purpose. Members are added, never renamed or removed."""
    status, _, served = ask(mesh, "/api/v1/openapi.json", token=None)
    assert status == 200
    published = json.loads(CONTRACT.read_text())
    served["info"].pop("version")
    published["info"].pop("version")
    assert served == published, f"{CONTRACT.name} must be what /api/v1/openapi.json answers"


@pytest.mark.parametrize("path", QUESTIONS)
def test_what_is_answered_is_as_described(mesh: Mesh, path: str) -> None:
    status, headers, body = ask(mesh, f"/api/v1{path}")
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "application/json", "no-store")
    description = json.loads(CONTRACT.read_text())
    pattern = next(
        each
        for each in description["paths"]
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each), f"/api/v1{path.partition('?')[0]}")
    )
    schema = description["paths"][pattern]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert list(_differences(body, schema, description["components"]["schemas"], "$")) == []


def test_the_check_itself_sees_differences() -> None:
    schemas = {"A": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
    wrong: list[Any] = [{}, {"n": "1"}, {"n": 1, "more": 2}, []]
    for bad in wrong:
        assert list(_differences(bad, {"$ref": "#/components/schemas/A"}, schemas, "$"))


def _differences(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> Iterator[str]:
    """Where the value is not as JSON Schema says, as far as msgspec writes any; members beyond it are differences, too."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        if all(list(_differences(value, each, schemas, where)) for each in schema["anyOf"]):
            yield f"{where}: {value!r} is none of {schema['anyOf']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not one of {schema['enum']}"
    types: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
    }  # fmt: skip
    if "type" in schema and not isinstance(value, types[schema["type"]]):
        yield f"{where}: {value!r} is no {schema['type']}"
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _differences(each, schema["items"], schemas, f"{where}[{number}]")
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from (f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, each in value.items():
            if name in properties:
                yield from _differences(each, properties[name], schemas, f"{where}.{name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from _differences(each, schema["additionalProperties"], schemas, f"{where}.{name}")
            else:
                yield f"{where}.{name} is not described"


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/tail?after=nonsense", 400, "no position"),
        ("/tail?wait_s=26", 400, "0 to 25"),
        ("/tail?wait_s=nan", 400, "0 to 25"),
        ("/tail?failed=perhaps", 400, "true or false"),
        ("/trace/1?data=1", 400, "true or false"),
        ("/trace/", 404, "/api/v1/trace/{identity}"),
        ("/subscriptions/default/nobody", 404, "no Subscription default/nobody is in force"),
        ("/", 404, "served here"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(mesh: Mesh, path: str, status: int, told: str) -> None:
    got, headers, body = ask(mesh, f"/api/v1{path}")
    assert (got, headers["content-type"]) == (status, "application/problem+json")
    assert told in body["detail"]


def test_only_questions_are_taken(mesh: Mesh) -> None:
    assert ask(mesh, "/api/v1/trace/1", method="POST")[0] == 405
    assert ask(mesh, "/api/v1/trace/1", method="HEAD")[0] == 200


def test_too_many_readers_are_told_to_come_again(mesh: Mesh) -> None:
    position = ask(mesh, "/api/v1/tail")[2]["next"]
    statuses: list[int] = []

    def read() -> None:
        # The question below may be answered in between, and takes a place for that long.
        path = f"/api/v1/tail?after={position}&wait_s=15&type=awaited"
        statuses.append(eventually(lambda: status if (status := ask(mesh, path)[0]) != 429 else 0, "there is a place"))

    readers = [threading.Thread(target=read) for _ in range(READERS_MAX)]
    for reader in readers:
        reader.start()
    status, headers, _ = eventually(
        lambda: answer if (answer := ask(mesh, "/api/v1/trace/1"))[0] == 429 else None, "one is too many"
    ) or (0, {}, None)
    assert (status, headers["retry-after"]) == (429, "1")
    post(mesh, "2", "awaited")  # which is what they wait for
    for reader in readers:
        reader.join(30)
    assert statuses == [200] * READERS_MAX
    assert ask(mesh, "/api/v1/trace/1")[0] == 200
