"""Events that no subscriber takes, messages that are no events, waits longer than RabbitMQ lets anybody hold an event, credentials
that are wrong: each hurts only what it must, says so, and nobody spins."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import aiormq
import pytest

from eventing.back_end_settings import SETTINGS_NAMESPACE
from eventing.resources.core import SECRET
from eventing.testing.sinks import Answer
from tests.chaos.rabbitmq_rig import SECRET_NAME, exchange, rabbitmq_rig, secret
from tests.chaos.rig import Rig
from tests.chaos.scenes import IMPATIENT, poison_events
from tests.support.rabbitmq.broker import RabbitmqBroker

CONSUMER_TIMEOUT_S = 9
pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]


async def test_poison_events_hold_up_nobody(tmp_path: Path, rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq_rig(tmp_path / "data", rabbitmq.url, 1, share=0, delivery=IMPATIENT) as rig:
        await poison_events(rig, lambda: _garbage(rabbitmq, exchange(rig)))


async def _garbage(rabbitmq: RabbitmqBroker, to: str) -> int:
    """What other producers may send; how many."""
    properties = aiormq.spec.Basic.Properties
    messages = (
        (b"not an event", properties()),
        (b"", properties(delivery_mode=2)),
        (b"{}", properties(content_type="application/cloudevents+json")),
        (b"x" * 300_000, properties(headers={"specversion": "9.9"}, content_type="a/b")),
    )
    async with aiormq.connect(rabbitmq.url) as connection:
        amqp = await connection.channel(publisher_confirms=True)
        for body, about in messages:
            await amqp.basic_publish(body, exchange=to, properties=about)
    return len(messages)


async def test_waits_longer_than_the_consumer_timeout(tmp_path: Path, private_rabbitmq: Callable[..., RabbitmqBroker]) -> None:
    """RabbitMQ ends the AMQP channel of whoever keeps an event for too long, with all that is out there. It never comes to that, each
    attempt is made once and when it is due, and nobody else waits."""
    broker = private_rabbitmq(properties={"consumer_timeout": str(CONSUMER_TIMEOUT_S * 1000)}, tick_ms=1000)
    await asyncio.to_thread(broker.start)
    wait_s = CONSUMER_TIMEOUT_S * 1.6
    delivery = {"retry": 2, "backoffPolicy": "linear", "backoffDelay": f"PT{wait_s}S", "timeout": "PT5S"}
    config = {"consumer.timeout": f"PT{CONSUMER_TIMEOUT_S}S"}
    async with rabbitmq_rig(tmp_path / "data", broker.url, 2, share=0, delivery=delivery, config=config) as rig:
        ordered = await rig.changes.subscribe("ordered", ordered=True)
        unordered = await rig.changes.subscribe("unordered")
        for each in (ordered, unordered):
            rig.sink.script(each.path, Answer(503))
        async with rig.load():
            await rig.traffic.until(30)
        await rig.sink.until(lambda: len(rig.sink.ids(unordered.path)) >= 29, within=30, what="others do not wait in no order")
        assert len(rig.sink.ids(ordered.path)) == 0, "all wait for the first in order"
        ends = await rig.balance()
        assert ends["again"] == 0
        for each in (ordered, unordered):
            tried = [received for received in rig.sink.at(each.path) if received.event_id == _first(rig, each.path)]
            assert len(tried) == 2, [received.at for received in tried]
            waited = tried[1].at - tried[0].at
            assert waited >= wait_s * 0.9, waited  # jitter takes a tenth
        await rig.stop()
    assert "timed out" not in broker.log().lower(), broker.log()[-3000:]
    assert "PRECONDITION_FAILED" not in broker.log()


def _first(rig: Rig, path: str) -> str:
    return rig.sink.at(path)[0].event_id or ""


async def test_wrong_credentials_and_wrong_vhost(tmp_path: Path, rabbitmq: RabbitmqBroker) -> None:
    """The condition says it, without the password; the log stays short and the processes idle; right ones are taken up."""
    wrong = rabbitmq.url_of(password="open barley")
    nowhere = rabbitmq.url_of(vhost="nowhere")
    async with rabbitmq_rig(tmp_path / "data", wrong, 3, ready=False) as rig:

        async def become(url: str) -> None:
            await rig.client.patch(SECRET, SETTINGS_NAMESPACE, SECRET_NAME, {"data": secret(url)["data"]})

        await rig.until_condition("False", reason="AuthenticationFailed")
        pids = [*await rig.pids(), *await asyncio.to_thread(rig.mesh.pids, "Control")]
        before, lines = [_cpu_s(pid) for pid in pids], len(rig.mesh.log.splitlines())
        await asyncio.sleep(8)
        used = [_cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)]
        assert max(used) < 2.0, f"{used} s of CPU in 8 s: somebody spins"
        said = rig.mesh.log.splitlines()[lines:]
        assert len(said) < 20, said
        await become(nowhere)
        condition = await rig.until_condition("False", reason="VirtualHostRefused")
        assert "nowhere" in condition["message"], condition
        await become(rabbitmq.url)
        await rig.changes.channel_ready()
        await rig.changes.subscribe("ordered", ordered=True)
        async with rig.load():
            await rig.traffic.until(30)
        await rig.balance()
        # They become wrong while everything runs, and right again.
        async with rig.load():
            await rig.traffic.until(30)
            rig.fault()
            await become(wrong)
            await rig.until_condition("False", reason="AuthenticationFailed")
            await become(rabbitmq.url)
            await rig.changes.channel_ready()
            await rig.traffic.until(30)
        await rig.balance()
        await rig.stop()
        for word in ("open barley", "open%20barley", "open sesame", "open%20sesame"):
            assert word not in rig.mesh.log


def _cpu_s(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
