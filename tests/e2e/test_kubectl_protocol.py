"""What kubectl relies on beneath its verbs: versions, pages, watches that go on, preconditions."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.api_server import Kubectl, serving
from tests.support.manifests import KNATIVE, channel_object, config_map_object, subscription_object
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubectl

ANY = "/apis/messaging.knative.dev/v1/channels"


@pytest.mark.parametrize("watch_list", ["false", "true"], ids=["list and watch", "WatchList"])
def test_waits_go_on_over_a_restart_of_the_server(kubectl: Path, tmp_path: Path, watch_list: str) -> None:
    directory = tmp_path / "server"
    directory.mkdir()
    with serving(directory) as kubeconfig:
        k = Kubectl(kubectl, kubeconfig, tmp_path, KUBE_FEATURE_WatchListClient=watch_list)
        port = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]).port
        k("create", "-f", "-", given=channel_object())
        old = k.json("get", "channels")["items"][0]["metadata"]["resourceVersion"]
        k("label", "channels/orders", "a=b")
        watching = k.start("get", "channels", "-w", "-o", "name")
        assert watching.stdout is not None
        assert watching.stdout.readline() == "channel.messaging.knative.dev/orders\n"
        waiting = k.start("-v=7", "wait", "--for=condition=Ready", "channels/orders", "--timeout=30s")
        assert waiting.stdout is not None
        eventually(lambda: "watch=true" in waiting.stdout.readline(), "kubectl wait watches")  # type: ignore[union-attr]
    assert watching.wait(20) == 0, "a watch that the server ends is no error"
    assert port
    with serving(directory, port) as kubeconfig:
        said = k("get", "--raw", f"{ANY}?watch=true&resourceVersion={old}", code=1)
        assert "too old resource version" in said
        k.make_ready()
        said, _ = waiting.communicate(timeout=30)
        assert waiting.returncode == 0, said
        assert "condition met" in said
    k.close()


def test_pages_and_versions(k: Kubectl) -> None:
    path = f"/api/v1/namespaces/{k.namespace}/configmaps"
    for name in ("a", "b", "c"):
        k("create", "configmap", name)
    first = json.loads(k("get", "--raw", f"{path}?limit=2"))
    version, token = first["metadata"]["resourceVersion"], first["metadata"]["continue"]
    assert first["metadata"]["remainingItemCount"] == 1
    k("delete", "configmap", "c")
    rest = json.loads(k("get", "--raw", f"{path}?limit=2&continue={token}"))
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c"], "a list is of one moment"
    assert rest["metadata"] == {"resourceVersion": version}
    then = json.loads(k("get", "--raw", f"{path}?resourceVersion={version}&resourceVersionMatch=Exact"))
    assert len(then["items"]) == 3
    assert len(json.loads(k("get", "--raw", f"{path}?resourceVersion={version}"))["items"]) == 2
    said = k("get", "--raw", f"{path}?resourceVersion=9999999", code=1)
    assert "Too large resource version: 9999999" in said
    assert "resourceVersionMatch is forbidden" in k("get", "--raw", f"{path}?resourceVersionMatch=Exact", code=1)


def test_a_watch_tells_all_since_a_version_and_ends_with_a_bookmark(k: Kubectl) -> None:
    path = f"/api/v1/namespaces/{k.namespace}/configmaps"
    version = json.loads(k("get", "--raw", path))["metadata"]["resourceVersion"]
    k("create", "configmap", "a")
    k("label", "configmap", "a", "b=c")
    k("delete", "configmap", "a")
    query = f"watch=true&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={version}"
    events = [json.loads(line) for line in k("get", "--raw", f"{path}?{query}").splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    assert versions[-1] >= versions[-2] > versions[0] > int(version)
    query = "watch=true&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    k("create", "configmap", "b")
    events = [json.loads(line) for line in k("get", "--raw", f"{path}?{query}").splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_preconditions(k: Kubectl) -> None:
    k("create", "-f", "-", given=subscription_object())
    found = k.json("get", "sub/printer")
    path = f"/apis/messaging.knative.dev/v1/namespaces/{k.namespace}/subscriptions/printer"

    def delete(code: int = 0, **preconditions: str) -> str:
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
        return k("delete", "--raw", path, "-f", "-", given=options, code=code)

    said = delete(1, uid="other")
    assert f"Precondition failed: UID in precondition: other, UID in object meta: {found['metadata']['uid']}" in said
    assert "Precondition failed: ResourceVersion in precondition: 1" in delete(1, resourceVersion="1")
    stale = json.dumps({"metadata": {"resourceVersion": "1"}, "spec": {"subscriber": {"uri": "http://localhost:2/"}}})
    said = k("patch", "sub/printer", "--type=merge", "-p", stale, code=1)
    assert "Error from server (Conflict)" in said
    moved = json.dumps({"metadata": {"uid": "other"}})
    assert "Precondition failed: UID in precondition" in k("patch", "sub/printer", "--type=merge", "-p", moved, code=1)
    delete(uid=found["metadata"]["uid"], resourceVersion=found["metadata"]["resourceVersion"])
    assert "NotFound" in k("get", "sub/printer", code=1)


def test_fields_given_twice_and_fields_unknown(k: Kubectl) -> None:
    path = f"/api/v1/namespaces/{k.namespace}/configmaps"
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"twice"},"data":{"a":"1","a":"2"},"more":1}'
    said = k("create", "--raw", f"{path}?fieldValidation=Strict", "-f", "-", given=text, code=1)
    assert 'strict decoding error: duplicate field "data.a", unknown field "more"' in said
    said = k("create", "--raw", path, "-f", "-", given=text)
    assert 'Warning: duplicate field "data.a"' in said
    assert 'Warning: unknown field "more"' in said


def test_generation_and_what_the_server_sets(k: Kubectl) -> None:
    given = subscription_object(uid="mine", generation=7, creationTimestamp="2000-01-01T00:00:00Z", selfLink="x")
    k("create", "-f", "-", given=given)
    made = k.json("get", "sub/printer")["metadata"]
    assert made["generation"] == 1
    assert made["uid"] != "mine"
    assert not made["creationTimestamp"].startswith("2000")
    k("label", "sub/printer", "a=b")
    k("apply", "-f", "-", given=subscription_object("http://localhost:2/"))
    changed = k.json("get", "sub/printer")["metadata"]
    assert changed["generation"] == 2
    assert {name: changed[name] for name in ("uid", "creationTimestamp")} == {
        name: made[name] for name in ("uid", "creationTimestamp")
    }
    assert int(changed["resourceVersion"]) > int(made["resourceVersion"])


def test_nothing_is_written_where_nothing_changes(k: Kubectl) -> None:
    k("apply", "--server-side", "-f", "-", given=config_map_object(a="1"))
    version = k.json("get", "cm/config")["metadata"]["resourceVersion"]
    k("apply", "--server-side", "-f", "-", given=config_map_object(a="1"))
    k("patch", "cm/config", "--type=merge", "-p", '{"data":{"a":"1"}}')
    k("annotate", "cm/config", "a-")
    assert k.json("get", "cm/config")["metadata"]["resourceVersion"] == version


def test_the_status_can_be_applied(k: Kubectl) -> None:
    if k.minor() < 32:
        return  # kubectl apply --subresource came with 1.32
    k("create", "-f", "-", given=channel_object())
    mine = {"apiVersion": KNATIVE, "kind": "Channel", "metadata": {"name": "orders"}, "status": {"address": {"url": "http://x"}}}
    k("apply", "--server-side", "--subresource=status", "--field-manager=me", "-f", "-", given=mine)
    other = mine | {"status": {"address": {"url": "http://y"}}}
    said = k("apply", "--server-side", "--subresource=status", "--field-manager=you", "-f", "-", given=other, code=1)
    assert 'conflict with "me" with subresource "status"' in said
