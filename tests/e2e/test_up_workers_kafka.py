"""`eventing up --workers 3 --kafka …` on a real Kafka: processes that share the partitions of a channel."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from eventing.runtime.mesh_client import MeshClient
from eventing.testing.sinks import Answer, Received, Sink
from tests.support.kafka.broker import KafkaBroker
from tests.support.loop_thread import sink_thread
from tests.support.manifests import KNATIVE
from tests.support.up import Up
from tests.support.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PATIENCE_S = 90.0  # a member that is killed keeps its partitions for the session time-out
PARTITIONS = 6
KEYS = 9


def manifests(channel: str, url: str) -> str:
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "messaging.knative.dev/v1beta1",
            "kind": "KafkaChannel",
            "metadata": {"name": channel},
            "spec": {"numPartitions": PARTITIONS, "replicationFactor": 1},
        },
        {
            "apiVersion": KNATIVE,
            "kind": "Subscription",
            "metadata": {"name": channel},
            "spec": {
                "channel": {"apiVersion": "messaging.knative.dev/v1beta1", "kind": "KafkaChannel", "name": channel},
                "subscriber": {"uri": f"{url}/{channel}"},
                "delivery": {"retry": 20, "backoffPolicy": "linear", "backoffDelay": "PT0.1S"},
            },
        },
    ]
    return "\n---\n".join(map(json.dumps, objects))


class Rig:
    """A mesh with one KafkaChannel and a Subscription to it, both called `channel`, and the sink that it goes to."""

    def __init__(self, mesh: Up, sink: Sink, kafka: KafkaBroker, channel: str) -> None:
        self.mesh = mesh
        self.sink = sink
        self.channel = channel
        self.refuses: Callable[[Received], bool] = lambda _received: False
        self._taken: list[Received] = []
        self._kafka = kafka
        sink.always(f"/{channel}", self._answer)

    def _answer(self, received: Received) -> Answer:
        if self.refuses(received):
            return Answer(503)
        self._taken.append(received)
        return Answer(200)

    def ready(self, workers: int) -> None:
        """Wait until the Subscription is Ready, and each process reads its part of the partitions."""
        self.mesh.ready()
        path = f"/apis/messaging.knative.dev/v1/namespaces/default/subscriptions/{self.channel}"

        def is_ready() -> bool:
            status = self.mesh.api(path).get("status") or {}
            return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ())

        eventually(is_ready, "the Subscription is Ready", PATIENCE_S)
        group = f"kafka.default.{self.channel}.{self.mesh.api(path)['metadata']['uid']}"
        eventually(lambda: asyncio.run(self._members(group)) == ("Stable", workers), "the partitions are shared out", PATIENCE_S)

    async def _members(self, group: str) -> tuple[str, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap)
        await admin.start()
        try:
            ((_, _, state, _, _, members, *_),) = (await admin.describe_consumer_groups([group]))[0].groups
            return state, len(members)
        finally:
            await admin.close()

    def delivered(self) -> dict[str, list[str]]:
        """Ids by key, in the order in which the subscriber has taken them; what it has taken twice is there twice."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for each in list(self._taken):
            found[each.attributes["partitionkey"]].append(each.event_id or "")
        return dict(found)

    def until_delivered(self, sent: dict[str, list[str]]) -> None:
        def all_of_them() -> bool:
            ids = {identity for of_key in self.delivered().values() for identity in of_key}
            return all(identity in ids for of_key in sent.values() for identity in of_key)

        eventually(all_of_them, "everything that was accepted is delivered", PATIENCE_S)


class Producer:
    """Sends the events of one key, one after the other on one connection; tries again until each is accepted."""

    def __init__(self, rig: Rig, key: str) -> None:
        self.accepted: list[str] = []
        self.receipts: list[str] = []
        self._rig = rig
        self._key = key
        self._connection: http.client.HTTPConnection | None = None

    def send(self) -> None:
        identity = f"{self._key}-{len(self.accepted)}"
        headers = {
            "ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": identity, "ce-partitionkey": self._key,
        }  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, f"{identity} is not accepted"
            try:
                if self._connection is None:
                    parts = urlsplit(self._rig.mesh.endpoints["ingress"])
                    self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
                self._connection.request("POST", f"/default/{self._rig.channel}", b"{}", headers)
                answer = self._connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                self.close()
                continue
            if answer.status == 202:
                self.accepted.append(identity)
                self.receipts.append(answer.getheader("Eventing-Receipt", ""))
                return
            assert answer.status == 503, answer.status
            time.sleep(0.05)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def producing(rig: Rig, prefix: str) -> Iterator[list[Producer]]:
    with contextlib.ExitStack() as stack:
        producers = [Producer(rig, f"{prefix}{number}") for number in range(KEYS)]
        for producer in producers:
            stack.callback(producer.close)
        yield producers


def sent_by(producers: Sequence[Producer]) -> dict[str, list[str]]:
    return {producer.accepted[0].rpartition("-")[0]: producer.accepted for producer in producers}


@pytest.fixture(scope="module")
def rig(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    channel = f"orders-{uuid.uuid4().hex[:8]}"
    data = tmp_path_factory.mktemp("shared") / "data"
    with sink_thread() as sink:
        given = manifests(channel, sink.url)
        with Up(data, "--workers=3", f"--kafka={kafka.bootstrap}", "-f", "-", stdin=given) as mesh:
            running = Rig(mesh, sink, kafka, channel)
            running.ready(3)
            yield running
            assert mesh.stop() == 0, mesh.log
            assert "Traceback" not in mesh.log, mesh.log


def test_each_event_is_delivered_once_each_key_in_order_and_every_process_has_its_part(rig: Rig) -> None:
    with producing(rig, "once") as producers:
        for _ in range(20):
            for producer in producers:
                producer.send()
    sent = sent_by(producers)
    rig.until_delivered(sent)
    assert {key: ids for key, ids in rig.delivered().items() if key in sent} == sent
    assert len({receipt.partition("-")[0] for producer in producers for receipt in producer.receipts}) > 1, "accepted by several"
    answers = standings(rig)
    assert sum(answer["counts"]["accepted"] for answer in answers) >= 20 * KEYS
    assert all(answer["counts"]["delivered"] for answer in answers), "delivered by all"
    told = json.loads(rig.mesh.run("why", rig.channel, "-o", "json"))
    assert (told["ready"], told["unanswered"]) == ("True", [])
    counts = told["standing"]["counts"]
    assert counts["delivered"] == sum(answer["counts"]["delivered"] for answer in answers)
    assert counts["accepted"] == sum(answer["counts"]["accepted"] for answer in answers)
    assert told["standing"]["pending"] == 0


def processes(rig: Rig) -> Iterator[MeshClient]:
    """A client for each process alone."""
    mesh = MeshClient.find(rig.mesh.data_dir)
    for name, url in mesh.endpoints.admin_urls.items():
        with replace(mesh, endpoints=replace(mesh.endpoints, metrics=url, data_planes={name: url})) as one:
            yield one


def standings(rig: Rig) -> list[dict[str, Any]]:
    found = [one.standing("default", rig.channel)[0] for one in processes(rig)]
    return [each for each in found if each is not None]


def test_trace_finds_what_one_accepted_and_another_delivered(rig: Rig) -> None:
    with producing(rig, "traced") as producers:
        for producer in producers:
            producer.send()
    rig.until_delivered(sent_by(producers))
    apart = 0
    for producer in producers:
        (receipt,) = producer.receipts

        def ended(receipt: str = receipt) -> dict[str, Any]:
            (match,) = json.loads(rig.mesh.run("trace", receipt, "-o", "json"))["matches"]
            (delivery,) = match["deliveries"]
            return match if delivery["state"] == "delivered" else {}

        match = eventually(ended, "it is told as delivered")
        assert match["receipt"] == receipt
        assert match["from"], "who accepted it knows from whom it came"
        (delivery,) = match["deliveries"]
        assert [attempt["outcome"] for attempt in delivery["attempts"]] == ["delivered"]
        knowing = [one.trace(receipt)["matches"] for one in processes(rig)]
        attempts = [[len(each["deliveries"][0]["attempts"]) for each in found if each["deliveries"]] for found in knowing]
        accepted_by = next(n for n, found in enumerate(knowing) if found and found[0]["acceptance"] == "here")
        apart += not any(attempts[accepted_by])
    assert apart, "with nine keys in six partitions of three processes not every one is delivered where it was accepted"
    text = rig.mesh.run("trace", producers[0].receipts[0])
    assert "accepted" in text
    assert "delivered" in text


def test_a_process_killed_under_load_loses_nothing_and_keeps_the_order(rig: Rig) -> None:
    rig.refuses = lambda received: received.number % 7 == 0
    stop = threading.Event()
    with producing(rig, "killed") as producers:

        def load(producer: Producer) -> None:
            while not stop.is_set():
                producer.send()
                time.sleep(0.01)

        threads = [threading.Thread(target=load, args=(producer,)) for producer in producers]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: all(len(producer.accepted) >= 10 for producer in producers), "events come in", PATIENCE_S)
            pids = rig.mesh.pids("DataPlaneRole")
            before = len(rig.sink.at(f"/{rig.channel}"))
            eventually(lambda: len(rig.sink.at(f"/{rig.channel}")) > before + 10, "and go out", PATIENCE_S)
            os.kill(pids[0], signal.SIGKILL)
            eventually(
                lambda: pids[0] not in (now := rig.mesh.pids("DataPlaneRole")) and len(now) == 3, "another one", PATIENCE_S
            )
            counts = [len(producer.accepted) for producer in producers]
            eventually(
                lambda: all(len(p.accepted) > n + 5 for p, n in zip(producers, counts, strict=True)), "all are served", PATIENCE_S
            )
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    sent = sent_by(producers)
    rig.until_delivered(sent)
    for key, ids in rig.delivered().items():
        if key in sent:
            assert list(dict.fromkeys(ids)) == sent[key], "first deliveries are in order, whatever comes again"
    rig.refuses = lambda _received: False
    rig.ready(3)


def test_more_processes_after_a_restart_go_on_where_one_has_stopped(kafka: KafkaBroker, tmp_path: Path) -> None:
    channel = f"orders-{uuid.uuid4().hex[:8]}"
    with sink_thread() as sink:
        given = manifests(channel, sink.url)
        with Up(tmp_path / "data", f"--kafka={kafka.bootstrap}", "--drain-timeout=1", "-f", "-", stdin=given) as mesh:
            one = Rig(mesh, sink, kafka, channel)
            one.ready(1)
            one.refuses = lambda _received: True
            with producing(one, "kept") as producers:
                for _ in range(5):
                    for producer in producers:
                        producer.send()
            assert mesh.stop() == 0, mesh.log
        with Up(tmp_path / "data", "--workers=3", "--drain-timeout=1") as mesh:
            several = Rig(mesh, sink, kafka, channel)
            several.ready(3)
            sent = sent_by(producers)
            several.until_delivered(sent)
            assert {key: list(dict.fromkeys(ids)) for key, ids in several.delivered().items()} == sent
            receipt = producers[0].receipts[0]
            (match,) = json.loads(mesh.run("trace", receipt, "-o", "json"))["matches"]
            assert match["receipt"] == receipt, "the one that its producer got, of a process that is gone"
            assert [delivery["state"] for delivery in match["deliveries"]] == ["delivered"]
            assert mesh.stop() == 0, mesh.log
            assert "Traceback" not in mesh.log, mesh.log
