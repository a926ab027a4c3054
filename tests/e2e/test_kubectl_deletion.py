"""kubectl delete and wait; namespaces."""

import pytest

from tests.support.api_server import Kubectl
from tests.support.manifests import KNATIVE, channel_object, config_map_object, subscription_object
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubectl

HELD = config_map_object("config", {"finalizers": ["example.com/hold"]})


def test_one_several_selected_all(k: Kubectl) -> None:
    for name in ("a", "b", "c", "d", "e"):
        k("create", "-f", "-", given=config_map_object(name, {"labels": {"name": name}}))
    assert "deleted" in k("delete", "cm/a")
    assert 'Error from server (NotFound): configmaps "a" not found' in k("delete", "cm/a", code=1)
    k("delete", "cm/a", "--ignore-not-found")
    k("delete", "cm", "-l", "name=b")
    k("delete", "-f", "-", given=config_map_object("c"))
    assert k("get", "cm", "-o", "name").split() == ["configmap/d", "configmap/e"]
    k("delete", "cm", "--all", "--grace-period=0", "--wait=true")
    assert "No resources found" in k("get", "cm")


def test_finalizers_hold_and_wait_waits(k: Kubectl) -> None:
    k("apply", "-f", "-", given=HELD)
    deleting = k.start("delete", "cm/config", "--wait=true")
    eventually(lambda: "deletionTimestamp" in k.json("get", "cm/config")["metadata"], "the deletion to be asked for")
    waiting = k.start("wait", "--for=delete", "cm/config", "--timeout=20s")
    assert "timed out" in k("wait", "--for=delete", "cm/config", "--timeout=200ms", code=1)
    assert "deleted" in k("delete", "cm/config", "--wait=false")
    assert (deleting.poll(), waiting.poll()) == (None, None)
    said = k("patch", "cm/config", "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold","x.io/y"]}}', code=1)
    assert "no new finalizers can be added if the object is being deleted" in said
    k("patch", "cm/config", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    for process in (deleting, waiting):
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert "NotFound" in k("get", "cm/config", code=1)


@pytest.mark.parametrize("policy", ["background", "foreground", "orphan"])
def test_dependents_go_as_asked(k: Kubectl, policy: str) -> None:
    k("create", "-f", "-", given=channel_object())
    owner = k.json("get", "ch/orders")
    reference = {"apiVersion": KNATIVE, "kind": "Channel", "name": "orders", "uid": owner["metadata"]["uid"]}
    owned = config_map_object("config", {"ownerReferences": [reference | {"blockOwnerDeletion": True}]})
    k("create", "-f", "-", given=owned)
    k("delete", "ch/orders", f"--cascade={policy}")
    if policy == "orphan":
        assert "ownerReferences" not in k.json("get", "cm/config")["metadata"]
    elif policy == "foreground":
        k("get", "cm/config", code=1)
    else:
        k("wait", "--for=delete", "cm/config", "--timeout=20s")


def test_a_namespace_takes_all_that_is_in_it_along(k: Kubectl) -> None:
    doomed = f"doomed-{k.minor()}"
    k("create", "namespace", doomed)
    k("create", "-n", doomed, "-f", "-", given=channel_object())
    k("create", "-n", doomed, "-f", "-", given=HELD)
    deleting = k.start("delete", "namespace", doomed)
    eventually(lambda: k("get", "namespace", doomed, "-o", "jsonpath={.status.phase}") == "Terminating", "it is being emptied")
    said = k("create", "-n", doomed, "-f", "-", given=config_map_object("late"), code=1)
    assert f"unable to create new content in namespace {doomed} because it is being terminated" in said
    eventually(lambda: k("get", "-n", doomed, "ch", "-o", "name") == "", "what nobody holds is gone")
    assert deleting.poll() is None
    k("patch", "-n", doomed, "cm/config", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    deleting.communicate(timeout=20)
    assert deleting.returncode == 0
    assert "NotFound" in k("get", "namespace", doomed, code=1)
    assert "No resources found" in k("get", "cm", "-n", doomed)


def test_unknown_namespaces_and_those_that_stay(k: Kubectl) -> None:
    said = k("create", "-n", "nowhere", "-f", "-", given=channel_object(), code=1)
    assert 'Error from server (NotFound): error when creating "STDIN": namespaces "nowhere" not found' in said
    assert 'namespaces "nowhere" not found' in k("apply", "-n", "nowhere", "-f", "-", given=channel_object(), code=1)
    assert "No resources found in nowhere namespace" in k("get", "channels", "-n", "nowhere")
    assert 'namespaces "default" is forbidden: this namespace may not be deleted' in k("delete", "ns/default", code=1)


# WatchList is on by default since 1.35, and was asked for by this name before; the server has both ways for all.
@pytest.mark.parametrize("watch_list", ["false", "true"], ids=["list and watch", "WatchList"])
def test_wait(k: Kubectl, watch_list: str) -> None:
    run = k.with_environment(KUBE_FEATURE_WatchListClient=watch_list)
    k("create", "-f", "-", given=channel_object())
    assert "timed out" in run("wait", "--for=condition=Ready", "ch/orders", "--timeout=200ms", code=1)
    waiting = [
        run.start("wait", "--for=condition=Ready", "ch/orders", "--timeout=20s"),
        run.start("wait", "--for=condition=Ready=True", "ch", "--all", "--timeout=20s"),
        run.start("wait", "--for=jsonpath={.status.address.url}=http://x", "ch/orders", "--timeout=20s"),
    ]
    if k.minor() >= 31:
        waiting.append(run.start("wait", "--for=create", "ch/later", "--timeout=20s"))
    k.make_ready()
    k("create", "-f", "-", given=channel_object("later"))
    for process in waiting:
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert "condition met" in said
    said = run("wait", "--for=jsonpath={.status.address.url}", "ch/orders", "--timeout=20s")
    assert "condition met" in said
    k("apply", "-f", "-", given=HELD)
    deleting = run.start("delete", "cm/config", "--wait=true")
    waiting_for_it = run.start("wait", "--for=delete", "cm/config", "--timeout=20s")
    eventually(lambda: "deletionTimestamp" in k.json("get", "cm/config")["metadata"], "the deletion to be asked for")
    k("patch", "cm/config", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    for process in (deleting, waiting_for_it):
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said


def test_a_condition_of_an_older_generation_is_not_waited_for(k: Kubectl) -> None:
    k("create", "-f", "-", given=subscription_object())
    ready = '{"status":{"observedGeneration":%d,"conditions":[{"type":"Ready","status":"True"}]}}'
    k("patch", "sub/printer", "--subresource=status", "--type=merge", "-p", ready % 1)
    k("wait", "--for=condition=Ready", "sub/printer", "--timeout=20s")
    k("apply", "-f", "-", given=subscription_object("http://localhost:2/"))
    assert "timed out" in k("wait", "--for=condition=Ready", "sub/printer", "--timeout=200ms", code=1)
    waiting = k.start("wait", "--for=condition=Ready", "sub/printer", "--timeout=20s")
    k("patch", "sub/printer", "--subresource=status", "--type=merge", "-p", ready % 2)
    said, _ = waiting.communicate(timeout=20)
    assert waiting.returncode == 0, said
