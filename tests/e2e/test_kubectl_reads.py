"""kubectl get, describe, explain, events and all others that only read."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import IO

import pytest
import yaml

from tests.support.api_server import Kubectl
from tests.support.manifests import KNATIVE, channel_object, config_map_object, subscription_object

pytestmark = pytest.mark.kubectl

Says = Callable[[str], object]


def words(text: str) -> list[str]:
    return text.split()


# Command line → whether what it says is right. There are the channels `orders` (Ready) and `other` (label team=a).
GETS: dict[str, Says] = {
    "get channels": lambda out: words(out)[:10] == ["NAME", "URL", "AGE", "READY", "REASON", "orders", "http://x", words(out)[7], "True", "other"],
    "get ch orders -o wide": lambda out: "True" in out,
    "get ch/orders -o yaml": lambda out: yaml.safe_load(out)["kind"] == "Channel" and "managedFields" not in out,
    "get ch/orders -o yaml --show-managed-fields": lambda out: "managedFields" in yaml.safe_load(out)["metadata"],
    "get ch -o json": lambda out: [item["metadata"]["name"] for item in json.loads(out)["items"]] == ["orders", "other"],
    "get ch -o name": lambda out: words(out) == [f"channel.messaging.knative.dev/{name}" for name in ("orders", "other")],
    "get ch/orders -o jsonpath={.status.address.url}": lambda out: out == "http://x",
    'get ch -o jsonpath={.items[?(@.metadata.name=="other")].metadata.labels.team}': lambda out: out == "a",
    "get ch -o custom-columns=N:.metadata.name,T:.metadata.labels.team": lambda out: words(out) == ["N", "T", "orders", "<none>", "other", "a"],
    "get ch/orders -o go-template={{.metadata.name}}": lambda out: out == "orders",
    "get ch -l team=a -o name": lambda out: words(out) == ["channel.messaging.knative.dev/other"],
    "get ch -l team!=a --no-headers": lambda out: words(out)[0] == "orders",
    "get ch -l !team --no-headers": lambda out: words(out)[0] == "orders",
    "get ch -l team-in-(a) -o name": lambda out: words(out) == ["channel.messaging.knative.dev/other"],
    "get ch --show-labels -L team": lambda out: "team=a" in out and "TEAM" in out,
    "get ch --field-selector=metadata.name=other --no-headers": lambda out: words(out)[0] == "other",
    "get ch --field-selector=metadata.name!=other --no-headers": lambda out: words(out)[0] == "orders",
    "get ch --sort-by={.metadata.name}": lambda out: re.search("orders.*other", out, re.DOTALL),
    "get ch --sort-by=.metadata.labels.team": lambda out: out.count("\n") == 3,
    "get ch -A": lambda out: words(out)[0] == "NAMESPACE" and "orders" in out,
    "get ch -A -o name --field-selector=metadata.namespace=NAMESPACE": lambda out: out.count("\n") == 2,
    "get ch --chunk-size=1 -o name": lambda out: out.count("\n") == 2,
    "get ch --chunk-size=1": lambda out: out.count("\n") == 3,
    "get ch,sub": lambda out: "channel.messaging.knative.dev/orders" in out,
    "get ch/orders cm/config -o name": lambda out: words(out) == ["channel.messaging.knative.dev/orders", "configmap/config"],
    "get knative": lambda out: "channel.messaging.knative.dev/orders" in out,
    "get messaging -o name": lambda out: "channel.messaging.knative.dev/orders" in out,
    "get channel": lambda out: words(out)[5] == "orders",
    "get channel orders -o name": lambda out: words(out) == ["channel.messaging.knative.dev/orders"],
    "describe channel orders": lambda out: re.search(r"Kind:\s+Channel\n", out),
    "get channel/orders --no-headers": lambda out: words(out)[0] == "orders",
    "get all": lambda out: "channel.messaging.knative.dev/orders" in out,
    "get channels.v1.messaging.knative.dev": lambda out: "orders" in out,
    "get channels.messaging.knative.dev/orders -o name": lambda out: "orders" in out,
    "get cm": lambda out: words(out)[:5] == ["NAME", "DATA", "AGE", "config", "1"],
    "get ns": lambda out: words(out)[:3] == ["NAME", "STATUS", "AGE"] and "Active" in out,
    "get secrets": lambda out: words(out)[:6] == ["NAME", "TYPE", "DATA", "AGE", "s", "Opaque"],
    "get sa": lambda out: "No resources found" in out,
    "get svc": lambda out: words(out)[:11] == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "away", "ExternalName", "<none>", "example.com", "<none>"],
    "get crds -l messaging.knative.dev/subscribable=true": lambda out: words(out)[:3] == ["NAME", "CREATED", "AT"] and "inmemorychannels" in out,
    "get --raw /apis/messaging.knative.dev/v1": lambda out: json.loads(out)["kind"] == "APIResourceList",
    "get --raw /api/v1/namespaces?limit=1": lambda out: json.loads(out)["metadata"]["continue"],
    "get --raw /readyz": lambda out: out == "ok",
    "get --raw /healthz": lambda out: out == "ok",
    "get --raw /version": lambda out: json.loads(out)["major"] == "1",
    "get --raw /openapi/v3": lambda out: "apis/messaging.knative.dev/v1" in json.loads(out)["paths"],
    "describe ch/orders": lambda out: re.search(r"Name:\s+orders", out) and "Status:" in out and re.search(r"Events:\s+<none>", out),
    "describe ch -l team=a": lambda out: re.search(r"Name:\s+other", out) and "orders" not in out,
    "describe ns NAMESPACE": lambda out: re.search(r"Status:\s+Active", out) is not None,
    "describe cm config": lambda out: "a:\n----\n1" in out,
    "describe secret s": lambda out: re.search(r"password:\s+7 bytes", out) and "hunter2" not in out,
    "describe crd channels.messaging.knative.dev": lambda out: re.search(r"Type:\s+Established", out) is not None,
    "explain channels": lambda out: re.search(r"KIND:\s+Channel", out) and "spec" in out,
    "explain channels.spec": lambda out: "What is wanted of the channel." in out,
    "explain subscriptions --recursive": lambda out: "deadLetterSink" in out and "retry" in out,
    "explain sub.spec.delivery.retry": lambda out: re.search(r"FIELD:\s+retry <integer>", out) is not None,
    "explain configmap.data": lambda out: "The values, as text." in out,
    "explain ch.metadata.labels": lambda out: "selected" in out,
    "explain crd.spec --recursive": lambda out: "versions" in out,
    "api-resources": lambda out: re.search(r"channels\s+ch\s+messaging.knative.dev/v1\s+true\s+Channel", out) is not None,
    "api-resources --api-group=messaging.knative.dev -o name": lambda out: "subscriptions.messaging.knative.dev" in words(out),
    "api-resources --namespaced=false -o wide": lambda out: "namespaces" in out and "create,delete" in out and "channels" not in out,
    "api-resources --categories=messaging --verbs=list,watch -o name": lambda out: "channels.messaging.knative.dev" in words(out),
    "api-versions": lambda out: {"v1", "messaging.knative.dev/v1", "apiextensions.k8s.io/v1"} <= set(words(out)),
    "cluster-info": lambda out: "Kubernetes control plane" in out,
    "version": lambda out: "Server Version: v1." in out,
    "events": lambda out: "No events found" in out,
    "auth whoami": lambda out: "kubernetes-admin" in out,
    "auth can-i create channels": lambda out: out == "yes\n",
    "auth can-i --list": lambda out: "*.*" in out,
    "config view --minify -o jsonpath={.contexts[0].context.namespace}": lambda out: "orders" not in out,
}  # fmt: skip


@pytest.mark.timeout(240)  # some seventy processes
def test_everything_that_reads(k: Kubectl) -> None:
    k("create", "-f", "-", given=channel_object())
    k("create", "-f", "-", given=channel_object("other", {"labels": {"team": "a"}}))
    k("create", "-f", "-", given=config_map_object(a="1"))
    k("create", "secret", "generic", "s", "--from-literal=password=hunter2")
    k("create", "service", "externalname", "away", "--external-name=example.com")
    k.make_ready()

    def ask(line: str) -> str:
        arguments = line.replace("NAMESPACE", k.namespace).split()
        return k(*(argument.replace("team-in-(a)", "team in (a)") for argument in arguments))

    with ThreadPoolExecutor(3) as pool:
        said = dict(zip(GETS, pool.map(ask, GETS), strict=True))
    assert {line: text for line, text in said.items() if not GETS[line](text)} == {}


def test_what_is_not_there_is_said_as_everywhere(k: Kubectl) -> None:
    assert 'Error from server (NotFound): channels.messaging.knative.dev "none" not found' in k("get", "ch/none", code=1)
    assert "the server doesn't have a resource type" in k("get", "nothing", code=1)
    assert f"No resources found in {k.namespace} namespace" in k("get", "ch")
    assert "could not find the requested resource" in k("get", "--raw", "/apis/none.example.com/v1", code=1)
    assert "field label not supported: spec.x" in k("get", "ch", "--field-selector=spec.x=1", code=1)
    assert 'field "nothing" does not exist' in k("explain", "channels.spec.nothing", code=1)


def read_until(output: IO[str], *words: str) -> str:
    """The next line that has the words."""
    for line in output:
        if all(word in line for word in words):
            return line
    raise AssertionError(f"kubectl ended without {words}")


def test_get_watch(k: Kubectl) -> None:
    names = k.start("get", "channels", "--watch", "-o", "name")
    k("create", "-f", "-", given=channel_object())
    # kubectl swallows the first event of a watch of one object, so this one must have begun: the log says when.
    one = k.start("-v=6", "get", "channels/orders", "-w")
    every = k.start("get", "ch", "-w", "--output-watch-events", "--no-headers")
    assert names.stdout is not None
    assert one.stdout is not None
    assert every.stdout is not None
    assert names.stdout.readline() == "channel.messaging.knative.dev/orders\n"
    assert read_until(one.stdout, "NAME").split() == ["NAME", "URL", "AGE", "READY", "REASON"]
    assert read_until(one.stdout, "orders").split()[0] == "orders"
    read_until(one.stdout, "watch=true")
    assert every.stdout.readline().split()[:2] == ["ADDED", "orders"]
    k.make_ready()
    assert read_until(one.stdout, "orders", "http://x").split()[3] == "True"
    assert names.stdout.readline() == "channel.messaging.knative.dev/orders\n"
    assert every.stdout.readline().split()[:3] == ["MODIFIED", "orders", "http://x"]
    k("delete", "ch/orders")
    assert every.stdout.readline().split()[:2] == ["DELETED", "orders"]


def test_events(k: Kubectl) -> None:
    k("create", "-f", "-", given=channel_object())
    metadata = k.json("get", "ch/orders")["metadata"]
    involved = {"apiVersion": KNATIVE, "kind": "Channel", **{name: metadata[name] for name in ("name", "namespace", "uid")}}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "orders.", "namespace": metadata["namespace"]},
        "involvedObject": involved,
        "type": "Warning",
        "reason": "Odd",
        "message": "something is odd",
        "lastTimestamp": metadata["creationTimestamp"],
        "count": 2,
    }
    watching = k.start("events", "--watch", "--no-headers")
    k("create", "-f", "-", given=event)
    assert watching.stdout is not None
    assert "something is odd" in watching.stdout.readline()
    k("create", "-f", "-", given={**event, "type": "Normal", "reason": "Fine", "message": "all is well"})
    for arguments in (
        ("events",),
        ("events", "--for=channels.messaging.knative.dev/orders"),
        ("events", "--types=Warning"),
        ("get", "events"),
        ("get", "events", "--field-selector=involvedObject.name=orders,type=Warning"),
        ("describe", "ch/orders"),
    ):
        out = k(*arguments)
        assert re.search(r"Warning\s+Odd\s", out), out
        assert "something is odd" in out
        assert ("all is well" in out) is not ("Warning" in arguments[-1])
    assert "No events found" in k("events", "--for=channels.messaging.knative.dev/other")
    table = k("get", "events").splitlines()
    assert table[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert table[1].split()[3] == "channel/orders"


def test_how_far_a_subscription_is_behind(k: Kubectl) -> None:
    k("apply", "-f", "-", given=subscription_object())
    stored = (datetime.now(UTC) - timedelta(seconds=300)).strftime("%Y-%m-%dT%H:%M:%SZ")
    lag = json.dumps({"status": {"lag": {"events": 12, "oldest": stored}}})
    k("patch", "sub/printer", "--subresource=status", "--type=merge", "-p", lag)
    header, row = k("get", "sub", "-o", "wide").splitlines()
    assert re.split(r"\s{2,}", header.strip())[-2:] == ["LAG", "OLDEST"]
    assert re.fullmatch(r"printer .* 12 +(5m|5m\d+s|300s) *", row)
    assert "LAG" not in k("get", "sub")
