"""What is in force follows the objects, whatever their order and whatever is in them."""

import asyncio
import gc
import json
import logging
from typing import Any

import pytest

from eventing.dataplane.table import channel_key
from eventing.resources.kinds import Object
from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber


def channel(name: str = "orders", uid: str = "u", generation: int = 1, created: str = "2026", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "default", "uid": uid, "generation": generation, "creationTimestamp": created}
    return {"metadata": metadata, "spec": spec}


async def test_applying_is_level_triggered(sink: Sink) -> None:
    async with DataPlaneRig() as mesh:
        table, factory = mesh.table, mesh.factory
        assert table.applied("k") is None
        for generation in (1, 2, 2, 5):
            table.apply("k", factory, channel(generation=generation, subscribers=[subscriber("s", sink.url + "/")]))
            assert table.applied("k") == ("u", generation)
        worker = mesh.worker("s")
        table.apply("k", factory, channel(generation=6, subscribers=[subscriber("s", sink.url + "/", retry=1)]))
        assert mesh.worker("s") is worker, "an edit keeps what is under way"
        table.apply("k", factory, channel(uid="another", generation=1))
        assert table.applied("k") == ("another", 1)
        deleting = channel(uid="another", generation=2)
        deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        table.apply("k", factory, deleting)
        assert table.applied("k") is None
        table.apply("k", factory, None)
        assert (await mesh.publish(make_event())).status == 404


async def test_what_is_applied_is_in_force_at_once(sink: Sink) -> None:
    """Ready means: every event accepted from now on is due to this subscriber."""
    async with DataPlaneRig() as mesh:
        for number in range(20):
            subscribers = [subscriber(f"s{n}", f"{sink.url}/{n}") for n in range(number + 1)]
            mesh.channel("orders", *subscribers)
            deliveries = await mesh.deliveries(await mesh.accepted(make_event(str(number))))
            assert len(deliveries) == number + 1
        await mesh.quiet()
        assert len(sink.requests) == sum(range(1, 21))


async def test_an_object_that_cannot_be_read_changes_nothing(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    async with DataPlaneRig() as mesh:
        mesh.table.apply("k", mesh.factory, channel(subscribers=[subscriber("s", sink.url + "/")]))
        broken: list[Any] = [[{"name": "no uid"}], [subscriber("s", sink.url + "/", timeout="soon")], [5]]
        for generation, subscribers in enumerate(broken, 2):
            with caplog.at_level(logging.ERROR):
                mesh.table.apply("k", mesh.factory, channel(generation=generation, subscribers=subscribers))
            assert mesh.table.applied("k") == ("u", 1), "and it is not said to be applied"
        assert "cannot be applied" in caplog.text
        assert await mesh.ended(await mesh.accepted(make_event())) == ("delivered", "")


async def test_the_address_belongs_to_who_came_first() -> None:
    async with DataPlaneRig() as mesh:
        table, factory = mesh.table, mesh.factory
        for key, uid, created in (("b", "second", "2026-02"), ("a", "first", "2026-01"), ("c", "third", "2026-03")):
            table.apply(key, factory, channel(uid=uid, created=created))

        def owner() -> Any:
            route = mesh.routes.find(b"x", b"/default/orders")
            return next((s.uid for s in table._served.values() if s.route is route), None)

        assert owner() == "first"
        table.apply("a", factory, None)
        assert owner() == "second"
        table.apply("c", factory, None)
        assert owner() == "second"
        table.apply("b", factory, None)
        assert owner() is None


async def test_figures_for_the_metrics(sink: Sink) -> None:
    async with DataPlaneRig() as mesh:
        sink.otherwise(Answer.never())
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=2))
        for number in range(5):
            await mesh.accepted(make_event(str(number)))
        await sink.received(2)
        ((metrics, in_flight, pending, size, oldest),) = mesh.table.figures()
        assert (metrics.namespace, metrics.name) == ("default", "s")
        assert (in_flight, pending) == (2, 5)
        assert size is not None
        assert size > 5 * 800
        assert oldest is not None
        assert oldest >= 0
        assert mesh.table.pending == 5


async def test_many_channels_come_and_go_without_a_trace() -> None:
    async with DataPlaneRig() as mesh:
        tasks = len(asyncio.all_tasks())
        for round_ in range(3):
            for number in range(100):
                mesh.table.apply(
                    f"k{number}", mesh.factory, channel(f"c{number}", uid=f"{round_}", subscribers=[subscriber("s", "http://x/")])
                )
            for number in range(100):
                mesh.table.apply(f"k{number}", mesh.factory, None)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0.001)
        assert mesh.budget.recount() == 0
        assert mesh.budget._recounts == []
        assert not mesh.routes._paths
        gc.collect()
        assert list(mesh.connections._pools) == []


def test_a_channel_is_named_as_the_control_plane_expects() -> None:
    from eventing.channels import channel_factories

    kind = channel_factories()["memory"].kind
    assert channel_key(kind, "ns", "name") == "inmemorychannels.messaging.knative.dev/ns/name"


async def test_one_of_several_processes_turns_away_producers_of_what_lives_in_one(sink: Sink) -> None:
    async with DataPlaneRig(workers=3) as mesh:
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=1))
        answer = await mesh.publish(make_event())
        assert (answer.status, answer.headers["retry-after"]) == (503, "30"), "a restart may change it, so it is not final"
        problem = json.loads(answer.body)
        assert "this mesh runs 3: start it without --workers, or use a KafkaChannel" in problem["detail"]
        assert mesh.table.applied("orders") is None, "nothing of it is in force"
        assert (mesh.table.channels, mesh.table.subscriptions, mesh.table.unserved) == (0, 0, ["default/orders"])
        mesh.remove("orders")
        assert (await mesh.publish(make_event())).status == 404
        assert not mesh.table.unserved
