"""Create, get, update, patch, delete: what Kubernetes' API conventions promise of each."""

import asyncio
from typing import Any

import pytest

from tests.unit.apiserver.client import SHAPES, Client, shape

JSON_PATCH = "application/json-patch+json"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def test_a_created_object_has_what_the_server_sets(api: Client) -> None:
    made = await api.create(SHAPES, shape("a", color="red"))
    metadata = made["metadata"]
    assert metadata["generation"] == 1
    assert metadata["uid"]
    assert metadata["namespace"] == "default"
    assert metadata["creationTimestamp"].endswith("Z")
    assert made["spec"] == {"color": "red", "size": 1, "by": "nobody"}, "the schema's default, then the kind's"
    assert await api.get(f"{SHAPES}/a") == made


async def test_the_kinds_defaults_see_config_maps_and_its_rules_see_the_user(api: Client) -> None:
    await api.create(
        CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "painter"}, "data": {"name": "Ann"}}
    )
    assert (await api.create(SHAPES, shape("a")))["spec"]["by"] == "Ann"
    code, body = await api.ask("POST", SHAPES, shape("b", locked=True))
    assert (code, body["reason"]) == (400, "BadRequest")
    assert body["message"] == (
        'admission webhook "validation.webhook.eventing.knative.dev" denied the request: '
        "validation failed: only the controller locks: spec.locked"
    )
    code, _ = await api.ask("POST", SHAPES, shape("b", locked=True), token="controller-token")
    assert code == 201


@pytest.mark.parametrize(
    ("obj", "code", "reason", "text"),
    [
        ([1], 400, "BadRequest", "the body is not an object"),
        ({"kind": "Shape"}, 400, "BadRequest", "'ApiVersion' is missing"),
        ({"apiVersion": "v1", "kind": "Shape"}, 400, "BadRequest", "does not match the expected API version"),
        (shape("a") | {"kind": "Cube"}, 400, "BadRequest", "must be of type Shape"),
        (shape("A"), 422, "Invalid", "RFC 1123 subdomain"),
        (shape("a" * 254), 422, "Invalid", "must be no more than 253 characters"),
        (shape("") | {"metadata": {}}, 422, "Invalid", "name or generateName is required"),
        (shape("a") | {"metadata": {"name": "a", "namespace": "b"}}, 400, "BadRequest", "namespace of the provided object"),
        (shape("a") | {"metadata": {"name": "a", "labels": {"a": 1}}}, 400, "BadRequest", "cannot unmarshal number"),
        (shape("a") | {"metadata": {"name": "a", "labels": {"-a": "b"}}}, 422, "Invalid", "metadata.labels"),
        (shape("a") | {"metadata": {"name": "a", "resourceVersion": "1"}}, 400, "BadRequest", "should not be set"),
        (shape("a") | {"metadata": "x"}, 400, "BadRequest", "cannot unmarshal"),
        (shape("a", color=1), 422, "Invalid", 'spec.color in body must be of type string: "integer"'),
        (shape("a", color=None), 422, "Invalid", 'must be of type string: "null"'),
        (shape("a", sides=True), 422, "Invalid", "must be of type integer"),
        (shape("a", sides=2), 422, "Invalid", "should be greater than or equal to 3"),
        (shape("a", points=[{"x": 1}]), 422, "Invalid", "spec.points[0].name: Required value"),
        (shape("a", points=[{"name": "p"}, {"name": "p"}]), 422, "Invalid", "spec.points[1]: Duplicate value"),
        (shape("a", tags=["t", "t"]), 422, "Invalid", "spec.tags[1]: Duplicate value"),
        (shape("a") | {"spec": []}, 422, "Invalid", 'spec in body must be of type object: "array"'),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_is_wrong_gets_the_error_that_kubernetes_gives(
    api: Client, obj: Any, code: int, reason: str, text: str
) -> None:
    found, body = await api.ask("POST", SHAPES, obj)
    assert (found, body["kind"], body["reason"]) == (code, "Status", reason), body
    assert text in body["message"]
    if reason == "Invalid":
        assert body["details"]["causes"][0]["field"]
    assert (await api.get(SHAPES))["items"] == []


async def test_unknown_fields_are_pruned_and_told_as_the_client_wants(api: Client) -> None:
    bad = shape("a", colour="red", free={"any": 1})
    code, body = await api.ask("POST", SHAPES, bad, fieldValidation="Strict")
    assert (code, body["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.colour"' in body["message"]
    code, body, response = await api.ask_all("POST", SHAPES, bad, fieldValidation="Warn")
    assert code == 201
    assert response.headers["Warning"] == r'299 - "unknown field \"spec.colour\""'
    assert body["spec"] == {"free": {"any": 1}, "size": 1, "by": "nobody"}
    bad["metadata"]["name"] = "b"
    code, _, response = await api.ask_all("POST", SHAPES, bad, fieldValidation="Ignore")
    assert code == 201
    assert "Warning" not in response.headers


async def test_warnings_are_as_many_as_a_client_can_take(api: Client) -> None:
    spec = {f"unknown{index:04}": 1 for index in range(2000)}
    code, _, response = await api.ask_all("POST", SHAPES, shape("a", **spec))
    lines = response.headers.getall("Warning")
    assert code == 201
    assert lines[0] == r'299 - "unknown field \"spec.unknown0000\""'
    assert len(lines) == 50


async def test_fields_that_are_given_twice_are_told(api: Client) -> None:
    body = b'{"apiVersion":"shapes.example.com/v1","kind":"Shape","metadata":{"name":"a"},"spec":{"color":"red","color":"blue","points":[{"name":"p","x":1,"x":2}]}}'
    code, answer = await api.ask("POST", SHAPES, body, fieldValidation="Strict")
    assert (code, answer["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: duplicate field "spec.color", duplicate field "spec.points[0].x"' in answer["message"]
    code, answer, response = await api.ask_all("POST", SHAPES, body)
    assert (code, answer["spec"]["color"]) == (201, "blue")
    assert response.headers.getall("Warning")[0] == r'299 - "duplicate field \"spec.color\""'
    patch = b'{"spec":{"color":"red","color":"green"}}'
    code, answer = await api.ask(
        "PATCH", f"{SHAPES}/a", patch, content_type="application/merge-patch+json", fieldValidation="Strict"
    )
    assert (code, 'duplicate field "spec.color"' in answer["message"]) == (400, True)


async def test_typed_clients_leave_kind_and_version_of_core_kinds_to_the_path(api: Client) -> None:
    made = await api.create(CONFIG_MAPS, {"metadata": {"name": "c"}, "data": {"a": "b"}})
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")
    code, replaced = await api.ask("PUT", f"{CONFIG_MAPS}/c", {"metadata": {"name": "c"}, "data": {"a": "c"}})
    assert (code, replaced["data"]) == (200, {"a": "c"})


async def test_only_one_of_a_name(api: Client) -> None:
    await api.create(SHAPES, shape("a"))
    code, body = await api.ask("POST", SHAPES, shape("a"))
    assert (code, body["reason"], body["message"]) == (409, "AlreadyExists", 'shapes.shapes.example.com "a" already exists')


async def test_generated_names_differ(api: Client) -> None:
    made = [await api.create(SHAPES, shape("") | {"metadata": {"generateName": "gen-"}}) for _ in range(3)]
    names = {obj["metadata"]["name"] for obj in made}
    assert len(names) == 3
    assert all(name.startswith("gen-") and len(name) == 9 for name in names)
    long = await api.create(SHAPES, shape("") | {"metadata": {"generateName": "g" * 200}})
    assert len(long["metadata"]["name"]) == 63


async def test_generation_counts_changes_of_the_spec_only(api: Client) -> None:
    await api.create(SHAPES, shape("a", color="red"))
    labelled = await api.patch(f"{SHAPES}/a", {"metadata": {"labels": {"x": "y"}}})
    assert labelled["metadata"]["generation"] == 1
    painted = await api.patch(f"{SHAPES}/a", {"spec": {"color": "blue"}})
    assert painted["metadata"]["generation"] == 2
    reported = await api.patch(
        f"{SHAPES}/a/status", {"status": {"ok": True}, "spec": {"color": "x"}, "metadata": {"labels": {"z": "z"}}}
    )
    assert reported["metadata"]["generation"] == 2
    assert reported["status"] == {"ok": True}
    assert reported["spec"]["color"] == "blue"
    assert reported["metadata"]["labels"] == {"x": "y"}
    ignored = await api.patch(f"{SHAPES}/a", {"status": {"ok": False}})
    assert ignored["status"] == {"ok": True}
    assert ignored["metadata"]["resourceVersion"] == reported["metadata"]["resourceVersion"], "nothing changed, nothing written"


async def test_a_status_given_at_creation_is_dropped(api: Client) -> None:
    assert "status" not in await api.create(SHAPES, shape("a") | {"status": {"ok": True}})


async def test_put_needs_the_version_that_it_replaces(api: Client) -> None:
    made = await api.create(SHAPES, shape("a", color="red"))
    code, body = await api.ask("PUT", f"{SHAPES}/a", shape("a", color="blue"))
    assert (code, body["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")
    made["spec"]["color"] = "blue"
    code, body = await api.ask("PUT", f"{SHAPES}/a", made)
    assert (code, body["spec"]["color"]) == (200, "blue")
    code, body = await api.ask("PUT", f"{SHAPES}/a", made)
    assert (code, body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in body["message"]
    assert (await api.ask("PUT", f"{SHAPES}/b", shape("b")))[0] == 404


async def test_what_clients_cannot_change_stays(api: Client) -> None:
    made = await api.create(SHAPES, shape("a"))
    patch = {"metadata": {"creationTimestamp": None, "generation": 7, "selfLink": "x", "managedFields": None}}
    assert (await api.patch(f"{SHAPES}/a", patch))["metadata"] == made["metadata"]
    code, body = await api.ask("PATCH", f"{SHAPES}/a", {"metadata": {"uid": "x"}}, content_type="application/merge-patch+json")
    assert (code, body["reason"]) == (409, "Conflict")
    code, _ = await api.ask("PATCH", f"{SHAPES}/a", {"metadata": {"name": "b"}}, content_type="application/merge-patch+json")
    assert code == 400


async def test_a_patch_may_ask_for_a_version(api: Client) -> None:
    made = await api.create(SHAPES, shape("a"))
    patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"color": "red"}}
    await api.patch(f"{SHAPES}/a", patch)
    patch["spec"]["color"] = "blue"
    code, body = await api.ask("PATCH", f"{SHAPES}/a", patch, content_type="application/merge-patch+json")
    assert (code, body["reason"]) == (409, "Conflict")


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "replace", "path": "/spec/color", "value": "blue"}], 200),
        ([{"op": "test", "path": "/spec/color", "value": "x"}], 422),
        ([{"op": "remove", "path": "/spec/nothing"}], 422),
        ([{"op": "add", "path": "/spec/color/below", "value": 1}], 422),
        ([{"op": "replace", "path": "", "value": 3}], 400),
        ({"op": "add"}, 400),
        ([{"op": "dance", "path": "/spec"}], 400),
    ],
)
async def test_json_patch(api: Client, operations: Any, code: int) -> None:
    await api.create(SHAPES, shape("a", color="red"))
    found, body = await api.ask("PATCH", f"{SHAPES}/a", operations, content_type=JSON_PATCH)
    assert found == code, body


async def test_patches_of_other_types_are_refused_with_those_that_are_known(api: Client) -> None:
    await api.create(SHAPES, shape("a"))
    for content_type in ("application/strategic-merge-patch+json", "text/plain"):
        code, body = await api.ask("PATCH", f"{SHAPES}/a", {}, content_type=content_type)
        assert (code, body["reason"]) == (415, "UnsupportedMediaType")
        assert "application/merge-patch+json" in body["message"]


async def test_strategic_merge_of_core_kinds(api: Client) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "finalizers": ["a.b/c"]},
        "data": {"a": "1", "b": "2"},
    }
    await api.create(CONFIG_MAPS, config)
    patch = {
        "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["a.b/c"],
            "$setElementOrder/finalizers": ["a.b/d"],
            "finalizers": ["a.b/d"],
        },
        "data": {"b": None, "c": "3"},
    }
    result = await api.patch(f"{CONFIG_MAPS}/c", patch, "application/strategic-merge-patch+json")
    assert result["data"] == {"a": "1", "c": "3"}
    assert result["metadata"]["finalizers"] == ["a.b/d"]


async def test_dry_run_does_everything_but_store(api: Client) -> None:
    made = await api.create(SHAPES, shape("a", color="red"))
    dry = await api.patch(f"{SHAPES}/a", {"spec": {"color": "blue"}}, dryRun="All")
    assert dry["metadata"]["generation"] == 2
    assert dry["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert await api.get(f"{SHAPES}/a") == made
    await api.create(SHAPES, shape("b"), dryRun="All")
    assert (await api.ask("GET", f"{SHAPES}/b"))[0] == 404
    code, body = await api.ask("DELETE", f"{SHAPES}/a", dryRun="All")
    assert (code, body["status"]) == (200, "Success")
    assert await api.get(f"{SHAPES}/a") == made


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"dryRun": "Some"}, 'dryRun: Unsupported value: "Some": supported values: "All"'),
        ({"fieldValidation": "Some"}, 'fieldValidation: Unsupported value: "Some"'),
        ({"fieldManager": "m" * 129}, "fieldManager: Too long: may not be more than 128 bytes"),
        ({"fieldManager": "m\n"}, 'fieldManager: Invalid value: "m\\n": should not contain non-printable characters'),
    ],
)
async def test_options_that_are_none(api: Client, params: dict[str, str], text: str) -> None:
    code, body = await api.ask("POST", SHAPES, shape("c"), **params)
    assert (code, body["reason"]) == (422, "Invalid")
    assert body["message"].startswith(f'CreateOptions.meta.k8s.io "" is invalid: {text}')
    await api.create(SHAPES, shape("a"))
    for options in ({"propagationPolicy": "Sideways"}, {"propagationPolicy": [1]}, {"dryRun": "All"}, {"dryRun": ["Some"]}):
        code, body = await api.ask("DELETE", f"{SHAPES}/a", options)
        assert (code, body["details"]["kind"]) == (422, "DeleteOptions"), options


async def test_deletion_tells_the_uid_and_keeps_its_preconditions(api: Client) -> None:
    made = await api.create(SHAPES, shape("a"))
    for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
        code, body = await api.ask("DELETE", f"{SHAPES}/a", {"preconditions": wrong})
        assert (code, body["reason"]) == (409, "Conflict")
    code, body = await api.ask("DELETE", f"{SHAPES}/a", {"preconditions": {"uid": made["metadata"]["uid"]}})
    assert (code, body["status"], body["details"]["uid"]) == (200, "Success", made["metadata"]["uid"])
    code, body = await api.ask("DELETE", f"{SHAPES}/a")
    assert (code, body["message"]) == (404, 'shapes.shapes.example.com "a" not found')


async def test_finalizers_hold_an_object(api: Client) -> None:
    await api.create(SHAPES, shape("a") | {"metadata": {"name": "a", "finalizers": ["x.y/z"]}})
    code, body = await api.ask("DELETE", f"{SHAPES}/a")
    assert (code, body["kind"]) == (200, "Shape")
    assert body["metadata"]["deletionTimestamp"]
    again = (await api.ask("DELETE", f"{SHAPES}/a"))[1]
    assert again["metadata"]["deletionTimestamp"] == body["metadata"]["deletionTimestamp"]
    code, refused = await api.ask(
        "PATCH", f"{SHAPES}/a", {"metadata": {"finalizers": ["x.y/z", "n.e/w"]}}, content_type="application/merge-patch+json"
    )
    assert (code, refused["reason"]) == (422, "Invalid")
    assert "no new finalizers can be added" in refused["message"]
    await api.patch(f"{SHAPES}/a", {"metadata": {"finalizers": None}})
    assert (await api.ask("GET", f"{SHAPES}/a"))[0] == 404


async def test_a_collection_is_deleted_by_selector(api: Client) -> None:
    for name, color in (("a", "red"), ("b", "blue")):
        await api.create(SHAPES, shape(name) | {"metadata": {"name": name, "labels": {"color": color}}})
    code, _ = await api.ask("DELETE", SHAPES, labelSelector="color=red")
    assert code == 200
    assert [obj["metadata"]["name"] for obj in (await api.get(SHAPES))["items"]] == ["b"]


async def test_concurrent_patches_lose_nothing(api: Client) -> None:
    await api.create(SHAPES, shape("a", free={}))
    await asyncio.gather(*(api.patch(f"{SHAPES}/a", {"spec": {"free": {f"k{i}": i}}}) for i in range(50)))
    found = await api.get(f"{SHAPES}/a")
    assert len(found["spec"]["free"]) == 50
    assert found["metadata"]["generation"] == 51


@pytest.mark.parametrize(
    ("method", "path", "code", "reason"),
    [
        ("GET", "/apis/nothing.example.com/v1/things", 404, "NotFound"),
        ("GET", "/nothing", 404, "NotFound"),
        ("GET", f"{SHAPES}/a/scale", 404, "NotFound"),
        ("GET", f"{SHAPES}/a/status/more", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/nothing", 404, "NotFound"),
        ("GET", "/apis/shapes.example.com/v1/shapes/a", 404, "NotFound"),
        ("PUT", SHAPES, 405, "MethodNotAllowed"),
        ("POST", "/version", 405, "MethodNotAllowed"),
        ("REPORT", SHAPES, 405, "MethodNotAllowed"),
    ],
)
async def test_paths_that_are_not_there_answer_with_a_status(api: Client, method: str, path: str, code: int, reason: str) -> None:
    found, body = await api.ask(method, path)
    assert (found, body["kind"], body["reason"]) == (code, "Status", reason)


async def test_one_object_in_other_forms(api: Client) -> None:
    await api.create(SHAPES, shape("a", color="red"))
    code, body = await api.ask("GET", f"{SHAPES}/a", headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert (code, body["reason"]) == (406, "NotAcceptable")
    accept = "application/vnd.kubernetes.protobuf, application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    _, body = await api.ask("GET", f"{SHAPES}/a", headers={"Accept": accept})
    assert (body["kind"], "spec" in body) == ("PartialObjectMetadata", False)


async def test_yaml_bodies_are_read_and_bombs_are_not(api: Client) -> None:
    text = b"apiVersion: shapes.example.com/v1\nkind: Shape\nmetadata: {name: y, annotations: {day: '2026-01-01'}}\nspec: {color: red}\n"
    code, body = await api.ask("POST", SHAPES, text, content_type="application/yaml")
    assert (code, body["spec"]["color"]) == (201, "red")
    bomb = b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"
    code, body = await api.ask("POST", SHAPES, bomb, content_type="application/yaml")
    assert (code, body["reason"]) == (400, "BadRequest")


async def test_a_client_asks_about_itself(api: Client) -> None:
    code, body = await api.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {}})
    assert (code, body["kind"], body["status"]["allowed"]) == (201, "SelfSubjectAccessReview", True)
    given = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    code, body = await api.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", given)
    assert (code, body["status"]["userInfo"]["username"]) == (201, "kubernetes-admin")
