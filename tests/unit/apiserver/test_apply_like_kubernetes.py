"""Server-side apply beside Kubernetes' own: random stories of applies and updates end the same, conflict by conflict."""

import copy
import json
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from eventing.apiserver.apply import applied
from eventing.apiserver.managedfields import Manager, record_update
from eventing.apiserver.metadata import METADATA_SCHEMA
from eventing.errors import ApiError

pytestmark = pytest.mark.applycheck

STORIES = 400
NOW = "2026-01-01T00:00:00Z"
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _keyed(keys: list[str], **properties: Any) -> dict[str, Any]:
    items = {**_object(**properties), "required": keys[:1]}
    return {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": items}


SCHEMA = _object(
    apiVersion=TEXT,
    kind=TEXT,
    metadata=METADATA_SCHEMA,
    spec=_object(
        color=TEXT,
        size=NUMBER,
        free={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        map={"type": "object", "additionalProperties": TEXT},
        atomic={**_object(a=NUMBER, b=NUMBER), "x-kubernetes-map-type": "atomic"},
        nested=_object(a=NUMBER, b=_object(c=NUMBER, d=NUMBER)),
        points=_keyed(["name"], name=TEXT, x=NUMBER, y=NUMBER, more=_object(z=NUMBER)),
        ports=_keyed(["port", "protocol"], port=NUMBER, protocol={**TEXT, "default": "TCP"}, n=TEXT),
        tags={"type": "array", "x-kubernetes-list-type": "set", "items": TEXT},
        list={"type": "array", "items": NUMBER},
        objects={"type": "array", "items": _object(a=NUMBER)},
    ),
)


class Teller:
    """Makes up a story: what several managers apply, and what others write over it."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def story(self) -> dict[str, Any]:
        steps = [
            {
                "operation": self._random.choice(["apply", "apply", "apply", "update"]),
                "manager": self._random.choice(["ann", "bob", "cy"]),
                "force": self._maybe(0.35),
                "object": self._shape(),
            }
            for _ in range(self._random.randint(2, 7))
        ]
        return {"schema": SCHEMA, "steps": steps}

    def _maybe(self, chance: float = 0.5) -> bool:
        return self._random.random() < chance

    def _some(self, of: Any) -> list[Any]:
        chosen = [each for each in of if self._maybe(0.6)]
        self._random.shuffle(chosen)
        return chosen

    def _numbers(self, names: str) -> dict[str, int]:
        return {name: self._random.randint(1, 2) for name in self._some(names)}

    def _texts(self, names: str) -> dict[str, str]:
        return {name: self._random.choice("xy") for name in self._some(names)}

    def _shape(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "labels": self._texts("kl") if self._maybe(0.4) else {},
            "annotations": self._texts("n") if self._maybe(0.3) else {},
            "finalizers": self._some(["f.x/a", "f.x/b"]) if self._maybe(0.2) else [],
        }
        metadata = {"name": "a", **{name: value for name, value in metadata.items() if value}}
        return {"apiVersion": "shapes.example.com/v1", "kind": "Shape", "metadata": metadata, "spec": self._spec()}

    def _spec(self) -> dict[str, Any]:
        free: list[Any] = [{}, {"a": 1}, {"a": 2}, {"b": {"c": 1}}, {"b": {}}, {"a": 1, "b": {"c": 2, "d": [1]}}, {"l": [1, 2]}]
        full = {
            "color": self._random.choice(["red", "blue"]),
            "size": self._random.randint(1, 2),
            "free": self._random.choice(free),
            "map": self._texts("abc"),
            "atomic": self._numbers("ab"),
            "nested": self._numbers("a") | ({"b": self._numbers("cd")} if self._maybe() else {}),
            "points": [{"name": name, **self._point()} for name in self._some("pqr")],
            "ports": [
                {"port": port, "protocol": protocol, **self._texts("n")}
                for port, protocol in self._some([(80, "TCP"), (53, "TCP"), (53, "UDP")])
            ],
            "tags": self._some("abc"),
            "list": self._some([1, 2]),
            "objects": [self._numbers("a") for _ in range(self._random.randint(0, 2))],
        }
        return {name: full[name] for name in full if self._maybe(0.45)}

    def _point(self) -> dict[str, Any]:
        return self._numbers("xy") | ({"more": self._numbers("z")} if self._maybe(0.3) else {})


def ours(story: dict[str, Any]) -> list[dict[str, Any]]:
    live: Any = None
    outcomes: list[dict[str, Any]] = []
    for step in story["steps"]:
        new = copy.deepcopy(step["object"])
        try:
            if step["operation"] == "apply":
                new = applied(live, new, SCHEMA, Manager(step["manager"], "Apply"), force=step["force"], now=NOW)
            else:
                if live is not None and "managedFields" in live["metadata"]:
                    new["metadata"]["managedFields"] = live["metadata"]["managedFields"]
                record_update(live, new, SCHEMA, Manager(step["manager"], "Update"), NOW)
        except ApiError as error:
            assert error.code == 409
            causes = error.status["details"]["causes"]
            outcomes.append({"conflicts": [f"{cause['message']}: {cause['field']}" for cause in causes]})
        else:
            live = json.loads(json.dumps(new))
            outcomes.append({"object": live})
    return outcomes


def told(outcome: dict[str, Any]) -> Any:
    """What must be the same: the conflicts, or the object, and who owns what."""
    if "object" not in outcome:
        assert outcome.keys() == {"conflicts"}, outcome
        return sorted(outcome["conflicts"])
    obj = outcome["object"]
    metadata = {name: value for name, value in obj["metadata"].items() if name not in {"managedFields", "uid"}}
    entries = obj["metadata"].get("managedFields") or ()
    owners = {(entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in entries}
    return {**obj, "metadata": metadata}, owners


def test_stories_end_as_in_kubernetes(applycheck: Path) -> None:
    stories = [Teller(seed).story() for seed in range(STORIES)]
    lines = "\n".join(map(json.dumps, stories))
    done = subprocess.run([applycheck], input=lines, capture_output=True, text=True, timeout=50, check=True)
    compared = 0
    for seed, (story, line) in enumerate(zip(stories, done.stdout.splitlines(), strict=True)):
        for number, (mine, theirs) in enumerate(zip(ours(story), json.loads(line), strict=True)):
            if "null" in json.dumps(theirs):
                break  # Kubernetes leaves null where a field lost all its parts; ours is empty, or gone, and so goes on differently
            assert told(mine) == told(theirs), f"story {seed}, step {number}: {json.dumps(story['steps'][: number + 1])}"
            compared += 1
    assert compared > 3 * STORIES
