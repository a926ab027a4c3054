"""Server-side apply: ownership, conflicts, force, keyed lists, what goes and what stays."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eventing.apiserver.fieldsets import compare, difference, field_set, intersection, members, path_text, union
from tests.unit.apiserver.client import SHAPES, Client, shape


async def apply(api: Client, manager: str, force: str = "false", **spec: Any) -> tuple[int, Any]:
    return await api.apply(f"{SHAPES}/a", shape("a", **spec), manager, force)


async def applied(api: Client, manager: str, force: str = "false", **spec: Any) -> Any:
    code, body = await apply(api, manager, force, **spec)
    assert code in {200, 201}, body
    return body["spec"]


async def test_apply_creates_then_updates(api: Client) -> None:
    assert (await apply(api, "ann", color="red"))[0] == 201
    code, body = await apply(api, "ann", color="blue")
    assert (code, body["spec"]["color"]) == (200, "blue")
    (entry,) = body["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["fieldsV1"]) == ("ann", "Apply", {"f:spec": {"f:color": {}}})


async def test_applying_the_same_again_writes_nothing(api: Client) -> None:
    one = (await apply(api, "ann", color="red"))[1]
    two = (await apply(api, "ann", color="red"))[1]
    assert two == one


async def test_another_value_is_a_conflict_and_force_takes_the_field(api: Client) -> None:
    await applied(api, "ann", color="red", list=[1])
    code, body = await apply(api, "bob", color="blue")
    assert (code, body["reason"]) == (409, "Conflict")
    assert body["message"] == 'Apply failed with 1 conflict: conflict with "ann": .spec.color'
    assert body["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "ann"', "field": ".spec.color"}
    ]
    assert (await applied(api, "bob", force="true", color="blue"))["color"] == "blue"
    spec = await applied(api, "ann", list=[1])
    assert spec["color"] == "blue", "it is bob's now"
    assert "color" not in await applied(api, "bob")


async def test_the_same_value_is_shared(api: Client) -> None:
    await applied(api, "ann", color="red")
    await applied(api, "bob", color="red")
    assert (await applied(api, "ann"))["color"] == "red"
    assert "color" not in await applied(api, "bob")


async def test_what_a_manager_stops_sending_goes(api: Client) -> None:
    await applied(api, "ann", color="red", free={"a": 1, "b": {"c": 2}})
    assert await applied(api, "ann", free={"a": 1}) == {"free": {"a": 1}, "size": 1, "by": "nobody"}


async def test_lists_with_keys_are_owned_by_element(api: Client) -> None:
    await applied(api, "ann", points=[{"name": "p", "x": 1}, {"name": "q", "x": 2}])
    spec = await applied(api, "bob", points=[{"name": "p", "y": 5}, {"name": "r", "x": 3}])
    assert spec["points"] == [{"name": "p", "x": 1, "y": 5}, {"name": "q", "x": 2}, {"name": "r", "x": 3}]
    code, body = await apply(api, "bob", points=[{"name": "p", "x": 9}])
    assert code == 409
    assert body["details"]["causes"][0]["field"] == '.spec.points[name="p"].x'
    spec = await applied(api, "ann", points=[{"name": "q", "x": 2}])
    assert spec["points"] == [{"name": "p", "y": 5}, {"name": "q", "x": 2}, {"name": "r", "x": 3}]
    spec = await applied(api, "bob", points=[{"name": "p", "y": 5}])
    assert spec["points"] == [{"name": "p", "y": 5}, {"name": "q", "x": 2}]
    assert "points" not in await applied(api, "bob") or (await api.get(f"{SHAPES}/a"))["spec"]["points"] == [
        {"name": "q", "x": 2}
    ]


async def test_sets_merge_and_other_lists_are_one_value(api: Client) -> None:
    await applied(api, "ann", tags=["a"], list=[1])
    assert (await applied(api, "bob", tags=["b"]))["tags"] == ["a", "b"]
    assert (await apply(api, "bob", tags=["b"], list=[2]))[0] == 409
    assert (await applied(api, "ann", list=[1]))["tags"] == ["b"]


async def test_an_update_takes_the_fields_it_changes(api: Client) -> None:
    await applied(api, "ann", color="red")
    await api.patch(f"{SHAPES}/a", {"spec": {"color": "blue"}}, fieldManager="editor")
    code, body = await apply(api, "ann", color="red")
    assert code == 409
    assert 'conflict with "editor"' in body["message"]


async def test_the_status_has_managers_of_its_own(api: Client) -> None:
    await applied(api, "ann", color="red")
    body = {**shape("a", color="blue"), "status": {"ok": True}}
    code, body = await api.apply(f"{SHAPES}/a/status", body, "ann")
    assert code == 200
    assert (body["spec"]["color"], body["status"]) == ("red", {"ok": True})
    assert {entry.get("subresource") for entry in body["metadata"]["managedFields"]} == {None, "status"}


async def test_an_apply_is_checked_like_any_write(api: Client) -> None:
    code, body = await apply(api, "ann", sides=2)
    assert (code, body["reason"]) == (422, "Invalid")
    params = {"fieldManager": "ann", "fieldValidation": "Strict"}
    code, body = await api.ask(
        "PATCH", f"{SHAPES}/a", shape("a", nothing=1), content_type="application/apply-patch+yaml", **params
    )
    assert (code, body["reason"]) == (400, "BadRequest")
    code, body = await api.ask("PATCH", f"{SHAPES}/a", shape("a"), content_type="application/apply-patch+yaml")
    assert (code, "fieldManager" in body["message"]) == (422, True)
    code, body = await api.ask("PATCH", f"{SHAPES}/a", {}, content_type="application/merge-patch+json", force="true")
    assert (code, "may not be specified for non-apply patch" in body["message"]) == (422, True)
    code, _ = await api.apply(f"{SHAPES}/b", shape("a"), "ann")
    assert code == 400


async def test_managed_fields_can_be_reset(api: Client) -> None:
    await applied(api, "ann", color="red")
    await api.patch(f"{SHAPES}/a", {"metadata": {"managedFields": [{}]}})
    assert "managedFields" not in (await api.get(f"{SHAPES}/a"))["metadata"]
    code, body = await apply(api, "bob", color="blue")
    assert (code, "before-first-apply" in body["message"]) == (409, True)


async def test_many_updaters_become_one(api: Client) -> None:
    await applied(api, "ann", color="red")
    for index in range(15):
        await api.patch(f"{SHAPES}/a", {"spec": {"free": {f"k{index}": 1}}}, fieldManager=f"m{index}")
    entries = (await api.get(f"{SHAPES}/a"))["metadata"]["managedFields"]
    updaters = [entry["manager"] for entry in entries if entry["operation"] == "Update"]
    assert len(updaters) <= 11
    assert "ancient-changes" in updaters


LEAVES = st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.booleans()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4) | st.lists(LEAVES, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
def test_sets_of_fields_obey_the_laws_of_sets(one: dict[str, Any], other: dict[str, Any]) -> None:
    left, right = field_set(one, {}), field_set(other, {})
    a, b = set(members(left)), set(members(right))
    assert set(members(union(left, right))) == a | b
    assert set(members(difference(left, right))) == a - b
    assert set(members(intersection(left, right))) == a & b
    changed, removed = compare(one, other, {})
    if one == other:
        assert not changed
        assert not removed
    assert set(members(removed)) <= set(members(compare({}, one, {})[0]))


def test_paths_read_as_people_write_them() -> None:
    assert path_text(("f:spec", 'k:{"uid":"b"}', "f:uri")) == '.spec[uid="b"].uri'
    assert path_text(("f:tags", 'v:"x"')) == '.tags[="x"]'
