"""What a new user does: `eventing up`, an event by curl, its way by `eventing trace`."""

import json
import signal
import stat
from pathlib import Path

import pytest

from eventing.apiserver.certificates import ensure_certificates
from tests.support.manifests import CHANNEL, subscription
from tests.support.up import Subscriber, Up
from tests.support.waiting import eventually

EVENT = {
    "ce-specversion": "1.0",
    "ce-type": "com.example.order",
    "ce-source": "/shop",
    "ce-id": "1",
    "content-type": "application/json",
}
CHANNELS = "/apis/messaging.knative.dev/v1/namespaces/default/channels"
SUBSCRIPTIONS = "/apis/messaging.knative.dev/v1/namespaces/default/subscriptions"


def test_an_event_goes_from_curl_to_its_subscriber_and_its_way_is_shown(tmp_path: Path, subscriber: Subscriber) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "channel.yaml").write_text(CHANNEL)
    (manifests / "subscription.yaml").write_text(subscription(subscriber.url))
    with Up(tmp_path / "data", "-f", str(manifests)) as mesh:
        mesh.ready().send_until_due()
        answer = mesh.post("/default/orders", EVENT, b'{"n":1}')
        assert answer.status == 202
        headers, body = subscriber.get("1")
        assert body == b'{"n":1}'
        assert {name: headers[name] for name in EVENT} == EVENT

        eventually(lambda: "delivered: 204" in mesh.run("trace", "1"), "the delivery in the journal")
        way = mesh.run("trace", "1")
        assert "type com.example.order  source /shop" in way
        assert "default/printer  delivered" in way
        receipt = answer.headers["Eventing-Receipt"]
        assert json.loads(mesh.run("trace", receipt, "-o", "json"))["matches"][0]["id"] == "1"
        assert mesh.stop() == 0, mesh.log


def test_send_prints_a_receipt_that_trace_takes_also_by_https(tmp_path: Path, subscriber: Subscriber) -> None:
    pair = ensure_certificates(tmp_path / "pki", ["127.0.0.1"])
    options = [f"--ingress-cert={pair.server_cert}", f"--ingress-key={pair.server_key}", f"--ingress-ca={pair.ca_cert}"]
    options += ["--max-event-size=2KiB", "-f", "-"]
    with Up(tmp_path / "data", *options, stdin=f"{CHANNEL}---\n{subscription(subscriber.url)}") as mesh:
        mesh.ready().send_until_due()
        assert f"events to   https://127.0.0.1:{mesh.endpoints['ingress'].rpartition(':')[2]}/" in mesh.said
        order = tmp_path / "order.json"
        order.write_text('{"n": 2}')
        said = mesh.run("send", "--channel", "orders", "--type", "com.example.order", "--data", f"@{order}", "--id", "2")
        assert subscriber.get("2")[1] == b'{"n": 2}'
        receipt = said.split()[-1]
        assert "event 2" in mesh.run("trace", receipt)
        assert "there is no channel" in mesh.run("send", "-c", "nowhere", code=1)
        assert "413 the body has 2049 bytes, the limit is 2048" in mesh.run("send", "-c", "orders", "-d", "x" * 2049, code=1)
        assert "there is no channel" in mesh.run("trace", "unheard-of", code=3)


def test_the_data_directory_while_it_runs_and_after(tmp_path: Path) -> None:
    with Up(tmp_path / "data") as mesh:
        endpoints = mesh.ready().endpoints
        assert list(endpoints) == ["api", "ingress", "metrics", "data_planes"]
        assert endpoints.pop("data_planes") == {"embedded": endpoints["metrics"]}
        assert endpoints["api"].startswith("https://127.0.0.1:")
        for url in endpoints.values():
            assert url in mesh.said or url == endpoints["api"]
        assert f"export KUBECONFIG={mesh.data_dir}/kubeconfig" in mesh.said
        assert stat.S_IMODE(mesh.data_dir.stat().st_mode) == 0o700
        readable_by_others = [
            str(path.relative_to(mesh.data_dir))
            for path in mesh.data_dir.rglob("*")
            if stat.S_IMODE(path.stat().st_mode) & 0o077 and not path.name.startswith("api.sqlite3")
        ]
        assert readable_by_others == []
        assert mesh.stop(signal.SIGINT) == 0, mesh.log
        assert not (mesh.data_dir / "endpoints.json").exists()
        assert "no mesh is ready" in mesh.run("trace", "1", code=1)
        tokens = json.loads((mesh.data_dir / "tokens.json").read_text())
        assert not [secret for secret in tokens.values() if secret in mesh.log + mesh.said]


def test_a_second_start_finds_all_objects_again(tmp_path: Path, subscriber: Subscriber) -> None:
    with Up(tmp_path / "data", "-f", "-", stdin=f"{CHANNEL}---\n{subscription(subscriber.url)}") as mesh:
        before = {path: mesh.ready().api(path)["items"] for path in (CHANNELS, SUBSCRIPTIONS)}
        assert mesh.stop() == 0, mesh.log
    with Up(tmp_path / "data") as mesh:
        for path, objects in before.items():
            assert [each["metadata"]["uid"] for each in mesh.ready().api(path)["items"]] == [
                each["metadata"]["uid"] for each in objects
            ]
        subscriber.get(mesh.send_until_due())


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (CHANNEL + "spec: {channelTemplate: {kind: 7}}\n", "standard input: Channel orders was refused: "),
        (CHANNEL.replace("Channel", "Chanel"), "standard input: kind: Chanel of apiVersion messaging.knative.dev/v1 is not"),
        (CHANNEL + "---\napiVersion: v1\n", "standard input, document 2: kind: required field is missing"),
    ],
)
def test_a_manifest_that_is_refused_ends_the_start(tmp_path: Path, manifest: str, expected: str) -> None:
    with Up(tmp_path / "data", "-f", "-", stdin=manifest) as mesh:
        assert mesh.process.wait(20) == 1
        assert expected in mesh.log
        assert "Traceback" not in mesh.log
        assert mesh.said == ""
        assert mesh.endpoints == {}


def test_the_quickstart_shows_an_event_and_stays(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--quickstart") as mesh:
        eventually(lambda: "The mesh stays up" in mesh.said or mesh.process.poll() is not None, "the example played")
        assert "received com.example.order  id hello-1  source /quickstart" in mesh.said, mesh.log
        assert '{"item": "coffee", "n": 1}' in mesh.said
        assert "default/quickstart-printer  delivered" in mesh.said
        mesh.run("send", "-c", "orders", "--id", "mine", "--type", "t\u202e", "-d", "a\x1b[2Jb")
        eventually(lambda: "id mine" in mesh.said, "my own event printed")
        assert r"received t\u202e  id mine" in mesh.said
        assert r"a\x1b[2Jb" in mesh.said
        assert "\x1b" not in mesh.said
        assert mesh.stop() == 0, mesh.log
        assert "did not stop in time" not in mesh.log
    with Up(tmp_path / "data") as mesh:
        mesh.ready()
        assert "orders" in mesh.run("get", "channels")
        assert "quickstart-printer" not in mesh.run("get", "subscriptions"), "it would point at a port where nobody listens"
