"""Lists, selectors, pages, tables, discovery."""

import json

import pytest

from eventing.apiserver import store as store_module
from eventing.apiserver.columns import human_duration
from tests.unit.apiserver.client import SHAPES, Client, shape

EVERYWHERE = "/apis/shapes.example.com/v1/shapes"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


def names(listing: dict) -> list[str]:  # type: ignore[type-arg]
    return [obj["metadata"]["name"] for obj in listing["items"]]


async def fill(api: Client, count: int = 5) -> None:
    for index in range(count):
        obj = shape(f"s{index}", color="red" if index % 2 else "blue")
        obj["metadata"]["labels"] = {"index": str(index), "parity": "odd" if index % 2 else "even"}
        await api.create(SHAPES, obj)


async def test_a_list_is_of_a_namespace_or_of_all(api: Client) -> None:
    await fill(api, 2)
    await api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    await api.create(SHAPES.replace("default", "other"), shape("a"))
    listing = await api.get(SHAPES)
    assert (listing["kind"], listing["apiVersion"], names(listing)) == ("ShapeList", "shapes.example.com/v1", ["s0", "s1"])
    assert names(await api.get(EVERYWHERE)) == ["s0", "s1", "a"]
    assert int(listing["metadata"]["resourceVersion"]) > 0
    assert (await api.ask("POST", EVERYWHERE, shape("x")))[0] == 405


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("parity=odd", ["s1", "s3"]),
        ("parity==odd,index!=1", ["s3"]),
        ("parity in (odd, even),index notin (0,1)", ["s2", "s3", "s4"]),
        ("index", ["s0", "s1", "s2", "s3", "s4"]),
        ("!index", []),
        ("index>2", ["s3", "s4"]),
        ("parity notin (odd)", ["s0", "s2", "s4"]),
    ],
)
async def test_label_selectors(api: Client, selector: str, expected: list[str]) -> None:
    await fill(api)
    assert names(await api.get(SHAPES, labelSelector=selector)) == expected


async def test_field_selectors_and_those_that_are_not_known(api: Client) -> None:
    await fill(api, 3)
    assert names(await api.get(SHAPES, fieldSelector="metadata.name=s1")) == ["s1"]
    assert names(await api.get(EVERYWHERE, fieldSelector="metadata.name!=s1,metadata.namespace=default")) == ["s0", "s2"]
    for params in (
        {"fieldSelector": "spec.color=red"},
        {"fieldSelector": "x"},
        {"labelSelector": "a=b c"},
        {"labelSelector": "a,"},
    ):
        code, body = await api.ask("GET", SHAPES, **params)
        assert (code, body["reason"]) == (400, "BadRequest"), params


async def test_pages_show_what_there_was_at_the_first(api: Client) -> None:
    await fill(api)
    first = await api.get(SHAPES, limit="2")
    assert names(first) == ["s0", "s1"]
    assert first["metadata"]["remainingItemCount"] == 3
    await api.ask("DELETE", f"{SHAPES}/s2")
    await api.create(SHAPES, shape("s30"))
    await api.patch(f"{SHAPES}/s4", {"spec": {"color": "green"}})
    second = await api.get(SHAPES, limit="2", **{"continue": first["metadata"]["continue"]})
    assert names(second) == ["s2", "s3"]
    third = await api.get(SHAPES, **{"continue": second["metadata"]["continue"]})
    assert [obj["spec"]["color"] for obj in third["items"]] == ["blue"]
    assert third["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    assert names(await api.get(SHAPES)) == ["s0", "s1", "s3", "s30", "s4"]
    code, body = await api.ask("GET", SHAPES, **{"continue": "nonsense"})
    assert (code, body["reason"]) == (400, "BadRequest")


async def test_a_page_whose_beginning_the_log_has_lost_is_410(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LOG_EVENTS", 3)
    await fill(api)
    first = await api.get(SHAPES, limit="2")
    for index in range(5):
        await api.patch(f"{SHAPES}/s4", {"spec": {"free": {"i": index}}})
    code, body = await api.ask("GET", SHAPES, **{"continue": first["metadata"]["continue"]})
    assert (code, body["reason"]) == (410, "Expired")


async def test_which_version_a_list_shows(api: Client) -> None:
    await fill(api, 2)
    version = (await api.get(SHAPES))["metadata"]["resourceVersion"]
    await api.create(SHAPES, shape("s2"))
    for params, expected in (
        ({}, 3),
        ({"resourceVersion": "0"}, 3),
        ({"resourceVersion": version}, 3),
        ({"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"}, 3),
        ({"resourceVersion": version, "resourceVersionMatch": "Exact"}, 2),
    ):
        assert len((await api.get(SHAPES, **params))["items"]) == expected, params
    code, body = await api.ask("GET", SHAPES, resourceVersion="999999")
    assert (code, body["reason"]) == (504, "Timeout")
    assert body["details"]["causes"] == [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    assert (await api.ask("GET", f"{SHAPES}/s0", resourceVersion="999999"))[0] == 504
    page = (await api.get(SHAPES, limit="1"))["metadata"]["continue"]
    for params, code in (
        ({"resourceVersion": "x"}, 400),
        ({"resourceVersion": "-1"}, 400),
        ({"resourceVersion": version, "continue": page}, 400),
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422),
        ({"resourceVersionMatch": "Newest", "resourceVersion": version}, 422),
        ({"resourceVersionMatch": "Exact", "resourceVersion": version, "continue": page}, 422),
        ({"sendInitialEvents": "true"}, 422),
    ):
        assert (await api.ask("GET", SHAPES, **params))[0] == code, params


async def test_tables_have_the_kinds_columns(api: Client) -> None:
    await fill(api, 1)
    await api.patch(
        f"{SHAPES}/s0/status", {"status": {"conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]}}
    )
    _, table = await api.ask("GET", SHAPES, headers=TABLE)
    assert table["kind"] == "Table"
    assert [(column["name"], column["priority"]) for column in table["columnDefinitions"]] == [
        ("Name", 0),
        ("Color", 0),
        ("Ready", 0),
        ("Sides", 1),
        ("Age", 0),
    ]
    (row,) = table["rows"]
    assert row["cells"][:4] == ["s0", "blue", "True", None]
    assert row["cells"][4].endswith("s")
    assert row["object"]["kind"] == "PartialObjectMetadata"
    _, table = await api.ask("GET", SHAPES, headers=TABLE, includeObject="Object")
    assert table["rows"][0]["object"]["spec"]["color"] == "blue"
    _, table = await api.ask("GET", f"{SHAPES}/s0", headers=TABLE, includeObject="None")
    assert "object" not in table["rows"][0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (185, "3m5s"), (3600, "60m"), (3 * 3600, "3h"), (3 * 3600 + 60, "3h1m"),
     (9 * 3600, "9h"), (49 * 3600, "2d1h"), (10 * 86400, "10d"), (800 * 86400, "2y70d"), (9 * 365 * 86400, "9y"), (-5, "<invalid>")],
)  # fmt: skip
def test_ages_read_as_kubectl_prints_them(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


async def test_discovery_plain_and_aggregated(api: Client) -> None:
    assert (await api.get("/api"))["versions"] == (await api.get("/api/"))["versions"] == ["v1"]
    assert (await api.get("/version/"))["major"] == "1"
    groups = await api.get("/apis")
    assert {"shapes.example.com", "apiextensions.k8s.io"} == {group["name"] for group in groups["groups"]}
    assert (await api.get("/apis/shapes.example.com"))["preferredVersion"]["version"] == "v1"
    resources = (await api.get("/apis/shapes.example.com/v1"))["resources"]
    assert [entry["name"] for entry in resources] == ["shapes", "shapes/status"]
    assert resources[0]["shortNames"] == ["sh"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    _, body, response = await api.ask_all("GET", "/apis", headers={"Accept": accept})
    assert body["items"][0]["versions"][0]["resources"]
    assert "as=APIGroupDiscoveryList" in response.headers["Content-Type"]
    code, body = await api.ask("GET", "/apis/unknown.example.com/v1")
    assert (code, body["reason"]) == (404, "NotFound")


async def test_openapi_describes_every_kind(api: Client) -> None:
    code, body, response = await api.ask_all("GET", "/openapi/v2")
    assert (code, body) == (200, b"")
    assert response.headers["Content-Type"] == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    index = await api.get("/openapi/v3")
    url = index["paths"]["apis/shapes.example.com/v1"]["serverRelativeURL"]
    path, _, query = url.partition("?hash=")
    _, document, response = await api.ask_all("GET", path, hash=query)
    assert "immutable" in response.headers["Cache-Control"]
    schema = document["components"]["schemas"]["com.example.shapes.v1.Shape"]
    assert schema["properties"]["spec"]["properties"]["color"]["description"] == "Its color."
    patch = document["paths"]["/apis/shapes.example.com/v1/namespaces/{namespace}/shapes/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "shapes.example.com", "version": "v1", "kind": "Shape"}
    assert any(parameter["name"] == "fieldValidation" for parameter in patch["parameters"])
    assert "api/v1" in index["paths"]
    assert "strategic" not in json.dumps(document)


async def test_events_and_services_are_printed_as_kubernetes_prints_them(api: Client) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Shape", "name": "s", "namespace": "default", "fieldPath": "spec"},
        "type": "Warning",
        "reason": "Odd",
        "message": " odd \n",
        "source": {"component": "painter"},
        "eventTime": "2020-01-01T00:00:00.000000Z",
    }
    await api.create("/api/v1/namespaces/default/events", event)
    _, table = await api.ask("GET", "/api/v1/namespaces/default/events", headers=TABLE)
    assert [column["name"] for column in table["columnDefinitions"] if not column["priority"]] == [
        "Last Seen", "Type", "Reason", "Object", "Message"
    ]  # fmt: skip
    (row,) = table["rows"]
    assert row["cells"][0].endswith("d")
    assert row["cells"][1:7] == ["Warning", "Odd", "shape/s", "spec", "painter", "odd"]
    assert row["cells"][8:] == [1, "e"]
    spec = {
        "type": "LoadBalancer",
        "clusterIP": "10.0.0.1",
        "ports": [{"name": "http", "port": 80, "nodePort": 30000}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    }
    await api.create(
        "/api/v1/namespaces/default/services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}
    )
    _, table = await api.ask("GET", "/api/v1/namespaces/default/services", headers=TABLE)
    assert table["rows"][0]["cells"][:5] == ["s", "LoadBalancer", "10.0.0.1", "<pending>", "80:30000/TCP,53/UDP"]
    for kind, parts, cells in (
        ("ConfigMap", {"data": {"a": "x"}, "binaryData": {"b": "eA=="}}, ["n", 2]),
        ("Secret", {"stringData": {"a": "x"}}, ["n", "Opaque", 1]),
        ("ServiceAccount", {}, ["n", 0]),
    ):
        path = f"/api/v1/namespaces/default/{kind.lower()}s"
        await api.create(path, {"apiVersion": "v1", "kind": kind, "metadata": {"name": "n"}, **parts})
        _, table = await api.ask("GET", path, headers=TABLE)
        assert table["rows"][0]["cells"][:-1] == cells
