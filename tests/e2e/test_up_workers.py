"""`eventing up --workers 3`: processes that share the ingress port, what in-memory channels say then, and questions to all."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import yaml

from tests.support.api_server import Kubectl
from tests.support.authority import Authority
from tests.support.manifests import CHANNEL, subscription
from tests.support.up import COMMAND, Subscriber, Up, environment
from tests.support.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.timeout(180)  # up to nine processes start at the same time, on a machine that may be busy

EVENT = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "1"}
MESSAGING = "/apis/messaging.knative.dev/v1/namespaces/default"
KINDS = ("inmemorychannels/orders", "channels/orders", "subscriptions/printer")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    manifests = f"{CHANNEL}---\n{subscription('http://127.0.0.1:1/')}"
    with Up(tmp_path_factory.mktemp("workers") / "data", "--workers=3", "-f", "-", stdin=manifests) as running:
        eventually(lambda: ready(running.ready(), "subscriptions/printer")[1], "the controllers have looked at it")
        yield running
        assert running.stop() == 0, running.log
        assert "Traceback" not in running.log


def ready(mesh: Up, which: str) -> tuple[str, str, str]:
    """Status, reason and message of the Ready condition."""
    status = mesh.api(f"{MESSAGING}/{which}").get("status") or {}
    found: dict[str, str] = next((each for each in status.get("conditions") or () if each["type"] == "Ready"), {})
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def admin(mesh: Up, number: int, path: str) -> str:
    with urlopen(f"{mesh.endpoints['data_planes'][f'embedded-{number}']}{path}", timeout=DEADLINE_S) as response:
        return str(response.read().decode())


def connections(mesh: Up) -> list[int]:
    found = [
        re.search(r"^eventing_ingress_connections (\S+)", admin(mesh, number, "/metrics"), re.MULTILINE) for number in range(3)
    ]
    return [int(float(each[1])) for each in found if each]


def test_in_memory_channels_say_that_they_need_one_process(mesh: Up) -> None:
    for which in KINDS:
        eventually(lambda which=which: ready(mesh, which)[:2] == ("False", "NeedsOneWorker"), which)  # type: ignore[misc]
        assert "this mesh runs 3: start it without --workers, or use a KafkaChannel" in ready(mesh, which)[2]
    assert "NeedsOneWorker" in mesh.run("get", "channels")
    told = mesh.run("why", "printer")
    assert "not Ready: NeedsOneWorker" in told
    assert "start the mesh without --workers" in told


@pytest.mark.kubectl
def test_kubectl_shows_why(mesh: Up, kubectl: Path, tmp_path: Path) -> None:
    run = Kubectl(kubectl, mesh.data_dir / "kubeconfig", tmp_path, namespace="default")
    run("wait", "--for=condition=Ready=false", "channel/orders", "subscription/printer", "--timeout=20s")
    for kind in ("channels", "subscriptions"):
        assert run("get", kind).split()[-2:] == ["False", "NeedsOneWorker"]
    assert run("get", "dataplanes", "-A", "-o", "name").split() == [
        f"dataplane.internal.eventing-mesh.dev/embedded-{number}" for number in range(3)
    ]
    run.close()


def test_producers_are_told_to_come_again_and_each_process_is_asked_about_them(mesh: Up) -> None:
    answers = [mesh.post("/default/orders", EVENT | {"ce-id": "turned-away"}, b"{}") for _ in range(9)]
    assert {(answer.status, answer.getheader("Retry-After")) for answer in answers} == {(503, "30")}
    told = mesh.run("trace", "turned-away", code=3)
    counted = re.search(r"(\d+) requests to default/orders were refused", told)
    assert counted, told
    assert int(counted[1]) >= 9, "whichever process it was"
    assert told.count("this mesh runs 3") > 1
    document = json.loads(mesh.run("trace", "turned-away", "-o", "json", code=3))
    assert document["unanswered"] == []
    assert len([each for each in document["refused"] if each["id"] == "turned-away"]) == 9
    refusing = [number for number in range(3) if 'code="503"' in admin(mesh, number, "/metrics")]
    assert len(refusing) > 1, "they came on connections of their own, which the processes share"


def test_what_happens_in_every_process_is_followed(mesh: Up, tmp_path: Path) -> None:
    out = tmp_path / "tail.out"
    with out.open("wb") as file:
        command = [str(COMMAND), "tail", f"--data-dir={mesh.data_dir}", "-o", "json"]
        following = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, env=environment())
    rounds = iter(range(10_000))
    # Connections that stay: the processes have taken them in turn.
    with contextlib.ExitStack() as stack:
        parts = urlsplit(mesh.endpoints["ingress"])
        producers = [http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=DEADLINE_S) for _ in range(12)]

        def followed() -> bool:
            number = next(rounds)
            for name, producer in enumerate(producers):
                producer.request("POST", "/default/orders", b"{}", EVENT | {"ce-id": f"producer-{name}-{number}"})
                assert producer.getresponse().read()
            told = out.read_text()
            return all(f'"producer-{name}-' in told for name in range(len(producers)))

        for producer in producers:
            stack.callback(producer.close)
        try:
            eventually(followed, "what each producer sends is told, whichever process has it")
        finally:
            following.send_signal(signal.SIGINT)
            _, errors = following.communicate(timeout=DEADLINE_S)
    assert following.returncode == 130
    assert b"Traceback" not in errors


def test_each_process_tells_about_itself(mesh: Up) -> None:
    planes = mesh.endpoints["data_planes"]
    assert list(planes) == ["embedded-0", "embedded-1", "embedded-2"]
    assert planes["embedded-0"] == mesh.endpoints["metrics"]
    assert len(set(planes.values())) == 3
    told = "[!]channels degraded: 1 need a mesh with one data-plane process: default/orders"
    for number in range(3):
        eventually(lambda number=number: told in admin(mesh, number, "/readyz"), "it knows the channel")  # type: ignore[misc]
        assert urlsplit(planes[f"embedded-{number}"]).port in map(int, re.findall(r"\d{4,5}", mesh.said))
    assert "3 processes" in mesh.said


def test_connections_are_shared_out(mesh: Up) -> None:
    parts = urlsplit(mesh.endpoints["ingress"])
    with contextlib.ExitStack() as stack:
        opened = 0

        def shared() -> bool:
            nonlocal opened
            # The least busy gets the next ones, so that one that had no time for the first catches up.
            for _ in range(12):
                stack.enter_context(socket.create_connection((str(parts.hostname), parts.port or 0), timeout=DEADLINE_S))
                opened += 1
            eventually(lambda: sum(connections(mesh)) >= opened, "all are accepted")
            return min(connections(mesh)) >= 16

        eventually(shared, "each process has its share")
        assert opened <= 240, connections(mesh)


def test_one_that_is_killed_comes_back_while_the_others_answer(mesh: Up) -> None:
    before = mesh.pids("DataPlaneRole")
    assert len(before) == 3
    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            # Whoever had its connection at the dead one tries again.
            with contextlib.suppress(OSError, http.client.HTTPException):
                statuses.append(mesh.post("/default/orders", EVENT, b"{}").status)

    producer = threading.Thread(target=load)
    producer.start()
    try:
        eventually(lambda: len(statuses) > 5, "events come in")
        os.kill(before[1], signal.SIGKILL)
        seen = len(statuses)
        eventually(lambda: len(statuses) > seen + 20, "the others answer")
        eventually(lambda: len(mesh.pids("DataPlaneRole")) == 3 and before[1] not in mesh.pids("DataPlaneRole"), "another one")
    finally:
        stop.set()
        producer.join()
    assert set(statuses) == {503}
    assert len(set(before) & set(mesh.pids("DataPlaneRole"))) == 2, "the others are the same"
    assert re.search(r"process ended, starting it again .*role=dataplane-\d .*SIGKILL", mesh.log)
    eventually(lambda: json.loads(mesh.run("trace", "1", "-o", "json", code=3))["unanswered"] == [], "all answer again")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_stop_is_clean_over_https_too(tmp_path: Path, number: int) -> None:
    authority = Authority.create(tmp_path)
    certificate = (f"--ingress-cert={authority.server_cert}", f"--ingress-key={authority.server_key}")
    with Up(tmp_path / "data", "--workers=2", *certificate, f"--ingress-ca={authority.ca_cert}") as mesh:
        parts = urlsplit(mesh.ready().endpoints["ingress"])
        trust = ssl.create_default_context(cafile=str(authority.ca_cert))
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=DEADLINE_S, context=trust)
                stack.callback(connection.close)
                connection.request("POST", "/default/nobody", b"{}", EVENT)
                assert connection.getresponse().status == 404
            # One that breaks its handshake off is nobody's fault.
            stack.enter_context(socket.create_connection((str(parts.hostname), parts.port or 0))).sendall(b"no TLS")
            assert mesh.stop(number) == 0, mesh.log
        assert "ERROR" not in mesh.log
        assert "Traceback" not in mesh.log


def test_with_one_process_again_all_is_ready_by_itself_and_what_failed_is_known_throughout(tmp_path: Path) -> None:
    failing = yaml.safe_load(subscription("http://127.0.0.1:1/"))
    failing["spec"]["delivery"] = {"retry": 0}
    with Up(tmp_path / "data", "-f", "-", stdin=f"{CHANNEL}---\n{yaml.safe_dump(failing)}") as mesh:
        identity = mesh.ready().send_until_due()
        eventually(lambda: traced(mesh, identity)[0] == "dropped", "it is dropped")
        assert mesh.stop() == 0, mesh.log
    with Up(tmp_path / "data", "--workers=2") as mesh:
        mesh.ready()
        eventually(lambda: ready(mesh, "subscriptions/printer")[1] == "NeedsOneWorker", "it needs one process")
        assert traced(mesh, identity) == ("dropped", "disk"), "told once, although each process reads it"
        names = [each["metadata"]["name"] for each in mesh.api("/apis/internal.eventing-mesh.dev/v1alpha1/dataplanes")["items"]]
        assert names == ["embedded-0", "embedded-1"]
        assert mesh.stop() == 0, mesh.log
    with Subscriber() as subscriber, Up(tmp_path / "data", "-f", "-", stdin=subscription(subscriber.url)) as mesh:
        mesh.ready()
        eventually(lambda: {ready(mesh, which)[0] for which in KINDS} == {"True"}, "all is ready")
        assert mesh.post("/default/orders", EVENT | {"ce-id": "again"}, b"{}").status == 202
        subscriber.get("again")
        assert traced(mesh, identity) == ("dropped", "disk")
        assert mesh.stop() == 0, mesh.log


def traced(mesh: Up, identity: str) -> tuple[str, str]:
    (match,) = json.loads(mesh.run("trace", identity, "-o", "json"))["matches"]
    (delivery,) = match["deliveries"]
    return delivery["state"], match["kept"]
