"""Objects kept encoded: what is got is what was put, the same one for all who hold it, small when nobody does."""

import gc
from typing import Any

import pytest

from eventing.kube.snapshots import Snapshots


def shape(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "managedFields": [{"manager": "m"}]}, "spec": spec}


def test_what_is_got_is_what_was_put_without_its_managers() -> None:
    kept = Snapshots()
    given = shape("a", text="é", numbers=[1, 2.5, None, True])
    kept["n", "a"] = given
    assert kept["n", "a"] == {"metadata": {"name": "a", "namespace": "n"}, "spec": given["spec"]}
    assert "managedFields" in given["metadata"]
    assert ("n", "a") in kept
    assert ("n", "b") not in kept
    with pytest.raises(KeyError):
        kept["n", "b"]


def test_all_who_hold_one_hold_the_same_and_an_old_one_stays_as_it_was() -> None:
    kept = Snapshots()
    kept["n", "a"] = shape("a", n=1)
    first = kept["n", "a"]
    for index in range(200):
        kept["n", f"s{index}"] = shape(f"s{index}")
    gc.collect()
    assert kept["n", "a"] is first
    kept["n", "a"] = shape("a", n=2)
    assert (first["spec"], kept["n", "a"]["spec"]) == ({"n": 1}, {"n": 2})
    del kept["n", "a"]
    assert kept.get(("n", "a")) is None
    assert len(kept) == 200


def test_what_nobody_holds_is_kept_encoded() -> None:
    kept = Snapshots()
    for index in range(500):
        kept["n", f"s{index}"] = shape(f"s{index}")
    gc.collect()
    assert len(kept._held) < 100
    assert kept["n", "s7"]["metadata"]["name"] == "s7"
