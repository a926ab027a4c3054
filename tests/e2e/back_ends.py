"""What a user may expect of every back end outside the mesh: asked of each by its own module."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.api_server import Kubectl
from tests.support.manifests import CHANNEL, subscription
from tests.support.up import Subscriber, Up
from tests.support.waiting import eventually

__all__ = ["event", "is_listed", "nothing_is_lost_with_a_data_plane", "says_what_to_install", "subscription_of", "without_module"]


def event(identity: str) -> dict[str, str]:
    return {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": identity}


def subscription_of(kind: str, name: str, url: str) -> str:
    """A Subscription of the channel of this kind and name, and of its name."""
    return f"""
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata:
  name: {name}
spec:
  channel:
    apiVersion: messaging.knative.dev/v1beta1
    kind: {kind}
    name: {name}
  subscriber:
    uri: {url}
"""


def is_listed(k: Kubectl, mesh: Up, short_name: str, name: str) -> None:
    """kubectl shows the channel, which is Ready, with its address, and beside channels of other kinds."""
    header, row = (line.split() for line in k("get", short_name, name).splitlines())
    assert header == ["NAME", "READY", "REASON", "URL", "AGE"]
    assert row[:3] == [name, "True", f"{mesh.endpoints['ingress']}/default/{name}"]
    assert name in k("get", f"{short_name},channels", "-o", "name")
    assert name in k("get", "knative", "-o", "name")


def nothing_is_lost_with_a_data_plane(mesh: Up, subscriber: Subscriber, name: str) -> None:
    """202 is the back end's word: the data plane may die the moment after."""
    assert mesh.post(f"/default/{name}", event("before"), b"{}").status == 202
    subscriber.get("before")
    before = mesh.children()["DataPlaneRole"]
    ids = [f"at-the-kill-{number}" for number in range(5)]
    for identity in ids:
        assert mesh.post(f"/default/{name}", event(identity), b"{}").status == 202
    os.kill(before, signal.SIGKILL)
    eventually(lambda: mesh.children().get("DataPlaneRole", before) != before, "a new data plane")
    arrived: set[str] = set()
    while not set(ids) <= arrived:
        headers, _ = subscriber.received.get(timeout=60)
        arrived.add(headers["ce-id"])


def without_module(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on processes are as after `pip install eventing-mesh` without the extra that brings this module."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"import sys\nsys.modules[{name!r}] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def says_what_to_install(data_dir: Path, subscriber: Subscriber, option: str, extra: str, short_name: str, later: str) -> None:
    """Without the client: `option` is refused; else the mesh serves what it can, and a channel `later`, of the manifest of that
    name, says what is missing."""
    with Up(data_dir, option) as mesh:
        assert mesh.process.wait(20) == 1
        assert f"pip install 'eventing-mesh[{extra}]'" in mesh.log
    manifests = f"{CHANNEL}---\n{subscription(subscriber.url)}---{later}"
    with Up(data_dir, "-f", "-", stdin=manifests) as mesh:
        subscriber.get(mesh.ready().send_until_due())
        eventually(lambda: "BackEndNotInstalled" in mesh.run("get", short_name, "later"), "the reason")
        assert f"pip install 'eventing-mesh[{extra}]'" in mesh.run("describe", short_name, "later")
        assert mesh.post("/default/later", event("1"), b"{}").status == 503
        mesh.run("delete", short_name, "later")
        assert mesh.stop() == 0, mesh.log
