"""To whom an event was not due, and why; what came twice; and what never came."""

import json
from pathlib import Path

import msgspec
import pytest

from eventing.journal.documents import Match, Trace
from eventing.runtime.mesh import Mesh
from eventing.runtime.way import TIMES
from eventing.testing.sinks import Sink
from tests.support.questions import Eventing, applied, manifest, post, traced
from tests.support.waiting import eventually


def test_who_was_not_due_and_why(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    name = "due"
    applied(eventing, tmp_path, name, manifest(name, f"{sink.url}/due"))
    subscription = manifest(name, f"{sink.url}/due").split("\n---\n")[1]
    gone, later, unready = (json.loads(subscription) for _ in range(3))
    gone["metadata"]["name"], later["metadata"]["name"], unready["metadata"]["name"] = "due-gone", "due-later", "due-unready"
    unready["spec"]["subscriber"] = {"ref": {"apiVersion": "v1", "kind": "Service", "name": "missing"}}
    applied(eventing, tmp_path, "due-gone", json.dumps(gone))
    eventing("delete", "subscription", "due-gone")
    (tmp_path / "unready.yaml").write_text(json.dumps(unready))
    eventing("apply", "-f", str(tmp_path / "unready.yaml"))

    def removed() -> bool:
        post(mesh, name, "due-probe")
        return all(each.subscription != "default/due-gone" for each in _last(eventing, "due-probe").deliveries)

    eventually(removed, "the data plane has let go of it")
    post(mesh, name, "due-1")
    applied(eventing, tmp_path, "due-later", json.dumps(later))
    match = traced(eventing, "due-1")
    assert [delivery.subscription for delivery in match.deliveries] == ["default/due"]
    assert {each.subscription: each.reason for each in match.not_due} == {
        "default/due-gone": "Removed",
        "default/due-later": "AddedLater",
        "default/due-unready": "NotReady",
    }
    shown = eventing("trace", "due-1")
    assert "default/due-later  not due  it was added to the channel later, at " in shown
    assert "not due  it is not Ready: SubscriberResolveFailed: " in shown
    why = eventing("why", "due-unready")
    assert "not Ready since" in why
    assert "correct spec.subscriber" in why


def _last(eventing: Eventing, id_: str) -> Match:
    return msgspec.json.decode(eventing("trace", id_, "-o", "json"), type=Trace).matches[-1]


def test_an_event_with_nobody_to_go_to(mesh: Mesh, eventing: Eventing, tmp_path: Path) -> None:
    (tmp_path / "lonely.yaml").write_text(manifest("lonely", "http://x/").split("\n---\n")[0])
    eventing("apply", "-f", str(tmp_path / "lonely.yaml"))
    eventually(lambda: post(mesh, "lonely", "lonely-1") == 202, "the channel is there")
    assert "the channel had no subscription then" in eventing("trace", "lonely-1")


def test_what_never_came_is_told_with_what_was_refused(mesh: Mesh, eventing: Eventing, tmp_path: Path) -> None:
    (tmp_path / "refusing.yaml").write_text(manifest("refusing", "http://x/").split("\n---\n")[0])
    eventing("apply", "-f", str(tmp_path / "refusing.yaml"))
    eventually(lambda: post(mesh, "refusing", "there") == 202, "the channel is there")
    for _ in range(2):
        assert post(mesh, "refusing", "never", ce_source="") == 400
    assert post(mesh, "refusing", "other", content_type="application/cloudevents+xml") == 415
    assert post(mesh, "nobody-made-this", "elsewhere") == 404
    shown = eventing("trace", "never", "-c", "refusing", code=3)
    assert "No event with the id or receipt never was accepted" in shown
    assert "Requests with this id were refused:" in shown
    assert (
        f"3 requests to default/refusing were refused in the last minute: 2 {TIMES} 400 ce-source: must not be empty; 1 {TIMES} 415"
        in shown
    )
    assert "nobody-made-this" not in shown
    trace = msgspec.json.decode(eventing("trace", "no-such", "-o", "json", code=3), type=Trace)
    assert {(group.channel, group.status) for group in trace.refused_groups} >= {
        ("default/refusing", 400), ("default/refusing", 415), ("/default/nobody-made-this", 404),
    }  # fmt: skip
    assert trace.matches == []


def test_an_id_that_came_twice_is_told_twice_and_data_where_it_is_asked_for(
    mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path
) -> None:
    applied(eventing, tmp_path, "twice", manifest("twice", f"{sink.url}/twice"))
    assert post(mesh, "twice", "twice-1", b"first \x1b[2J") == post(mesh, "twice", "twice-1", b"\xff\x00") == 202
    assert eventing("trace", "twice-1").count("accepted ") == 2
    trace = msgspec.json.decode(eventing("trace", "twice-1", "--data", "-o", "json"), type=Trace)
    assert [match.data.base64 for match in trace.matches] == ["Zmlyc3QgG1sySg==", "/wA="]
    shown = eventing("trace", "twice-1", "--data")
    assert "first \\x1b[2J" in shown
    assert "2 bytes, not text" in shown


@pytest.mark.parametrize("kind", ["Channel", "InMemoryChannel"])
def test_whether_data_is_kept_is_not_left_to_spelling(eventing: Eventing, tmp_path: Path, kind: str) -> None:
    metadata = {"name": "misspelt", "annotations": {"eventing-mesh.dev/journal-data": "omitt"}}
    manifest = {"apiVersion": "messaging.knative.dev/v1", "kind": kind, "metadata": metadata}
    (tmp_path / "misspelt.yaml").write_text(json.dumps(manifest))
    eventing("apply", "-f", str(tmp_path / "misspelt.yaml"), code=1)
    metadata["annotations"] = {"eventing-mesh.dev/journal-data": "omit"}
    (tmp_path / "misspelt.yaml").write_text(json.dumps(manifest))
    eventing("apply", "-f", str(tmp_path / "misspelt.yaml"))
