"""What a user does who wonders where an event went: applies a channel and a subscription, posts, and asks `eventing trace`."""

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from eventing.cli.app import run
from eventing.journal.documents import Delivery, Match, Trace
from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Sink
from tests.support.waiting import eventually

__all__ = [
    "REPLY",
    "SECRET",
    "Eventing",
    "applied",
    "dead_letter",
    "ended",
    "manifest",
    "post",
    "run_command",
    "traced",
]

Eventing = Callable[..., str]
SECRET = "pl4nted-s3cret"
REPLY = (("ce-specversion", "1.0"), ("ce-id", "reply"), ("ce-type", "t"), ("ce-source", "/reply"))


def run_command(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int | None) -> str:
    """Run a command line in this process and check its exit code (None: any will do); its standard output."""
    capsys.readouterr()
    got = run(list(arguments))
    said = capsys.readouterr()
    assert code in {got, None}, said.out + said.err
    return said.out


def post(mesh: Mesh, channel: str, id_: str | None, data: bytes = b"{}", **headers: Any) -> int:
    parts = urlsplit(mesh.ingress_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    attributes = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "content-type": "application/json"}
    if id_ is not None:
        attributes["ce-id"] = id_
    connection.request("POST", f"/default/{channel}", data, attributes | {k.replace("_", "-"): v for k, v in headers.items()})
    status = connection.getresponse().status
    connection.close()
    return status


def manifest(name: str, subscriber: str, *, reply: str = "", annotations: dict[str, str] | None = None, **delivery: Any) -> str:
    """A channel and its subscription, both of this name, as JSON, which is YAML."""
    channel = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "metadata": {"name": name}}
    if annotations:
        channel["metadata"] = {"name": name, "annotations": annotations}
    spec: dict[str, Any] = {
        "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": name},
        "subscriber": {"uri": subscriber},
        "delivery": {"backoffDelay": "PT0.01S", **delivery},
    }
    if reply:
        spec["reply"] = {"uri": reply}
    subscription = {"apiVersion": "messaging.knative.dev/v1", "kind": "Subscription", "metadata": {"name": name}, "spec": spec}
    return "\n---\n".join(json.dumps(each) for each in (channel, subscription))


def applied(eventing: Eventing, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(text)
    eventing("apply", "-f", str(tmp_path / f"{name}.yaml"))
    eventually(lambda: json.loads(eventing("why", name, "-o", "json"))["ready"] == "True", f"{name} is ready")


def traced(eventing: Eventing, id_: str) -> Match:
    """The one acceptance of the event, as `eventing trace -o json` tells it, checked against the stable shape."""
    trace = msgspec.json.decode(eventing("trace", id_, "-o", "json"), type=Trace)
    (match,) = trace.matches
    return match


def ended(eventing: Eventing, id_: str) -> Delivery:
    """Its delivery, once it has an end."""

    def probe() -> Delivery | None:
        (delivery,) = traced(eventing, id_).deliveries
        return delivery if delivery.state != "pending" else None

    found = eventually(probe, f"{id_} has ended")
    assert found is not None
    return found


def dead_letter(sink: Sink, path: str = "/dls") -> dict[str, Any]:
    return {"deadLetterSink": {"uri": sink.url + path}}
