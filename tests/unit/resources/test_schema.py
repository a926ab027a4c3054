"""What is generated from the models: structural schemas, CRDs, and that the committed ones are up to date."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from eventing.resources.catalogue import installed_kinds, own_kinds
from eventing.resources.crds import crd, crd_files
from eventing.resources.kinds import Kind
from eventing.resources.messaging import CHANNEL
from eventing.resources.schema import IntOrString, structural_schema

REPOSITORY = Path(__file__).parents[3]


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("kind", installed_kinds(), ids=lambda kind: kind.kind)
def test_every_node_is_structural(kind: Kind) -> None:
    absent = {"$ref", "anyOf", "allOf", "oneOf", "title", "nullable", "$defs"}
    if kind.group:  # ours are filled in by `default`, which reads ConfigMaps and the namespace too
        absent.add("default")
    for path, node in nodes(kind.schema):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not absent & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path
    assert "metadata" not in kind.schema["properties"]


def test_kinds_are_found_where_they_are_defined() -> None:
    found = [kind.kind for kind in installed_kinds()]
    assert len(found) == len(set(found))
    assert found[0] == "Namespace", "what others are in comes first"
    assert {"Secret", "ConfigMap", "Event", "Service", "ServiceAccount", "Channel", "Subscription", "DataPlane"} <= set(found)
    assert "InMemoryChannel" in set(found) - {kind.kind for kind in own_kinds()}


def test_every_field_of_ours_is_described() -> None:
    for kind in (kind for kind in installed_kinds() if kind.group):
        for path, node in nodes(kind.schema):
            assert path.endswith(("[]", "{}")) or node.get("description"), (kind.kind, path)


def test_unions_other_than_null_are_refused_unless_int_or_string() -> None:
    class Fine(BaseModel):
        port: IntOrString | None = None

    class Wrong(BaseModel):
        value: int | str

    assert structural_schema(Fine)["properties"]["port"] == {"x-kubernetes-int-or-string": True}
    with pytest.raises(TypeError, match="union"):
        structural_schema(Wrong)


def test_crd_of_channel() -> None:
    definition = crd(CHANNEL)
    assert definition["metadata"] == {
        "name": "channels.messaging.knative.dev",
        "labels": {
            "knative.dev/crd-install": "true",
            "messaging.knative.dev/subscribable": "true",
            "duck.knative.dev/addressable": "true",
        },
    }
    names = definition["spec"]["names"]
    assert (names["shortNames"], names["categories"]) == (["ch"], ["all", "knative", "messaging", "channel"])
    (version,) = definition["spec"]["versions"]
    assert [column["name"] for column in version["additionalPrinterColumns"]] == ["URL", "Age", "Ready", "Reason"]
    assert version["subresources"] == {"status": {}}


def test_committed_crds_are_up_to_date() -> None:
    directory = REPOSITORY / "deploy" / "crds"
    committed = {path.name: path.read_text() for path in directory.glob("*.yaml")}
    assert committed == crd_files(installed_kinds()), "run: python -m eventing.resources.crds"
    for text in committed.values():
        assert yaml.safe_load(text)["kind"] == "CustomResourceDefinition"


def test_the_data_plane_needs_no_pydantic() -> None:
    code = (
        "import sys, eventing.resources.subscribers, eventing.resources.dataplane, eventing.kube\n"
        "from eventing_memory import factory; factory.kind\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
