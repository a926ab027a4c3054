"""Events that no subscriber takes, records that are no events, subscribers that are away, credentials that are wrong: each hurts
only what it must, says so, and nobody spins."""

import asyncio
import base64
import os
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from eventing.back_end_settings import SETTINGS_NAMESPACE
from eventing.resources.core import SECRET
from eventing.resources.kinds import Object
from eventing_kafka import names
from tests.chaos.kafka_rig import KafkaRig, kafka_rig
from tests.chaos.scenes import IMPATIENT, poison_events
from tests.support.kafka.broker import PASSWORD, USER, KafkaBroker

FAILED = "Failed authentication"  # in the broker's log
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


async def test_poison_events_hold_up_nobody(tmp_path: Path, kafka: KafkaBroker) -> None:
    async with kafka_rig(tmp_path / "data", kafka.bootstrap, 1, share=0, delivery=IMPATIENT) as rig:
        topic = names.topic_of({"metadata": {"namespace": "default", "name": rig.traffic.channel}})
        strange = await poison_events(rig, lambda: _garbage(kafka, topic))
    assert all(id_.startswith("partition:") for id_ in strange), "they are told by their place"


async def _garbage(kafka: KafkaBroker, topic: str) -> int:
    """What other producers may leave in a topic; how many."""
    records: list[tuple[bytes | None, list[tuple[str, bytes]]]] = [
        (b"not an event", []),
        (None, []),
        (b"{}", [("content-type", b"application/cloudevents+json")]),
        (b"x", [("ce_specversion", b"1.0"), ("ce_id", b"\xff\xfe")]),
        (b"x" * 500_000, [("ce_specversion", b"9.9")]),
    ]
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for value, headers in records:
            await producer.send_and_wait(topic, value, key=b"k", headers=headers)
    return len(records)


async def test_wrong_credentials(tmp_path: Path, kafka: KafkaBroker) -> None:
    """The condition says it, without the password; the log stays short and the processes idle; right ones are taken up."""
    wrong = "open barley"
    async with kafka_rig(
        tmp_path / "data", kafka.sasl, 2, ready=False, config={"auth.secret.ref.name": "kafka-auth"}, secret=_secret(wrong)
    ) as rig:
        condition = await rig.until_condition("False", reason="AuthenticationFailed")
        assert USER in condition["message"] or "credential" in condition["message"].lower(), condition
        await _idle(rig, kafka)
        await rig.client.patch(SECRET, SETTINGS_NAMESPACE, "kafka-auth", {"data": _secret(PASSWORD)["data"]})
        await rig.changes.channel_ready()
        await rig.changes.subscribe("ordered", ordered=True)
        async with rig.load():
            await rig.traffic.until(30)
        await rig.balance()
        # They become wrong while consumers and producer are at work, and right again.
        rig.fault()
        await rig.client.patch(SECRET, SETTINGS_NAMESPACE, "kafka-auth", {"data": _secret(wrong)["data"]})
        await rig.until_condition("False", reason="AuthenticationFailed")
        async with rig.load():
            await rig.until_refused()
        await _idle(rig, kafka)
        await rig.client.patch(SECRET, SETTINGS_NAMESPACE, "kafka-auth", {"data": _secret(PASSWORD)["data"]})
        await rig.changes.channel_ready()
        async with rig.load():
            await rig.traffic.until(30)
        await rig.balance()
        await rig.stop()
        assert FAILED in await asyncio.to_thread(kafka.log)
        for secret in (wrong, PASSWORD):
            assert secret not in rig.mesh.log


async def _idle(rig: KafkaRig, kafka: KafkaBroker) -> None:
    """For some seconds nobody uses the processor, few lines are logged, and the broker is asked now and then only."""
    pids = [*await rig.pids(), *await asyncio.to_thread(rig.mesh.pids, "Control")]
    before, lines = [_cpu_s(pid) for pid in pids], len(rig.mesh.log.splitlines())
    tried = await asyncio.to_thread(kafka.log)
    await asyncio.sleep(5)
    used = [_cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)]
    assert max(used) < 1.5, f"{used} s of CPU in 5 s: somebody spins"
    tries = (await asyncio.to_thread(kafka.log)).count(FAILED) - tried.count(FAILED)
    print(f"{tries} log-ins, {used} s of CPU, {len(rig.mesh.log.splitlines()) - lines} lines")
    assert tries < 20, f"{tries} log-ins failed in 5 s"
    said = rig.mesh.log.splitlines()[lines:]
    assert len(said) < 20, said


def _secret(password: str) -> Object:
    data = {"protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512", "user": USER, "password": password}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kafka-auth", "namespace": SETTINGS_NAMESPACE},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def _cpu_s(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
