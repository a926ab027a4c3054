"""Definitions that a cluster takes are taken, and those that it refuses are refused: asked of both, one by one."""

import asyncio
import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.apiserver.client import Client
from tests.unit.apiserver.test_definitions import CRDS, WIDGET

pytestmark = pytest.mark.crdcheck

VERSION = "spec.versions.0"
SCHEMA = f"{VERSION}.schema.openAPIV3Schema"
SPEC = f"{SCHEMA}.properties.spec"
MORE = f"{SPEC}.properties.more"
GONE = object()

# What is changed in the definition of the widgets, and to what.
CHANGES: list[tuple[str, Any]] = [
    (MORE, {"type": "string"}),
    (MORE, {"type": "strin"}),
    (MORE, {}),
    (MORE, {"type": "object"}),
    (MORE, {"type": "object", "additionalProperties": {"type": "integer"}}),
    (MORE, {"type": "object", "additionalProperties": {"type": "integer"}, "properties": {"a": {"type": "string"}}}),
    (MORE, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    (MORE, {"x-kubernetes-preserve-unknown-fields": True}),
    (MORE, {"x-kubernetes-int-or-string": True}),
    (MORE, {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
    (MORE, {"type": "string", "x-kubernetes-int-or-string": True}),
    (MORE, {"type": "array"}),
    (MORE, {"type": "array", "items": {"type": "string"}}),
    (MORE, {"type": "array", "items": {}}),
    (MORE, {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    (MORE, {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
    (MORE, {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"}),
    (MORE, {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
    (
        MORE,
        {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
    ),
    (
        MORE,
        {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    ),
    (
        MORE,
        {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["other"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
    ),
    (MORE, {"type": "string", "default": "a"}),
    (MORE, {"type": "string", "default": 1}),
    (MORE, {"type": "integer", "minimum": 1, "default": 0}),
    (MORE, {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": "x"}}),
    (MORE, {"type": "string", "pattern": "^a+$"}),
    (MORE, {"type": "string", "pattern": "a["}),
    (MORE, {"type": "string", "nullable": True}),
    (MORE, {"type": "string", "enum": ["a", "b"]}),
    (MORE, {"type": "string", "format": "date-time"}),
    (MORE, {"type": "string", "$ref": "#/x"}),
    (MORE, {"type": "string", "deprecated": True}),
    (MORE, {"type": "string", "title": "T", "example": "e", "externalDocs": {"url": "http://x"}}),
    (MORE, {"type": "object", "patternProperties": {"a": {"type": "string"}}}),
    (MORE, {"type": "object", "x-kubernetes-embedded-resource": True}),
    (MORE, {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}),
    (MORE, {"type": "string", "x-kubernetes-embedded-resource": True}),
    (MORE, {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}]}),
    (MORE, {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"properties": {"b": {"minLength": 1}}}]}),
    (MORE, {"type": "object", "properties": {"a": {"type": "string"}}, "allOf": [{"properties": {"a": {"type": "string"}}}]}),
    (MORE, {"type": "string", "not": {"enum": ["x"]}}),
    (MORE, {"type": "string", "maxLength": 3, "minLength": 1}),
    (MORE, {"type": "object", "x-kubernetes-map-type": "atomic"}),
    (MORE, {"type": "object", "x-kubernetes-map-type": "loose"}),
    (f"{SCHEMA}.anyOf", [{"properties": {"nothing": {"maxLength": 1}}}]),
    (f"{SCHEMA}.anyOf", [{"properties": {"spec": {"properties": {"color": {"maxLength": 1}}}}}]),
    (f"{SCHEMA}.not", {"properties": {"spec": {"properties": {"nothing": {"maxLength": 1}}}}}),
    (f"{SCHEMA}.type", "array"),
    (f"{SCHEMA}.nullable", True),
    (f"{SCHEMA}.properties.metadata", {"type": "object"}),
    (f"{SCHEMA}.properties.metadata", {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}),
    (f"{SCHEMA}.properties.metadata", {"type": "object", "properties": {"labels": {"type": "object"}}}),
    (f"{SCHEMA}.properties.apiVersion", {"type": "string"}),
    (f"{SCHEMA}.properties.apiVersion", {"type": "integer"}),
    (f"{SCHEMA}.x-kubernetes-preserve-unknown-fields", True),
    (f"{VERSION}.schema", GONE),
    (f"{VERSION}.name", "V1"),
    (f"{VERSION}.name", "one"),
    (f"{VERSION}.served", False),
    (f"{VERSION}.storage", False),
    (f"{VERSION}.deprecationWarning", "old"),
    (f"{VERSION}.additionalPrinterColumns.0.type", "text"),
    (f"{VERSION}.additionalPrinterColumns.0.jsonPath", "spec.size"),
    (f"{VERSION}.additionalPrinterColumns.0.jsonPath", '.status.conditions[?(@.type=="Ready")].status'),
    (f"{VERSION}.additionalPrinterColumns.0.name", ""),
    (f"{VERSION}.additionalPrinterColumns.0.priority", -1),
    (f"{VERSION}.subresources", {}),
    (f"{VERSION}.subresources", {"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}}),
    (f"{VERSION}.subresources", {"scale": {"specReplicasPath": "spec.size", "statusReplicasPath": ".status.size"}}),
    (f"{VERSION}.selectableFields", [{"jsonPath": ".spec.nothing"}]),
    (f"{VERSION}.selectableFields", [{"jsonPath": ".metadata.name"}]),
    ("metadata.name", "others.example.com"),
    ("spec.group", "example"),
    ("spec.group", "Example.com"),
    ("spec.scope", "Everywhere"),
    ("spec.names.plural", "Widgets"),
    ("spec.names.singular", "w w"),
    ("spec.names.kind", "wid get"),
    ("spec.names.listKind", "Widget"),
    ("spec.names.shortNames", ["W"]),
    ("spec.names.categories", ["All"]),
    ("spec.preserveUnknownFields", True),
    ("spec.conversion", {"strategy": "Magic"}),
    ("spec.conversion", {"strategy": "Webhook"}),
    ("spec.versions", []),
]


def changed(path: str, value: Any) -> dict[str, Any]:
    definition = copy.deepcopy(WIDGET)
    del definition["spec"]["versions"][0]["selectableFields"]  # Kubernetes' own code fails on them where the schema is wrong
    *parents, last = path.split(".")
    at: Any = definition
    for name in parents:
        at = at[int(name) if name.isdigit() else name]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return definition


async def test_both_take_the_same_definitions(api: Client, crdcheck: Path, tmp_path: Path) -> None:
    files = []
    for number, (path, value) in enumerate(CHANGES):
        file = tmp_path / f"{number:03}.yaml"
        await asyncio.to_thread(file.write_text, yaml.safe_dump(changed(path, value)))
        files.append(file)
    ran = await asyncio.to_thread(subprocess.run, [crdcheck, *files], capture_output=True, text=True, timeout=50, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    differ = []
    for file, (path, value) in zip(files, CHANGES, strict=True):
        faults = [line.partition(": ")[2] for line in ran.stdout.splitlines() if line.startswith(f"{file}: ")]
        code, body = await api.ask("POST", CRDS, changed(path, value), dryRun="All")
        if (code == 201) == bool(faults):
            differ.append(f"{path} = {value}: here {code} {body.get('message', '')}; Kubernetes: {faults or 'takes it'}")
    assert not differ, "\n".join(differ)
