"""Manifests of `eventing up -f`: what is read, and that faults are named with file, document and field."""

import io
from pathlib import Path

import pytest

from eventing.errors import StartError
from eventing.runtime.manifests import dump, load, parse, read

CHANNEL = "apiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata: {name: orders}\n"


def test_documents_of_a_file_in_order(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(f"---\n{CHANNEL}---\n# nothing\n---\n{CHANNEL.replace('orders', 'invoices')}")
    manifests = read([str(file)])
    assert [manifest.body["metadata"]["name"] for manifest in manifests] == ["orders", "invoices"]
    assert [manifest.origin for manifest in manifests] == [f"{file}, document 1", f"{file}, document 3"]


def test_a_directory_by_name_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(CHANNEL.replace("orders", "b"))
    (tmp_path / "a.json").write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}')
    (tmp_path / "notes.txt").write_text("{")
    manifests = read([str(tmp_path), "-"], io.StringIO(CHANNEL))
    assert [manifest.body["metadata"]["name"] for manifest in manifests] == ["a", "b", "orders"]
    assert manifests[2].origin == "standard input"


def test_a_list_is_its_items() -> None:
    text = '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}]}'
    (manifest,) = parse(text, "list.json")
    assert (manifest.origin, manifest.body["kind"]) == ("list.json, item 1", "Secret")


def test_namespaces_and_definitions_come_first(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(f"{CHANNEL}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n")
    assert [manifest.body["kind"] for manifest in read([str(file)])] == ["Namespace", "Channel"]


def test_values_are_those_of_json() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {day: 2026-01-31, 2: two, true: yes}\n"
    (manifest,) = parse(text, "c.yaml")
    assert manifest.body["data"] == {"day": "2026-01-31", "2": "two", "true": True}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: Channel\nmetadata: {name: a}", "f.yaml: apiVersion: required field is missing"),
        (f"{CHANNEL}---\napiVersion: v1\nmetadata: {{name: a}}", "f.yaml, document 2: kind: required field is missing"),
        ("apiVersion: v1\nkind: Secret", r"f.yaml: metadata\.name: required field is missing"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: 7}", r"f.yaml: metadata\.name: .* is no string"),
        ("just text", "f.yaml: is not an object with apiVersion and kind"),
        ("a: [1", "f.yaml: is not YAML: .*line 1"),
        ("a: !!python/object:os.system {}", "f.yaml: is not YAML"),
        ("? [1, 2]\n: x", "f.yaml: (is not YAML|holds a key)"),
        ("a: !!binary aGk=", "f.yaml: holds a value of a type that JSON does not have: bytes"),
    ],
)
def test_a_fault_is_named(text: str, expected: str) -> None:
    with pytest.raises(StartError, match=expected):
        parse(text, "f.yaml")


@pytest.mark.parametrize(("make", "expected"), [("missing", "No such file"), ("empty", "holds no .yaml"), ("latin", "UTF-8")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: str, expected: str) -> None:
    path = tmp_path / make
    if make == "empty":
        path.mkdir()
    if make == "latin":
        path.write_bytes(b"a: \xe9")
    with pytest.raises(StartError, match=f"{make}: .*{expected}"):
        read([str(path)])


def test_they_travel_to_the_child_as_they_are() -> None:
    manifests = parse(CHANNEL, "f.yaml")
    assert load(dump(manifests)) == manifests


BOMB = (
    CHANNEL
    + "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "excessive aliasing"),
        (CHANNEL + "a: &a [*a]\n", "nested too deeply"),
        ("[" * 50_000, "nest"),
        ("{a: " * 50_000, "nest"),
        ("- " * 50_000 + "a", "nest"),
    ],
    ids=["a billion laughs", "itself", "brackets", "braces", "dashes"],
)
def test_bombs_are_refused_before_they_go_off(text: str, expected: str) -> None:
    with pytest.raises(StartError, match=expected):
        parse(text, "bomb.yaml")


def test_aliases_are_written_out() -> None:
    (manifest,) = parse(CHANNEL + "spec: {a: &x {b: 1}, c: *x}\n", "aliases.yaml")
    assert manifest.body["spec"] == {"a": {"b": 1}, "c": {"b": 1}}
