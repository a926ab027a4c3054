"""Where did my event go, over a real Kafka: told by another process than accepted it, be it the next one or a neighbour."""

import json
import uuid
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest

from eventing.journal.documents import Match, Trace
from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Answer
from tests.support.kafka.broker import KafkaBroker
from tests.support.loop_thread import mesh_thread, sink_thread
from tests.support.questions import applied, post, run_command, traced
from tests.support.up import Subscriber, Up
from tests.support.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

SLOW_S = 60.0  # groups form and re-form


def objects(channel: str, **subscriptions: dict[str, Any]) -> list[dict[str, Any]]:
    """A Channel on Kafka, and its Subscriptions' specs by name."""
    messaging = {"apiVersion": "messaging.knative.dev/v1"}
    template = {"apiVersion": "messaging.knative.dev/v1beta1", "kind": "KafkaChannel", "spec": {"numPartitions": 4}}
    made: list[dict[str, Any]] = [
        messaging | {"kind": "Channel", "metadata": {"name": channel}, "spec": {"channelTemplate": template}}
    ]
    reference = messaging | {"kind": "Channel", "name": channel}
    for name, spec in subscriptions.items():
        metadata = {"name": name, "annotations": {"eventing-mesh.dev/order": "none"}}
        made.append(messaging | {"kind": "Subscription", "metadata": metadata, "spec": {"channel": reference} | spec})
    return made


def manifests(channel: str, **subscriptions: dict[str, Any]) -> str:
    return "\n---\n".join(map(json.dumps, objects(channel, **subscriptions)))


def pending(mesh: Mesh, subscription: str) -> float:
    with urlopen(f"{mesh.metrics_url}/metrics", timeout=20) as response:
        lines = response.read().decode().splitlines()
    found = [line for line in lines if line.startswith("eventing_subscription_") and f'subscription="{subscription}"' in line]
    values = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in found}
    assert values["eventing_subscription_oldest_seconds"] >= 0
    return values["eventing_subscription_pending_events"]


def test_the_process_after_a_restart_tells_what_the_one_before_accepted(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, channel = tmp_path / "data", f"c-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("EVENTING_DATA_DIR", str(data_dir))
    monkeypatch.setenv("COLUMNS", "200")

    def eventing(*arguments: str, code: int | None = 0) -> str:
        return run_command(capsys, arguments, code)

    with sink_thread() as sink:
        sink.always("/waits", Answer(503, (("x-reason", "closed"),)))
        sink.always("/dropped", Answer(400, (("x-reason", "never"),)))
        waits = {"subscriber": {"uri": f"{sink.url}/waits"}, "delivery": {"retry": 1000, "backoffDelay": "PT300S"}}
        dropped = {"subscriber": {"uri": f"{sink.url}/dropped"}}
        with mesh_thread(data_dir, kafka=kafka.bootstrap) as mesh:
            applied(eventing, tmp_path, "waits", manifests(channel, waits=waits, dropped=dropped))
            eventually(lambda: json.loads(eventing("why", "dropped", "-o", "json"))["ready"] == "True", "both are ready")
            assert post(mesh, channel, "1", b'{"n": 1}') == 202

            def attempted() -> Match | None:
                match = traced(eventing, "1")
                states = {each.subscription: (each.state, bool(each.attempts)) for each in match.deliveries}
                return match if states == {"default/waits": ("pending", True), "default/dropped": ("dropped", True)} else None

            before = eventually(attempted, "one waits and one is dropped", SLOW_S)
            assert before is not None
            assert before.acceptance == "here"
            eventually(lambda: pending(mesh, "waits") == 1 and pending(mesh, "dropped") == 0, "the lag is told")
            assert "lag           1 event, the oldest for " in eventing("why", "waits")
        sink.always("/waits", Answer(200))
        with mesh_thread(data_dir, kafka=kafka.bootstrap):
            for query in (before.receipt, "1"):

                def delivered(query: str = query) -> Match | None:
                    trace = msgspec.json.decode(eventing("trace", query, "-o", "json", code=None), type=Trace)
                    assert len(trace.matches) <= 1, "one story"
                    states = {each.subscription: each.state for match in trace.matches for each in match.deliveries}
                    return trace.matches[0] if states.get("default/waits") == "delivered" else None

                match = eventually(delivered, "it came out of Kafka", SLOW_S)
                assert match is not None
                assert (match.receipt, match.channel, match.data.text) == (before.receipt, f"default/{channel}", '{"n": 1}')
                assert {each.subscription: each.state for each in match.deliveries} == {
                    "default/waits": "delivered", "default/dropped": "dropped",
                }  # fmt: skip
            shown = eventing("trace", "1")
            assert f"receipt {before.receipt}" in shown
            assert "answered x-reason: never" in shown
            eventually(lambda: "lag           none" in eventing("why", "waits"), "nothing waits", SLOW_S)
            eventing("delete", "channel", channel)


def test_two_processes_that_share_a_channel_tell_one_story(kafka: KafkaBroker, tmp_path: Path) -> None:
    channel = f"c-{uuid.uuid4().hex[:12]}"
    with Subscriber() as one, Subscriber() as two:
        text = manifests(channel, one={"subscriber": {"uri": one.url}}, two={"subscriber": {"uri": two.url}})
        with Up(tmp_path / "data", "--workers=2", f"--kafka={kafka.bootstrap}", "-f", "-", stdin=text) as mesh:
            mesh.ready()

            def ready() -> bool:
                document = json.loads(mesh.run("why", "two", "-o", "json"))
                return bool(document["ready"] == "True" and json.loads(mesh.run("why", "one", "-o", "json"))["ready"] == "True")

            eventually(ready, "both Subscriptions are ready", SLOW_S)
            receipts: dict[str, str] = {}

            def accepted() -> bool:
                """By both processes, which take the connections as they come."""
                identity = f"e-{len(receipts)}"
                event = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": identity}
                answer = mesh.post(f"/default/{channel}", event, b"{}")
                assert answer.status == 202
                receipts[identity] = answer.headers["Eventing-Receipt"]
                return len(receipts) >= 20 and len({receipt.partition("-")[0] for receipt in receipts.values()}) == 2

            eventually(accepted, "both processes have accepted some")

            def delivered() -> bool:
                return min(one.received.qsize(), two.received.qsize()) >= len(receipts)

            eventually(delivered, "all are delivered", SLOW_S)
            for identity in list(receipts)[:: len(receipts) // 5]:

                def ended(identity: str = identity) -> Match | None:
                    (match,) = msgspec.json.decode(mesh.run("trace", identity, "-o", "json"), type=Trace).matches
                    return match if {each.state for each in match.deliveries} == {"delivered"} else None

                match = eventually(ended, f"{identity} has ended", SLOW_S)
                assert match is not None
                assert (match.receipt, match.acceptance) == (receipts[identity], "here")
                assert sorted(each.subscription for each in match.deliveries) == ["default/one", "default/two"]
            assert f"{len(receipts)} accepted by the channel, " in mesh.run("why", "one"), "by both together, and none twice"
            mesh.run("delete", "channel", channel)
            assert mesh.stop() == 0, mesh.log
            assert "Traceback" not in mesh.log
