"""kubectl apply, client-side and server-side; diff; validation; dry runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.api_server import Kubectl
from tests.support.manifests import KNATIVE, channel_object, config_map_object, subscription_object

pytestmark = pytest.mark.kubectl

TWO, THREE = "http://localhost:2/", "http://localhost:3/"


def service(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "near"}, "spec": {"ports": list(ports)}}


def test_documents_are_created_left_and_changed(k: Kubectl) -> None:
    documents = yaml.safe_dump_all([channel_object(), subscription_object()])
    assert k("apply", "-f", "-", given=documents).count("created") == 2
    assert k("apply", "-f", "-", given=documents).count("unchanged") == 2
    assert "configured" in k("apply", "-f", "-", given=subscription_object(TWO))
    found = k.json("get", "subscriptions/printer")
    assert found["spec"]["subscriber"]["uri"] == TWO
    assert found["metadata"]["generation"] == 2


def test_directories_lists_and_kustomizations(k: Kubectl, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "a.yaml").write_text(yaml.safe_dump_all([channel_object(), config_map_object(a="1")]))
    (manifests / "b.json").write_text(json.dumps(subscription_object()))
    assert k("apply", "-f", str(manifests)).count("created") == 3
    items = {"apiVersion": "v1", "kind": "List", "items": [channel_object("listed"), config_map_object(a="2")]}
    said = k("apply", "-f", "-", given=items)
    assert "channel.messaging.knative.dev/listed created" in said
    assert "configmap/config configured" in said
    assert k("delete", "-f", str(manifests)).count("deleted") == 3
    kustomization = tmp_path / "kustomization"
    kustomization.mkdir()
    (kustomization / "channel.yaml").write_text(json.dumps(channel_object("kust")))
    (kustomization / "kustomization.yaml").write_text(
        "resources: [channel.yaml]\nnamePrefix: my-\nconfigMapGenerator: [{name: c, literals: [a=1]}]\n"
    )
    assert "channel.messaging.knative.dev/my-kust created" in k("apply", "-k", str(kustomization))
    assert k("delete", "-k", str(kustomization)).count("deleted") == 2


def test_what_left_the_file_is_removed(k: Kubectl) -> None:
    k("apply", "-f", "-", given=config_map_object(a="1", b="2"))
    k("apply", "-f", "-", given=config_map_object(a="1"))
    assert k.json("get", "configmap/config")["data"] == {"a": "1"}
    full = subscription_object(labels={"a": "b", "c": "d"}, annotations={"e": "f"})
    full["spec"]["delivery"] = {"retry": 3}
    k("apply", "-f", "-", given=full)
    k("apply", "-f", "-", given=subscription_object(labels={"a": "b"}))
    found = k.json("get", "subscriptions/printer")
    assert found["metadata"]["labels"] == {"a": "b"}
    assert "e" not in found["metadata"]["annotations"]
    assert "delivery" not in found["spec"]


def test_what_was_applied_last_can_be_seen_and_edited(k: Kubectl) -> None:
    k("apply", "-f", "-", given=subscription_object())
    assert yaml.safe_load(k("apply", "view-last-applied", "sub/printer")) == {
        **subscription_object(),
        "metadata": {"name": "printer", "namespace": k.namespace, "annotations": {}},
    }
    editing = k.with_environment(EDITOR="sed -i -e s/localhost:1/localhost:2/")
    assert "edited" in editing("apply", "edit-last-applied", "sub/printer")
    assert TWO in k("apply", "view-last-applied", "sub/printer")
    k("apply", "set-last-applied", "-f", "-", given=subscription_object(THREE))
    assert THREE in k("apply", "view-last-applied", "sub/printer", "-o", "json")
    assert k.json("get", "sub/printer")["spec"]["subscriber"]["uri"] == "http://localhost:1/"


def test_pruning_removes_what_left_the_set(k: Kubectl) -> None:
    documents = [config_map_object(name, {"labels": {"set": "one"}}) for name in ("a", "b")]
    k("apply", "-f", "-", given=yaml.safe_dump_all(documents))
    prune = ("apply", "--prune", "-l", "set=one", "--prune-allowlist=core/v1/ConfigMap", "-f", "-")
    assert "configmap/b pruned" in k(*prune, given=documents[0])
    assert k("get", "cm", "-o", "name") == "configmap/a\n"


def test_server_side_conflicts_and_force(k: Kubectl) -> None:
    assert "serverside-applied" in k("apply", "--server-side", "-f", "-", given=subscription_object())
    mine = ("apply", "--server-side", "--field-manager=bob", "-f", "-")
    said = k(*mine, given=subscription_object(TWO), code=1)
    assert "Apply failed with 1 conflict" in said
    assert 'conflict with "kubectl": .spec.subscriber.uri' in said
    assert "--force-conflicts" in said, "kubectl's own advice follows from the causes"
    assert "serverside-applied" in k(*mine, "--force-conflicts", given=subscription_object(TWO))
    managers = k.json("get", "subscriptions/printer", "--show-managed-fields")["metadata"]["managedFields"]
    assert [(entry["manager"], entry["operation"]) for entry in managers] == [("kubectl", "Apply"), ("bob", "Apply")]
    assert managers[1]["fieldsV1"]["f:spec"]["f:subscriber"] == {"f:uri": {}}
    assert "f:subscriber" not in managers[0]["fieldsV1"]["f:spec"]
    assert "managedFields" not in k.json("get", "subscriptions/printer")["metadata"]


def test_what_a_manager_stops_applying_goes_unless_it_is_shared(k: Kubectl) -> None:
    ann, bob = (("apply", "--server-side", f"--field-manager={name}", "-f", "-") for name in ("ann", "bob"))
    k(*ann, given=config_map_object(a="1", b="2", c="3"))
    k(*bob, given=config_map_object(a="1"))
    k(*ann, given=config_map_object(c="3"))
    assert k.json("get", "configmap/config")["data"] == {"a": "1", "c": "3"}
    said = k(*bob, given=config_map_object(a="1", c="4"), code=1)
    assert 'conflict with "ann": .data.c' in said


def test_lists_with_keys_merge_by_them(k: Kubectl) -> None:
    ann, bob = (("apply", "--server-side", f"--field-manager={name}", "-f", "-") for name in ("ann", "bob"))
    http, dns = {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "TCP"}
    k(*ann, given=service(http, dns))
    k(*bob, given=service({"name": "dns-udp", "port": 53, "protocol": "UDP"}))
    ports = [(port["name"], port["protocol"]) for port in k.json("get", "service/near")["spec"]["ports"]]
    assert ports == [("http", "TCP"), ("dns", "TCP"), ("dns-udp", "UDP")]
    said = k(*bob, given=service({"name": "web", "port": 80, "protocol": "TCP"}), code=1)
    assert '.spec.ports[port=80,protocol="TCP"].name' in said
    k(*ann, given=service(http))
    k(*bob, given=service({"name": "dns-udp", "port": 53, "protocol": "UDP"}))
    ports = [(port["name"], port["protocol"]) for port in k.json("get", "service/near")["spec"]["ports"]]
    assert ports == [("http", "TCP"), ("dns-udp", "UDP")]


def test_from_client_side_to_server_side(k: Kubectl) -> None:
    k("apply", "-f", "-", given=subscription_object(labels={"a": "b", "c": "d"}))
    changed = subscription_object(TWO, labels={"a": "b"})
    assert "Warning" not in k("apply", "--server-side", "-f", "-", given=changed)
    found = k.json("get", "subscriptions/printer", "--show-managed-fields")
    assert found["spec"]["subscriber"]["uri"] == TWO
    assert found["metadata"]["labels"] == {"a": "b"}
    assert ("kubectl", "Apply") in {(entry["manager"], entry["operation"]) for entry in found["metadata"]["managedFields"]}
    k("apply", "--server-side", "--field-manager=other", "-f", "-", given=changed)


def test_a_client_side_apply_of_another_value_than_that_of_a_server_side_one(k: Kubectl) -> None:
    k("apply", "--server-side", "--field-manager=ann", "-f", "-", given=subscription_object())
    k("apply", "-f", "-", given=subscription_object(TWO))
    said = k("apply", "--server-side", "--field-manager=ann", "-f", "-", given=subscription_object(THREE), code=1)
    assert 'conflict with "kubectl-client-side-apply"' in said


def test_diff(k: Kubectl) -> None:
    k("apply", "-f", "-", given=subscription_object())
    k("diff", "-f", "-", given=subscription_object())
    said = k("diff", "-f", "-", given=subscription_object(TWO), code=1)
    assert "-    uri: http://localhost:1/" in said
    assert "+    uri: http://localhost:2/" in said
    assert "+  generation: 2" in said
    assert k.json("get", "sub/printer")["metadata"]["generation"] == 1
    said = k("diff", "-f", "-", given=config_map_object(a="1"), code=1)
    assert "+kind: ConfigMap" in said
    k("apply", "--server-side", "-f", "-", given=channel_object())
    k("diff", "--server-side", "-f", "-", given=channel_object())
    k("diff", "--server-side", "-f", "-", given=channel_object("orders", {"labels": {"a": "b"}}), code=1)


def test_dry_runs_answer_like_the_real_thing_and_store_nothing(k: Kubectl) -> None:
    assert "created (server dry run)" in k("apply", "--dry-run=server", "-f", "-", given=channel_object())
    assert "created (server dry run)" in k("create", "namespace", "nested", "--dry-run=server")
    assert "created (server dry run)" in k("create", "--dry-run=server", "-f", "-", given=channel_object())
    made = json.loads(k("apply", "--dry-run=server", "--server-side", "-f", "-", "-o", "json", given=channel_object()))
    assert made["metadata"]["uid"]
    assert "NotFound" in k("get", "channels/orders", code=1)
    k("apply", "-f", "-", given=subscription_object())
    before = k.json("get", "sub/printer")
    assert "configured (server dry run)" in k("apply", "--dry-run=server", "-f", "-", given=subscription_object(TWO))
    assert "labeled (server dry run)" in k("label", "--dry-run=server", "sub/printer", "a=b")
    assert "annotated (server dry run)" in k("annotate", "--dry-run=server", "sub/printer", "a=b")
    patch = '{"spec":{"subscriber":{"uri":"http://localhost:2/"}}}'
    patched = k.json("patch", "sub/printer", "--dry-run=server", "--type=merge", "-p", patch)
    assert (patched["spec"]["subscriber"]["uri"], patched["metadata"]["generation"]) == (TWO, 2)
    assert "replaced (server dry run)" in k("replace", "--dry-run=server", "-f", "-", given=before)
    assert "(server dry run)" in k("delete", "--dry-run=server", "sub/printer")
    assert k.json("get", "sub/printer") == before


@pytest.mark.parametrize("server_side", [False, True], ids=["client-side", "server-side"])
def test_validation(k: Kubectl, server_side: bool) -> None:
    apply = ("apply", "-f", "-", *(["--server-side"] if server_side else []))
    bad = channel_object("orders", nothing=1)
    for strict in ((), ("--validate=strict",), ("--validate=true",)):
        assert 'strict decoding error: unknown field "spec.nothing"' in k(*apply, *strict, given=bad, code=1)
    assert 'Warning: unknown field "spec.nothing"' in k(*apply, "--validate=warn", given=bad)
    assert "Warning" not in k(*apply, "--validate=ignore", given=bad)
    assert "nothing" not in k.json("get", "ch/orders")["spec"]
    said = k(*apply, given=channel_object("wrong", delivery={"retry": "many"}), code=1)
    assert 'spec.delivery.retry in body must be of type integer: "many"' in said
    nobody = {**subscription_object(), "spec": {"channel": {"apiVersion": KNATIVE, "kind": "Channel", "name": "orders"}}}
    assert "validation failed: missing field(s): spec.subscriber" in k(*apply, given=nobody, code=1)
    assert "cannot unmarshal number" in k(*apply, given=config_map_object() | {"data": {"a": 1}}, code=1)
    assert "no matches for kind" in k(*apply, given=channel_object() | {"kind": "Chanel"}, code=1)
