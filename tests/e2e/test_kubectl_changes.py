"""kubectl create, replace, edit, patch, label, annotate: what changes one object."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import Kubectl
from tests.support.manifests import channel_object, config_map_object, subscription_object

pytestmark = pytest.mark.kubectl

TWO, THREE = "http://localhost:2/", "http://localhost:3/"


def test_create_from_files(k: Kubectl) -> None:
    assert "created" in k("create", "-f", "-", given=channel_object())
    said = k("create", "-f", "-", given=channel_object(), code=1)
    assert 'Error from server (AlreadyExists): error when creating "STDIN"' in said
    assert 'channels.messaging.knative.dev "orders" already exists' in said
    made = k("create", "-f", "-", given=config_map_object() | {"metadata": {"generateName": "made-"}})
    assert re.search(r"configmap/made-[a-z0-9]{5} created", made)
    k("create", "--raw", f"/api/v1/namespaces/{k.namespace}/configmaps", "-f", "-", given=config_map_object("raw"))
    assert k("get", "cm/raw", "-o", "name") == "configmap/raw\n"


def test_create_by_name(k: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "binary").write_bytes(b"\x00\xff")
    (tmp_path / "env").write_text("b=2\n")
    from_files = (f"--from-file={tmp_path / 'file.txt'}", f"--from-file=bin={tmp_path / 'binary'}")
    k("create", "configmap", "c", "--from-literal=a=1", *from_files)
    made = k.json("get", "cm/c")
    assert (made["data"], made["binaryData"]) == ({"a": "1", "file.txt": "text"}, {"bin": "AP8="})
    k("create", "configmap", "e", f"--from-env-file={tmp_path / 'env'}")
    assert k.json("get", "cm/e")["data"] == {"b": "2"}
    k("create", "secret", "generic", "s", "--from-literal=password=hunter2")
    made = k.json("get", "secret/s")
    assert (made["data"], made["type"]) == ({"password": "aHVudGVyMg=="}, "Opaque")
    k("create", "secret", "docker-registry", "d", "--docker-username=u", "--docker-password=p", "--docker-server=example.com")
    assert k.json("get", "secret/d")["type"] == "kubernetes.io/dockerconfigjson"
    k("create", "serviceaccount", "robot")
    k("create", "service", "externalname", "away", "--external-name=example.com")
    k("create", "service", "clusterip", "near", "--tcp=80:8080")
    near = k.json("get", "service/near")["spec"]
    assert (near["ports"][0]["port"], near["ports"][0]["targetPort"]) == (80, 8080)
    said = k("create", "namespace", k.namespace, code=1)
    assert f'namespaces "{k.namespace}" already exists' in said
    assert 'namespaces "nowhere" not found' in k("create", "-n", "nowhere", "configmap", "c", code=1)


def test_replace(k: Kubectl) -> None:
    k("create", "-f", "-", given=subscription_object())
    first = k.json("get", "sub/printer")
    assert "replaced" in k("replace", "-f", "-", given=subscription_object(TWO))
    said = k("replace", "-f", "-", given=first, code=1)
    assert "Error from server (Conflict)" in said
    assert "the object has been modified; please apply your changes to the latest version and try again" in said
    k("replace", "--force", "-f", "-", given=subscription_object(THREE))
    found = k.json("get", "sub/printer")
    assert found["spec"]["subscriber"]["uri"] == THREE
    assert found["metadata"]["uid"] != first["metadata"]["uid"]
    assert found["metadata"]["generation"] == 1
    assert "NotFound" in k("replace", "-f", "-", given=subscription_object(name="nobody"), code=1)


def test_edit(k: Kubectl) -> None:
    k("apply", "-f", "-", given=subscription_object())
    k("apply", "-f", "-", given=config_map_object(first="1"))
    editing = k.with_environment(EDITOR="sed -i -e s/localhost:1/localhost:2/ -e s/first/second/")
    assert "edited" in editing("edit", "subscriptions/printer")
    assert "edited" in editing("edit", "cm/config")
    assert "no changes made" in editing("edit", "cm/config")
    assert k.json("get", "subscriptions/printer")["spec"]["subscriber"]["uri"] == TWO
    assert k.json("get", "cm/config")["data"] == {"second": "1"}
    breaking = k.with_environment(EDITOR="sed -i -e s/localhost:2/:bad:/")
    said = breaking("edit", "subscriptions/printer", code=1)
    assert "could not be patched: admission webhook" in said
    assert "spec.subscriber.uri" in said
    assert "to try this update again" in said


def test_patch(k: Kubectl, tmp_path: Path) -> None:
    def uri() -> str:
        return str(k.json("get", "sub/printer")["spec"]["subscriber"]["uri"])

    k("apply", "-f", "-", given=subscription_object())
    assert "patched" in k("patch", "sub/printer", "--type=merge", "-p", json.dumps({"spec": {"subscriber": {"uri": TWO}}}))
    assert uri() == TWO
    again = k("patch", "sub", "printer", "--type=merge", "-p", json.dumps({"spec": {"subscriber": {"uri": TWO}}}))
    assert "patched (no change)" in again
    replacing = [{"op": "test", "path": "/spec/subscriber/uri", "value": TWO}]
    replacing += [{"op": "replace", "path": "/spec/subscriber/uri", "value": THREE}]
    k("patch", "sub/printer", "--type=json", "-p", json.dumps(replacing))
    assert uri() == THREE
    said = k("patch", "sub/printer", "--type=json", "-p", json.dumps(replacing), code=1)
    assert "The request is invalid" in said
    assert "testing value /spec/subscriber/uri failed" in said
    (tmp_path / "patch.yaml").write_text("spec: {subscriber: {uri: 'http://localhost:2/'}}")
    k("patch", "sub/printer", "--type=merge", f"--patch-file={tmp_path / 'patch.yaml'}")
    assert uri() == TWO
    said = k("patch", "sub/printer", "-p", "{}", code=1)
    assert "application/strategic-merge-patch+json is not supported" in said


def test_strategic_patches_of_core_kinds(k: Kubectl) -> None:
    k("apply", "-f", "-", given=config_map_object(a="1"))
    k("patch", "cm/config", "-p", '{"data":{"b":"2","a":null}}')
    assert k.json("get", "cm/config")["data"] == {"b": "2"}
    k("create", "service", "clusterip", "near", "--tcp=80:8080", "--tcp=90:9090")
    k("patch", "service/near", "-p", '{"spec":{"ports":[{"port":80,"targetPort":8081},{"port":90,"$patch":"delete"}]}}')
    ports = [(port["port"], port["targetPort"]) for port in k.json("get", "service/near")["spec"]["ports"]]
    assert ports == [(80, 8081)]


def test_labels_and_annotations(k: Kubectl) -> None:
    for name in ("one", "two"):
        k("create", "-f", "-", given=subscription_object(name=name))
    assert "labeled" in k("label", "sub/one", "a=b")
    assert "not labeled" in k("label", "sub/one", "a=b")
    assert "already has a value" in k("label", "sub/one", "a=c", code=1)
    k("label", "sub/one", "a=c", "--overwrite")
    assert "a=c" in k("label", "sub/one", "--list")
    k("label", "sub", "--all", "team=shop")
    k("annotate", "sub", "-l", "team=shop", "note=x", "other=y")
    k("label", "sub/one", "team-")
    assert "unlabeled" in k("label", "sub/two", "team-")
    k("annotate", "sub/one", "other-")
    metadata = k.json("get", "sub/one")["metadata"]
    assert metadata["labels"] == {"a": "c"}
    assert metadata["annotations"]["note"] == "x"
    assert "other" not in metadata["annotations"]
    assert metadata["generation"] == 1
    assert "could not find the requested resource" in k("scale", "sub/one", "--replicas=2", code=1)


def test_the_status_is_written_apart(k: Kubectl) -> None:
    def url() -> Any:
        return k.json("get", "ch/orders", "--subresource=status")["status"]["address"]["url"]

    k("apply", "-f", "-", given=channel_object())
    k.make_ready()
    assert url() == "http://x"
    assert "patched (no change)" in k("patch", "ch/orders", "--type=merge", "-p", '{"status":{"address":{"url":"http://y"}}}')
    found = k.json("get", "ch/orders")
    assert (url(), found["metadata"]["generation"]) == ("http://x", 1)
    found["status"]["address"]["url"] = "http://z"
    found["metadata"]["labels"] = {"not": "this-way"}
    k("replace", "--subresource=status", "-f", "-", given=found)
    assert url() == "http://z"
    operation = [{"op": "replace", "path": "/status/address/url", "value": "http://j"}]
    k("patch", "ch/orders", "--subresource=status", "--type=json", "-p", json.dumps(operation))
    assert url() == "http://j"
    editing = k.with_environment(EDITOR="sed -i -e s_http://j_http://e_")
    assert "edited" in editing("edit", "ch/orders", "--subresource=status")
    assert url() == "http://e"
    found = k.json("get", "ch/orders", "--show-managed-fields")
    assert "labels" not in found["metadata"]
    managers = {entry["manager"] for entry in found["metadata"]["managedFields"] if entry.get("subresource") == "status"}
    assert {"kubectl-patch", "kubectl-replace", "kubectl-edit"} >= managers >= {"kubectl-edit"}
