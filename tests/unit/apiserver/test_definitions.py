"""CustomResourceDefinitions: applied, then served."""

import asyncio
import copy
from typing import Any

import pytest

from eventing.apiserver.structural import structural_causes
from tests.unit.apiserver.client import SHAPES, Client, shape
from tests.unit.apiserver.conftest import Serving

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
WIDGET: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1},
                                    "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                                },
                            },
                            "status": {"type": "object", "properties": {"ok": {"type": "boolean"}}},
                        },
                    }
                },
            }
        ],
    },
}


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The definition with one thing otherwise; `path` has dots between names and numbers."""
    definition = copy.deepcopy(WIDGET)
    *parents, last = path.split(".")
    at: Any = definition
    for name in parents:
        at = at[int(name) if name.isdigit() else name]
    at[last] = value
    return definition


async def conditions(api: Client, name: str, wanted: str) -> dict[str, Any]:
    """The conditions once Established is as wanted."""
    async with asyncio.timeout(10):
        while True:
            found = await api.get(f"{CRDS}/{name}")
            by_type = {entry["type"]: entry for entry in found.get("status", {}).get("conditions", [])}
            if by_type.get("Established", {}).get("status") == wanted:
                return by_type
            await asyncio.sleep(0.01)


async def test_a_definition_makes_its_kind_served(api: Client) -> None:
    made = await api.create(CRDS, WIDGET)
    assert made["spec"]["names"]["listKind"] == "WidgetList"
    await conditions(api, "widgets.example.com", "True")
    assert (await api.create(WIDGETS, widget("w", size=3)))["spec"] == {"size": 3, "color": "red"}
    code, body = await api.ask("POST", WIDGETS, widget("x", size=0, color="green"))
    assert (code, {cause["field"] for cause in body["details"]["causes"]}) == (422, {"spec.size", "spec.color"})
    code, body = await api.ask("POST", WIDGETS, widget("x", size=1, more=1), fieldValidation="Strict")
    assert (code, 'unknown field "spec.more"' in body["message"]) == (400, True)
    assert (await api.patch(f"{WIDGETS}/w/status", {"status": {"ok": True, "x": 1}}))["status"] == {"ok": True}
    _, table = await api.ask("GET", WIDGETS, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert table["rows"][0]["cells"] == ["w", 3]
    assert len((await api.get(WIDGETS, fieldSelector="spec.color=red"))["items"]) == 1
    resources = (await api.get("/apis/example.com/v1"))["resources"]
    assert (resources[0]["shortNames"], resources[0]["categories"]) == (["wd"], ["all"])
    assert "apis/example.com/v1" in (await api.get("/openapi/v3"))["paths"]


async def test_a_changed_schema_is_in_force_at_once(api: Client) -> None:
    await api.create(CRDS, WIDGET)
    patch = [
        {
            "op": "add",
            "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/more",
            "value": {"type": "string"},
        }
    ]
    await api.patch(f"{CRDS}/widgets.example.com", patch, "application/json-patch+json")
    assert (await api.create(WIDGETS, widget("w", size=1, more="x")))["spec"]["more"] == "x"


async def test_objects_that_are_there_get_new_defaults_and_lose_nothing(api: Client) -> None:
    await api.create(CRDS, WIDGET)
    await api.create(WIDGETS, widget("w", size=1, color="blue"))
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
    patch = [
        {"op": "remove", "path": f"{path}/color"},
        {"op": "add", "path": f"{path}/more", "value": {"type": "string", "default": "x"}},
    ]
    patch.append({"op": "remove", "path": "/spec/versions/0/selectableFields"})
    await api.patch(f"{CRDS}/widgets.example.com", patch, "application/json-patch+json")
    async with asyncio.timeout(10):
        while (found := await api.get(f"{WIDGETS}/w"))["spec"] != {"size": 1, "color": "blue", "more": "x"}:
            await asyncio.sleep(0.01)
    assert found["metadata"]["generation"] == 1


async def test_objects_and_definition_survive_a_restart(serving: Serving, tmp_path: Any) -> None:
    async with serving(tmp_path / "db") as api:
        await api.create(CRDS, WIDGET)
        made = await api.create(WIDGETS, widget("w", size=3))
    async with serving(tmp_path / "db") as api:
        assert await api.get(f"{WIDGETS}/w") == made
        await conditions(api, "widgets.example.com", "True")


async def test_a_deleted_definition_takes_its_objects_along(api: Client) -> None:
    await api.create(CRDS, WIDGET)
    held = widget("w", size=1)
    held["metadata"]["finalizers"] = ["x.y/z"]
    await api.create(WIDGETS, held)
    await api.create(WIDGETS, widget("v", size=1))
    async with api.watch(WIDGETS) as watch:
        assert len(await watch.take(2)) == 2
        assert (await api.ask("DELETE", f"{CRDS}/widgets.example.com"))[0] == 200
        await api.gone(f"{WIDGETS}/v")
        assert (await api.get(f"{CRDS}/widgets.example.com"))["metadata"]["deletionTimestamp"]
        await api.patch(f"{WIDGETS}/w", {"metadata": {"finalizers": None}})
        await api.gone(f"{CRDS}/widgets.example.com")
        while await watch.next() is not None:
            pass
    assert (await api.ask("GET", WIDGETS))[0] == 404
    await api.create(CRDS, WIDGET)
    assert (await api.get(WIDGETS))["items"] == []


async def test_names_are_not_shared(api: Client) -> None:
    await api.create(CRDS, WIDGET)
    other = changed("spec.names", {"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"]})
    other["metadata"]["name"] = "gadgets.example.com"
    await api.create(CRDS, other)
    found = await conditions(api, "gadgets.example.com", "False")
    assert found["NamesAccepted"]["message"] == '"wd" is already in use by widgets.example.com'
    assert (await api.ask("GET", WIDGETS.replace("widgets", "gadgets")))[0] == 404


async def test_what_is_not_done_is_said(api: Client) -> None:
    rules = [{"rule": "self.size > 0"}]
    definition = changed("spec.versions.0.schema.openAPIV3Schema.properties.spec.x-kubernetes-validations", rules)
    definition["spec"]["versions"].append({**definition["spec"]["versions"][0], "name": "v2", "storage": False})
    await api.create(CRDS, definition)
    message = (await conditions(api, "widgets.example.com", "True"))["Established"]["message"]
    assert "of its versions only v1 is served" in message
    assert "x-kubernetes-validations are not evaluated" in message


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("metadata.name", "gadgets.example.com", "metadata.name"),
        ("spec.group", "example", "spec.group"),
        ("spec.scope", "Everywhere", "spec.scope"),
        ("spec.names.kind", "not a kind", "spec.names.kind"),
        ("spec.versions.0.storage", False, "spec.versions"),
        ("spec.versions.0.schema", {}, "spec.versions[0].schema.openAPIV3Schema"),
        (
            "spec.versions.0.schema.openAPIV3Schema.properties.spec",
            {},
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type",
        ),
        ("spec.versions.0.schema.openAPIV3Schema.$ref", "#/x", "spec.versions[0].schema.openAPIV3Schema.$ref"),
        ("spec.versions.0.additionalPrinterColumns.0.jsonPath", ".a[", "spec.versions[0].additionalPrinterColumns[0].jsonPath"),
    ],
)
async def test_definitions_that_cannot_be_served_are_refused(api: Client, path: str, value: Any, field: str) -> None:
    code, body = await api.ask("POST", CRDS, changed(path, value))
    assert (code, body["reason"]) == (422, "Invalid"), body
    assert field in {cause["field"] for cause in body["details"]["causes"]}, body


async def test_built_in_kinds_are_shown_and_cannot_be_deleted(api: Client) -> None:
    await conditions(api, "shapes.shapes.example.com", "True")
    code, body = await api.ask("DELETE", f"{CRDS}/shapes.shapes.example.com")
    assert (code, body["reason"]) == (403, "Forbidden")
    await api.patch(f"{CRDS}/shapes.shapes.example.com", {"spec": {"names": {"shortNames": ["zz"]}}})
    assert (await api.create(SHAPES, shape("a")))["metadata"]["generation"] == 1


def test_deep_schemas_are_refused_not_followed_for_ever() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(500):
        schema = {"type": "object", "properties": {"a": schema}}
    assert "deep" in structural_causes(schema, "s")[-1].message


async def test_a_category_with_the_name_of_a_kind_is_left_to_it_where_kubectl_looks(api: Client) -> None:
    await api.create(CRDS, changed("spec.names.categories", ["all", "shape"]))
    await conditions(api, "widgets.example.com", "True")
    (plain, _) = (await api.get("/apis/example.com/v1"))["resources"]
    assert plain["categories"] == ["all", "shape"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    _, body = await api.ask("GET", "/apis", headers={"Accept": accept})
    (group,) = [item for item in body["items"] if item["metadata"]["name"] == "example.com"]
    assert group["versions"][0]["resources"][0]["categories"] == ["all"]
